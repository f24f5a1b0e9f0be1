"""Diversified starts: many short runs, each from a point where the logits are somewhere else (Tashiro, Song and Ermon, 2020,
https://arxiv.org/abs/2003.06878, ODI, section 3.1).

Runs that begin at random pixels begin at much the same logits, and mostly end where the others did. Here each run first goes a
few steps of full length in the direction that raises a random combination of the logits, <w, f(x)> with w uniform in [-1, 1]^k,
and climbs the margin from there by Auto-PGD. On networks whose loss is rugged, restarts find more that way than longer runs or
runs towards each class do.

The paper's ODI-PGD climbs by PGD on the margin or the cross-entropy; the climb is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from awnet.attacks.apgd import Ascent, climb_in
from awnet.attacks.attack import Answer, Attack, Gradient, nobody, select
from awnet.attacks.registry import ATTACKS
from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import Margin
from awnet.noise import Noise
from awnet.threat_model import ThreatModel
from awnet.types import Hits, Images, Labels, Logits, PerExample


class DiversifiedState(NamedTuple):
    """Where each example is.

    Attributes:
        x, y: the image and its label.
        run: which run it is in.
        lot: of 64 bits, from which the run's combination of logits is drawn: how many there are only an answer tells.
        step: how many steps of the start were taken.
        start: where that is.
        climb: the state of what follows.
        answer, margin: the image of the queries inside the threat model that is closest to misclassified, or furthest
            beyond, and by how much.
    """

    x: Images
    y: Labels
    run: Tensor
    lot: Tensor
    step: Tensor
    start: Images
    climb: Any
    answer: Images
    margin: PerExample


@setting
@dataclass(frozen=True, kw_only=True)
class Diversified(Attack):
    """Short runs of Auto-PGD on the margin, each from a start of its own.

    Args:
        threat: the ball.
        start_steps: steps of length eps (in L1: of one pixel) that lead to a start.
        steps: of the run that follows.
        restarts: how many runs.
    """

    threat: ThreatModel
    start_steps: int = 4
    steps: int = 25
    restarts: int = 36
    stop_on_success: bool = True

    scouted = True

    def __post_init__(self) -> None:
        if min(self.start_steps, self.steps, self.restarts) < 1:
            raise Mistake(
                "diversified starts need steps to the start, steps from there and restarts of at least 1, got "
                f"start_steps={self.start_steps}, steps={self.steps} and restarts={self.restarts}"
            )

    @property
    def queries(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.restarts * (self.start_steps + self._climb.queries)

    @property
    def _climb(self) -> Ascent:
        return climb_in(self.threat, self.steps, 0.75)

    def start(self, x: Images, target: Tensor, noise: Noise) -> DiversifiedState:
        zero = torch.zeros_like(target)
        none = torch.full((len(x),), -torch.inf, device=x.device)
        start = self._anywhere(x, zero, noise)
        climb = self._climb.go_on(x, start, 2 * self.threat.eps)
        return DiversifiedState(x, target, zero, noise.stream(1).bits(0, ()), zero, start, climb, x, none)

    def _anywhere(self, x: Images, run: Tensor, noise: Noise) -> Images:
        """A random point of the ball."""
        return self.threat.project(x + self.threat.uniform(noise, run, tuple(x.shape[1:])), x)

    def query(self, state: DiversifiedState) -> Gradient:
        starting = state.step < self.start_steps

        def loss(logits: Logits) -> PerExample:
            combination = 2 * Noise(0, state.lot).uniform(0, (logits.shape[1],)) - 1
            return torch.where(starting, (combination * logits).sum(1), Margin()(logits, state.y))

        return Gradient(select(starting, state.start, state.climb.now), loss)

    def update(self, state: DiversifiedState, answer: Answer, noise: Noise) -> DiversifiedState:
        assert answer.loss is not None and answer.gradient is not None
        starting = state.step < self.start_steps
        asked = select(starting, state.start, state.climb.now)
        margin = Margin()(answer.logits, state.y)
        further = margin > state.margin
        if not nobody(further):
            further = further & self.threat.contains(state.x, asked)

        onwards = self.threat.project(state.start + self.threat.eps * self.threat.ascend(answer.gradient), state.x)
        start = select(starting, onwards, state.start)
        moved = self._climb.move(state.climb, state.x, answer.loss, answer.gradient)
        climb = select(starting, self._climb.go_on(state.x, start, 2 * self.threat.eps), moved)
        step, run, lot = state.step + starting, state.run, state.lot
        ended = ~starting & self._climb.ended(moved)
        if not nobody(ended):
            run, step = run + ended, step * ~ended
            lot = select(ended, noise.stream(1).bits(run, ()), lot)
            start = select(ended, self._anywhere(state.x, run, noise), start)
        return DiversifiedState(
            x=state.x,
            y=state.y,
            run=run,
            lot=lot,
            step=step,
            start=start,
            climb=climb,
            answer=select(further, asked, state.answer),
            margin=select(further, margin, state.margin),
        )

    def done(self, state: DiversifiedState) -> Hits:
        return state.run >= self.restarts

    def runs(self, state: DiversifiedState) -> Tensor:
        return torch.full_like(state.run, self.restarts)

    def at_run(self, state: DiversifiedState, run: Tensor, noise: Noise) -> DiversifiedState:
        return state._replace(
            run=run,
            lot=noise.stream(1).bits(run, ()),
            step=torch.zeros_like(run),
            start=self._anywhere(state.x, run, noise),
            answer=state.x,
            margin=torch.full_like(state.margin, -torch.inf),
        )

    def joined(self, before: DiversifiedState, after: DiversifiedState) -> DiversifiedState:
        further = after.margin > before.margin
        answer = select(further, after.answer, before.answer)
        return after._replace(answer=answer, margin=select(further, after.margin, before.margin))

    def delicate(self, state: DiversifiedState) -> Hits:
        """The last quarter of each run, as of `awnet.attacks.apgd.APGD`."""
        return (state.step >= self.start_steps) & self._climb.late(state.climb)

    def adversarial(self, state: DiversifiedState) -> Images:
        return state.answer


@ATTACKS.register("diversified")
def diversified(threat: ThreatModel) -> Diversified:
    """36 runs of 25 steps on the margin, each from where a random combination of the logits is large."""
    return Diversified(threat=threat)
