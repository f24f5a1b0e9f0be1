"""FAB-T, the targeted Fast Adaptive Boundary attack (Croce and Hein, 2020, https://arxiv.org/abs/1907.02044).

It looks for the nearest misclassified image, whatever eps is, by steps onto the plane where a linear model of z_t - z_y is 0.
An answer further than eps away is no success, and x is then its answer. As in the authors' code and unlike the paper, there
is no final search along the segment to x; random starts, where there are any, lie eps/2 away. In one thing we differ from
the code: the points between x and a misclassified one, at which a step begins anew, count where they are misclassified
themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from awnet.attacks.attack import Answer, Attack, Gradient, nobody, per_image, select
from awnet.attacks.inputs import finite
from awnet.attacks.registry import ATTACKS
from awnet.attacks.targets import aims, runners_up
from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import TargetedMargin
from awnet.noise import Noise
from awnet.threat_model import ThreatModel
from awnet.types import Hits, Images, Labels, Logits, PerExample


class FABState(NamedTuple):
    """Where each example is.

    Attributes:
        x, y: the image and its label.
        run: which run it is in.
        runs: how many there are.
        targets: the class each run aims at, shape (b, targets); the label where that is not known yet.
        step: how many steps of this run have been judged.
        stepped: whether `now` is where a step has led, and not where one begins.
        now: the image that is asked about.
        best, distance: the nearest misclassified image so far, and how far it is from x; x and infinity where none is.
    """

    x: Images
    y: Labels
    run: Tensor
    runs: Tensor
    targets: Tensor
    step: Tensor
    stepped: Hits
    now: Images
    best: Images
    distance: PerExample


@setting
@dataclass(frozen=True, kw_only=True)
class FAB(Attack):
    """Walk along the boundary between two classes towards the image.

    Args:
        threat: the norm, and eps.
        targets: how many classes to aim at, one after the other: the likeliest ones of the clean image, at most all but
            the label.
        restarts: runs for each target; the first begins at the image, the others at random.
        steps: of a run.
        alpha: the largest weight of the step from x against the step from where the run is.
        eta: how far beyond the boundary a step goes, 1 being on it.
        beta: how much of its perturbation a misclassified image keeps before the next step.
    """

    threat: ThreatModel
    targets: int = 9
    restarts: int = 1
    steps: int = 100
    alpha: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    stop_on_success: bool = True

    exact = True  # its steps are differences of nearly equal logits
    scouted = True

    def __post_init__(self) -> None:
        if min(self.targets, self.restarts, self.steps) < 1:
            raise Mistake(
                "FAB needs targets, restarts and steps of at least 1, got "
                f"targets={self.targets}, restarts={self.restarts} and steps={self.steps}"
            )
        if not (0 <= self.alpha <= 1 and 1 <= self.eta <= 2 and 0 < self.beta < 1):
            raise Mistake(
                "FAB needs alpha in [0, 1], eta in [1, 2] and beta between 0 and 1, got "
                f"alpha={self.alpha:g}, eta={self.eta:g} and beta={self.beta:g}"
            )

    @property
    def queries(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        # each step asks for the gradient where it begins, and looks where it has led
        return self.targets * self.restarts * 2 * self.steps

    def start(self, x: Images, target: Tensor, noise: Noise) -> FABState:
        zero, no = torch.zeros_like(target), torch.zeros_like(target, dtype=torch.bool)
        far = torch.full((len(x),), torch.inf, device=x.device)
        targets = target[:, None].repeat(1, self.targets)
        return FABState(x, target, zero, zero + self.restarts * self.targets, targets, zero, no, x, x, far)

    def query(self, state: FABState) -> Gradient:
        return Gradient(state.now, lambda logits: TargetedMargin()(logits, self._aim(state, logits)))

    def _aim(self, state: FABState, logits: Logits) -> Tensor:
        """The label and the class aimed at, shape (b, 2)."""
        place = (state.run // self.restarts).clamp(max=self.targets - 1)
        return torch.cat([state.y[:, None], self._targets(state, logits).gather(1, place[:, None])], dim=1)

    def _targets(self, state: FABState, logits: Logits) -> Tensor:
        """The classes to aim at; the first answer of all is about x and tells them itself."""
        looked = _unknown(state)
        return (
            state.targets
            if nobody(looked)
            else select(looked, runners_up(logits, state.y, self.targets), state.targets)
        )

    def update(self, state: FABState, answer: Answer, noise: Noise) -> FABState:
        x, now, looked = state.x, state.now, _unknown(state)
        targets = self._targets(state, answer.logits)
        wrong = (answer.logits.argmax(1) != state.y) & finite(answer.logits)  # what is no number is no verdict
        distance = self.threat.distance(x, now)
        nearer = wrong & (distance < state.distance)

        step = state.step + state.stepped
        onwards = select(wrong, x + self.beta * (now - x), now)
        if answer.gradient is not None:  # somebody does more than look
            onwards = select(state.stepped, onwards, self._towards(x, now, answer))
        ended = step >= self.steps
        run = state.run + ended
        return FABState(
            x=x,
            y=state.y,
            run=run,
            runs=select(looked, aims(targets, state.y) * self.restarts, state.runs),
            targets=targets,
            step=step * ~ended,
            stepped=~state.stepped,
            now=onwards if nobody(ended) else select(ended, self._beginning(x, run, noise), onwards),
            best=select(nearer, now, state.best),
            distance=select(nearer, distance, state.distance),
        )

    def _towards(self, x: Images, now: Images, answer: Answer) -> Images:
        """The next point: between the points of the plane nearest to `now` and nearest to x, a little beyond both."""
        assert answer.loss is not None and answer.gradient is not None
        from_now = self.threat.to_plane(now, answer.gradient, answer.loss)
        at_x = answer.loss + (answer.gradient * (x - now)).flatten(1).sum(1)
        from_x = self.threat.to_plane(x, answer.gradient, at_x)
        short, long = (self.threat.distance(t, torch.zeros_like(t)).clamp(min=1e-8) for t in (from_now, from_x))
        alpha = per_image((short / (short + long)).clamp(max=self.alpha))
        return ((1 - alpha) * (now + self.eta * from_now) + alpha * (x + self.eta * from_x)).clamp(0, 1)

    def _beginning(self, x: Images, run: Tensor, noise: Noise) -> Images:
        """Where a run begins: x, or for the second and later ones of a target a random image eps/2 away."""
        if self.restarts == 1:
            return x
        delta = self.threat.uniform(noise, run, tuple(x.shape[1:]))
        length = self.threat.distance(torch.zeros_like(x), delta).clamp(min=1e-30)
        away = (x + self.threat.eps / 2 * delta / per_image(length)).clamp(0, 1)
        return torch.where(per_image(run % self.restarts == 0), x, away)

    def runs(self, state: FABState) -> Tensor:
        # before the first answer, which is about x, nobody knows what later runs are to aim at
        return torch.where(_unknown(state), 0, state.runs)

    def at_run(self, state: FABState, run: Tensor, noise: Noise) -> FABState:
        return state._replace(
            run=run,
            step=torch.zeros_like(state.step),
            stepped=torch.zeros_like(state.stepped),
            now=self._beginning(state.x, run, noise),
            best=state.x,
            distance=torch.full_like(state.distance, torch.inf),
        )

    def joined(self, before: FABState, after: FABState) -> FABState:
        nearer = after.distance < before.distance
        best = select(nearer, after.best, before.best)
        return after._replace(best=best, distance=select(nearer, after.distance, before.distance))

    def looks(self, state: FABState) -> Hits:
        """Where a step has led it matters only whether the image is misclassified."""
        return state.stepped

    def done(self, state: FABState) -> Hits:
        return state.run >= state.runs

    def adversarial(self, state: FABState) -> Images:
        return select(self.threat.contains(state.x, state.best), state.best, state.x)


def _unknown(state: FABState) -> Hits:
    return state.targets[:, 0] == state.y


@ATTACKS.register("fab-t")
def fab_t(threat: ThreatModel) -> FAB:
    """FAB-T, 100 steps towards each of nine classes, as in AutoAttack."""
    return FAB(threat=threat)
