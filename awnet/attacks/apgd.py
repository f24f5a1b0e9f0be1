"""Auto-PGD (Croce and Hein, 2020, https://arxiv.org/abs/2003.01690), section 3 and Algorithm 1; in L1 the attack of 2021.

PGD whose step size follows, example by example, from whether the last steps were of use. How a run climbs in L1 is told in
`awnet/attacks/sparse_climb.py`. Where the authors' code differs from the paper we follow the code, so that verdicts agree:

- The intervals between checkpoints are 22, 19, 16, … % of the steps, each rounded down (the paper rounds the checkpoints up;
  at 100 steps both say 22, 41, 57, 70, 80, 87, 93, 99).
- A step is halved where the loss rose in at most 75 % of the interval's steps, the paper says in less; and the first
  checkpoint does not ask whether the best loss has stayed the same.

One thing in it we take for a slip and follow the paper: at the first checkpoint it compares the loss after the first step
with zero, not with the loss at the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from awnet.attacks.attack import Answer, Attack, Gradient, nobody, per_image, select
from awnet.attacks.registry import ATTACKS
from awnet.attacks.sparse_climb import RADII, SparseClimb
from awnet.attacks.targets import aims, runners_up
from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import DLR, CrossEntropy, Loss, Margin, TargetedDLR, TargetedMargin
from awnet.noise import Noise
from awnet.threat_model import L1, ThreatModel
from awnet.types import Hits, Images, Labels, PerExample

MOMENTUM = 0.75  # alpha of the paper: the weight of the gradient's step against the last one


class ClimbState(NamedTuple):
    """One run of one example, in Linf or L2."""

    step: Tensor  # how many steps lead to `now`
    now: Images
    before: Images
    size: PerExample
    loss: PerExample  # at `before`
    rises: Tensor  # since the last checkpoint
    interval: Tensor  # from the last checkpoint to the next
    next: Tensor  # the step of that
    halved: Hits  # whether the step was halved at the last checkpoint
    best_then: PerExample  # the best loss there
    best: Images
    best_loss: PerExample
    best_gradient: Images


@dataclass(frozen=True)
class Climb:
    """One run in Linf or L2: steps with momentum, halved and restarted from the best point where they lead nowhere.

    Args:
        threat: the ball.
        steps: of the run; it asks once more, for its first point.
        rho: in which share of the steps the loss has to rise.
    """

    threat: ThreatModel
    steps: int
    rho: float

    @property
    def queries(self) -> int:
        """Evaluations of a run."""
        return self.steps + 1

    def begin(self, x: Images, run: Tensor, noise: Noise) -> ClimbState:
        """A random point at distance eps, before its evaluation."""
        delta = self.threat.uniform(noise, run, tuple(x.shape[1:]))
        length = self.threat.distance(torch.zeros_like(x), delta).clamp(min=1e-30)
        now = self.threat.project(x + self.threat.eps * delta / per_image(length), x)
        return self.go_on(x, now, 2 * self.threat.eps)

    def go_on(self, x: Images, now: Images, size: float) -> ClimbState:
        """A run from a point of the ball, before its evaluation, with a first step of that length."""
        none = torch.full((len(x),), -torch.inf, device=x.device)
        zero = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        interval = zero + max(self.steps * 22 // 100, 1)
        yes, sizes = torch.ones_like(zero, dtype=torch.bool), torch.full_like(none, size)
        return ClimbState(zero, now, now, sizes, -none, zero, interval, interval, yes, none, now, none, now)

    def move(self, state: ClimbState, x: Images, loss: PerExample, gradient: Images) -> ClimbState:
        """The next point, from what the model said of this one."""
        better = loss > state.best_loss
        best, best_loss = select(better, state.now, state.best), select(better, loss, state.best_loss)
        best_gradient = select(better, gradient, state.best_gradient)
        best_then = select(state.step == 0, loss, state.best_then)

        rises = state.rises + (loss > state.loss)
        checkpoint = state.step == state.next
        rarely = rises <= self.rho * state.interval
        stuck = ~state.halved & (best_then >= best_loss)
        halve = checkpoint & (rarely | stuck)
        shorter = (state.interval - max(self.steps * 3 // 100, 1)).clamp(min=max(self.steps * 6 // 100, 1))
        interval = select(checkpoint, shorter, state.interval)

        size = select(halve, state.size / 2, state.size)
        here, uphill = select(halve, best, state.now), select(halve, best_gradient, gradient)
        z = self.threat.project(here + per_image(size) * self.threat.ascend(uphill), x)
        a = per_image(torch.where(state.step == 0, 1.0, MOMENTUM))
        now = self.threat.project(here + a * (z - here) + (1 - a) * (here - state.before), x)
        return ClimbState(
            step=state.step + 1,
            now=now,
            before=here,
            size=size,
            loss=loss,
            rises=rises * ~checkpoint,
            interval=interval,
            next=select(checkpoint, state.next + interval, state.next),
            halved=select(checkpoint, halve, state.halved),
            best_then=select(checkpoint, best_loss, best_then),
            best=best,
            best_loss=best_loss,
            best_gradient=best_gradient,
        )

    def ended(self, state: ClimbState) -> Hits:
        """Whether the run has had all its evaluations."""
        return state.step > self.steps

    def late(self, state: ClimbState) -> Hits:
        """Whether the run is in the last quarter of its steps."""
        return 4 * state.step > 3 * self.steps


class Ascent(Protocol):
    """What a run is in any norm; its states are its own."""

    @property
    def queries(self) -> int: ...
    def begin(self, x: Images, run: Tensor, noise: Noise) -> Any: ...
    def go_on(self, x: Images, now: Images, size: float) -> Any: ...
    def move(self, state: Any, x: Images, loss: PerExample, gradient: Images) -> Any: ...
    def ended(self, state: Any) -> Hits: ...
    def late(self, state: Any) -> Hits: ...


def climb_in(threat: ThreatModel, steps: int, rho: float, radii: tuple[int, ...] = RADII) -> Ascent:
    """One run in any norm; in L1 through these radii, and with `rho` elsewhere."""
    return SparseClimb(threat, steps, radii) if isinstance(threat, L1) else Climb(threat, steps, rho)


class APGDState(NamedTuple):
    """Where each example is.

    Attributes:
        x, y: the image and its label.
        run: which run it is in; -1 before the first answer, which is about x itself.
        runs: how many there are.
        targets: the class each run aims at, shape (b, targets).
        climb: the run's own state.
        answer, margin: the image of the queries inside the threat model that is closest to misclassified, or furthest
            beyond, and by how much.
    """

    x: Images
    y: Labels
    run: Tensor
    runs: Tensor
    targets: Tensor
    climb: Any
    answer: Images
    margin: PerExample


@setting
@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """Climb the loss from random points, with a step size that needs no tuning.

    The first query is the image itself: it tells the targets, and ends the attack where the image is misclassified.

    Args:
        threat: the ball.
        loss: (logits, target) -> (b,), to be raised; a targeted one where there are targets.
        targets: 0, or how many classes to aim at, one after the other: the likeliest ones of the clean image, at most
            all but the label.
        restarts: runs for each target, or runs in all.
        steps: of a run. In L1 they are spread over three radii.
        rho: the step is halved where the loss rose in no more than this share of the steps.
    """

    threat: ThreatModel
    loss: Loss = CrossEntropy()  # noqa: RUF009 - frozen, without state
    targets: int = 0
    restarts: int = 1
    steps: int = 100
    rho: float = 0.75
    stop_on_success: bool = True

    scouted = True

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1 or self.targets < 0 or not 0 <= self.rho <= 1:
            raise Mistake(
                "APGD needs steps and restarts of at least 1, targets of at least 0 and rho in [0, 1], got "
                f"steps={self.steps}, restarts={self.restarts}, targets={self.targets} and rho={self.rho:g}"
            )
        if isinstance(self.loss, (TargetedDLR, TargetedMargin)) != (self.targets > 0):
            raise Mistake(
                f"APGD with targets={self.targets} got the loss {self.loss}; TargetedDLR and TargetedMargin need targets "
                "of at least 1, and every other loss none"
            )

    @property
    def queries(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 1 + max(self.targets, 1) * self.restarts * self._climb.queries

    @property
    def _climb(self) -> Ascent:
        return climb_in(self.threat, self.steps, self.rho)

    def start(self, x: Images, target: Tensor, noise: Noise) -> APGDState:
        zero = torch.zeros_like(target)
        climb = self._climb.begin(x, zero, noise)
        none = torch.full((len(x),), -torch.inf, device=x.device)
        targets = target[:, None].repeat(1, max(self.targets, 1))
        return APGDState(x, target, zero - 1, zero + self.restarts, targets, climb, x, none)

    def query(self, state: APGDState) -> Gradient:
        x = select(state.run < 0, state.x, state.climb.now)
        if not self.targets:
            return Gradient(x, lambda logits: self.loss(logits, state.y))
        aim = state.targets.gather(1, (state.run // self.restarts).clamp(0, self.targets - 1)[:, None])
        return Gradient(x, lambda logits: self.loss(logits, torch.cat([state.y[:, None], aim], dim=1)))

    def update(self, state: APGDState, answer: Answer, noise: Noise) -> APGDState:
        assert answer.loss is not None and answer.gradient is not None
        looked = state.run < 0
        asked = select(looked, state.x, state.climb.now)
        margin = Margin()(answer.logits, state.y)
        further = margin > state.margin
        if not nobody(further):
            further = further & self.threat.contains(state.x, asked)

        targets, runs = state.targets, state.runs
        if self.targets and not nobody(looked):
            targets = select(looked, runners_up(answer.logits, state.y, self.targets), targets)
            runs = select(looked, aims(targets, state.y) * self.restarts, runs)
        moved = self._climb.move(state.climb, state.x, answer.loss, answer.gradient)
        ended = self._climb.ended(moved) & ~looked
        climb = moved if nobody(ended) else select(ended, self._climb.begin(state.x, state.run + 1, noise), moved)
        return APGDState(
            x=state.x,
            y=state.y,
            run=state.run + (looked | ended),
            runs=runs,
            targets=targets,
            climb=select(looked, state.climb, climb),
            answer=select(further, asked, state.answer),
            margin=select(further, margin, state.margin),
        )

    def done(self, state: APGDState) -> Hits:
        return state.run >= state.runs

    def runs(self, state: APGDState) -> Tensor:
        return state.runs

    def at_run(self, state: APGDState, run: Tensor, noise: Noise) -> APGDState:
        climb = self._climb.begin(state.x, run, noise)
        return state._replace(run=run, climb=climb, answer=state.x, margin=torch.full_like(state.margin, -torch.inf))

    def joined(self, before: APGDState, after: APGDState) -> APGDState:
        further = after.margin > before.margin
        answer = select(further, after.answer, before.answer)
        return after._replace(answer=answer, margin=select(further, after.margin, before.margin))

    def delicate(self, state: APGDState) -> Hits:
        """The last quarter of each run: the steps are small there, and so are the margins that remain."""
        return (state.run >= 0) & self._climb.late(state.climb)

    def adversarial(self, state: APGDState) -> Images:
        return state.answer


@ATTACKS.register("apgd-ce")
def apgd_ce(threat: ThreatModel) -> APGD:
    """APGD on the cross-entropy, 100 steps; one run, in L1 five, as in AutoAttack."""
    return APGD(threat=threat, restarts=5 if isinstance(threat, L1) else 1)


@ATTACKS.register("apgd-dlr")
def apgd_dlr(threat: ThreatModel) -> APGD:
    """APGD on the difference of logits ratio, 100 steps; as many runs as `apgd-ce`."""
    return APGD(threat=threat, loss=DLR(), restarts=5 if isinstance(threat, L1) else 1)


@ATTACKS.register("apgd-t")
def apgd_t(threat: ThreatModel) -> APGD:
    """APGD on the targeted difference of logits ratio, 100 steps towards each of nine classes, in L1 of five."""
    return APGD(threat=threat, loss=TargetedDLR(), targets=5 if isinstance(threat, L1) else 9)
