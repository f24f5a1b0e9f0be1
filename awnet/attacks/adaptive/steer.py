"""Steer: climb in a model that decides, by the class and by the decision at once.

All attacks of this folder are settings of it. A run has two legs. The first climbs in some form of the model (as it is, or
with the decision frozen: `awnet.models.model.Deciding`), in some part of the ball, and pushes the decision to one side. The
second climbs the class margin in the model as it is, in the whole ball, from the best point of the first. Both move as
Auto-PGD does, in L1 by its sparse steps. Each run aims at a class of its own, and the weight of the push follows from how
the run before it went.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from awnet.attacks.adaptive.weigh import Weigh, Weighed
from awnet.attacks.apgd import Ascent, ClimbState, climb_in
from awnet.attacks.attack import Answer, Attack, Steering, nobody, select
from awnet.attacks.sparse_climb import SparseClimbState
from awnet.attacks.targets import aims, runners_up
from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import Margin, TargetedMargin
from awnet.noise import Noise
from awnet.threat_model import ThreatModel
from awnet.types import Hits, Images, Labels, PerExample

Side = Literal["clean", "adversarial"]
LIGHTEST, HEAVIEST = 1 / 64, 64.0  # of the push, against a class gradient of length 1


class SteerState(NamedTuple):
    """Where each example is.

    Attributes:
        x, y: the image and its label.
        run: which run it is in; -1 before the first answer, which is about x itself.
        runs: how many there are.
        targets: the class each run aims at, shape (b, targets).
        second: whether it is in the second leg.
        weight: of the push.
        climb: the leg's own state.
        answer, margin: the image of the queries to the model as it is that is closest to a success, and by how much.
    """

    x: Images
    y: Labels
    run: Tensor
    runs: Tensor
    targets: Labels
    second: Hits
    weight: PerExample
    climb: ClimbState | SparseClimbState
    answer: Images
    margin: PerExample


@setting
@dataclass(frozen=True, kw_only=True)
class Steer(Attack):
    """Runs of two legs each. A model that does not decide cannot be steered: the attack ends after its first look.

    Args:
        threat: the ball.
        form: in which form of the model the first leg climbs: "" for the model as it is, "still", or one that the model
            offers; where it does not, as it is.
        push: to which side the first leg pushes the decision, if it does.
        weigh: how class and decision make one direction.
        level: the log-odds on that side at which the push has gone far enough.
        reach: the radius of the first leg, as a fraction of eps.
        steps: of the first leg.
        then: steps of the second.
        then_size: the first step of the second leg, as a fraction of eps; small enough not to lose the start at once.
        targets: how many classes to aim at, the likeliest ones of the clean image.
        restarts: runs for each of them.
        caught: the log-odds of clean up to which an image is caught: it is a success only above, and both legs push it there.
            An engine does not know that, so such an attack ends by itself, `stop_on_success` being off.
    """

    threat: ThreatModel
    form: str = ""
    push: Side | None = None
    weigh: Weigh = "sum"
    level: float = 3.0
    reach: float = 1.0
    steps: int = 50
    then: int = 50
    then_size: float = 0.5
    targets: int = 3
    restarts: int = 1
    caught: float = -inf
    stop_on_success: bool = True

    def __post_init__(self) -> None:
        if self._hides and (self.stop_on_success or self.push != "clean" or self.form):
            raise Mistake(
                "an attack that must not be caught pushes the model as it is to clean and does not stop at the first "
                f"misclassified image; got push={self.push}, form={self.form!r}, stop_on_success={self.stop_on_success}"
            )
        if min(self.steps, self.then, self.targets, self.restarts) < 1 or not 0 < self.reach <= 1:
            raise Mistake(
                "steering needs at least one step in each leg, one target and one run for it, and a reach in (0, 1]; got "
                f"steps={self.steps}, then={self.then}, targets={self.targets}, restarts={self.restarts} and "
                f"reach={self.reach:g}"
            )

    @property
    def queries(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        first, second = self._legs
        return 1 + self.targets * self.restarts * (first.queries + second.queries)

    @property
    def _hides(self) -> bool:
        return self.caught > -inf

    @property
    def exact(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether it ends by itself, at a success that no engine confirms: only float32 can tell then."""
        return self._hides

    @property
    def _legs(self) -> tuple[Ascent, Ascent]:
        near = replace(self.threat, eps=self.reach * self.threat.eps)
        return climb_in(near, self.steps, 0.75), climb_in(self.threat, self.then, 0.75, radii=(1,))

    def start(self, x: Images, target: Tensor, noise: Noise) -> SteerState:
        zero, one = torch.zeros_like(target), torch.ones(len(x), device=x.device)
        return SteerState(
            x=x,
            y=target,
            run=zero - 1,
            runs=zero + self.restarts,
            targets=target[:, None].repeat(1, self.targets),
            second=zero > 0,
            weight=one,
            climb=self._legs[0].begin(x, zero, noise),
            answer=x,
            margin=-torch.inf * one,
        )

    def query(self, state: SteerState) -> Steering:
        aim = state.targets.gather(1, (state.run.clamp(min=0) // self.restarts).clamp(max=self.targets - 1)[:, None])
        target = torch.cat([state.y[:, None], aim], dim=1)
        looking = state.run < 0
        return Steering(
            x=select(looking, state.x, state.climb.now),
            loss=lambda logits: TargetedMargin()(logits, target),
            form=self.form,
            forced=~state.second & ~looking,
            origin=state.x,
        )

    def update(self, state: SteerState, answer: Answer, noise: Noise) -> SteerState:
        assert answer.loss is not None and answer.gradient is not None
        looked = state.run < 0
        asked = select(looked, state.x, state.climb.now)
        margin = Margin()(answer.logits, state.y)
        if self._hides and answer.log_odds is not None:
            margin = torch.minimum(margin, answer.log_odds - self.caught)
        further = (margin > state.margin) & self.threat.contains(state.x, asked)
        further = further if answer.real is None else further & answer.real

        first, second = self._legs
        weighed = self._weighed(state, answer)
        near = first.move(state.climb, state.x, weighed.merit, weighed.direction)
        onwards = (weighed.merit, weighed.direction) if self._hides else (answer.loss, answer.gradient)
        far = second.move(state.climb, state.x, *onwards)
        turn = ~looked & ~state.second & first.ended(near)
        ended = ~looked & state.second & second.ended(far)

        climb = select(state.second, far, near)
        if not nobody(turn):
            climb = select(turn, second.go_on(state.x, near.best, self.then_size * self.threat.eps), climb)
        if not nobody(ended):
            climb = select(ended, first.begin(state.x, state.run + 1, noise), climb)
        weight = torch.where(weighed.there, state.weight / 2, state.weight * 2).clamp(LIGHTEST, HEAVIEST)
        targets = select(looked, runners_up(answer.logits, state.y, self.targets), state.targets)
        runs = aims(targets, state.y) * self.restarts * (answer.log_odds is not None)
        return SteerState(
            x=state.x,
            y=state.y,
            run=state.run + (looked | ended),
            runs=select(looked, runs, state.runs),
            targets=targets,
            second=(state.second | turn) & ~ended,
            weight=select(turn, weight, state.weight),
            climb=select(looked, state.climb, climb),
            answer=select(further, asked, state.answer),
            margin=select(further, margin, state.margin),
        )

    def _weighed(self, state: SteerState, answer: Answer) -> Weighed:
        """Direction and merit of the first leg."""
        assert answer.loss is not None and answer.gradient is not None
        if self.push is None or answer.log_odds is None or answer.towards_clean is None:
            return Weighed(answer.gradient, answer.loss, torch.ones_like(state.second))
        sign = 1 if self.push == "clean" else -1
        beyond = sign * answer.log_odds - self.level
        return Weighed.of(
            self.weigh,
            answer.loss,
            answer.gradient,
            beyond,
            sign * answer.towards_clean,
            state.weight,
            bool(self.form) or self._hides,
        )

    def done(self, state: SteerState) -> Hits:
        ended = state.run >= state.runs
        return ended | (state.margin > 0) if self._hides else ended

    def delicate(self, state: SteerState) -> Hits:
        """The last quarter of each leg, as of a run of `awnet.attacks.apgd.APGD`."""
        first, second = self._legs
        return (state.run >= 0) & torch.where(state.second, second.late(state.climb), first.late(state.climb))

    def adversarial(self, state: SteerState) -> Images:
        return state.answer
