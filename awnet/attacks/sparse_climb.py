"""How APGD climbs in L1 (Croce and Hein, 2021, "Mind the box", https://arxiv.org/abs/2103.01208, section 3).

A step moves the pixels with the largest gradients alone, as many as the best perturbation so far suggests, and projects onto
ball and box at once. A run begins in a ball three times as large and comes to the true one over the double. Details are
those of the authors' code: a checkpoint every 4 % of a radius' steps (mostly every step), a first point that is a projected
normal vector. There, a point found at a larger radius never counts; here it does where it is in the ball.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from awnet.attacks.attack import select
from awnet.noise import Noise
from awnet.threat_model import L1, onto_l1_ball
from awnet.types import Hits, Images, PerExample

RADII = (3, 2, 1)  # in eps


class SparseClimbState(NamedTuple):
    """One run of one example in L1."""

    stage: Tensor  # which of the radii
    step: Tensor  # how many steps lead to `now` in this stage
    now: Images
    size: PerExample
    share: PerExample  # of the pixels, that a step moves
    support: PerExample  # how many pixels the best perturbation moved at the last checkpoint
    best: Images
    best_loss: PerExample
    best_gradient: Images


@dataclass(frozen=True)
class SparseClimb:
    """One run in L1.

    Args:
        threat: the ball.
        steps: over all radii, of three 30, 30 and 40 % of them.
        radii: three, one after the other, in eps; or 1 alone, for a run that goes on from a point.
    """

    threat: L1
    steps: int
    radii: tuple[int, ...] = RADII

    @property
    def queries(self) -> int:
        """Evaluations of a run: each radius asks once more, for its first point."""
        return sum(self._lengths) + len(self.radii)

    @property
    def _lengths(self) -> tuple[int, ...]:
        if len(self.radii) == 1:
            return (self.steps,)
        early = min(-(-3 * self.steps // 10), self.steps // 2)  # rounded up, but never more than there are
        return early, early, self.steps - 2 * early

    def begin(self, x: Images, run: Tensor, noise: Noise) -> SparseClimbState:
        """A random point of the largest ball, before its evaluation."""
        stage = torch.zeros_like(run)
        return self._enter(x, self._into(x + noise.normal(run, tuple(x.shape[1:])), x, stage), stage)

    def go_on(self, x: Images, now: Images, size: float) -> SparseClimbState:
        """A run from a point of the ball, before its evaluation, with a first step of that length."""
        state = self._enter(x, now, torch.zeros(len(x), dtype=torch.int64, device=x.device))
        return state._replace(size=torch.full_like(state.size, size))

    def _enter(self, x: Images, now: Images, stage: Tensor) -> SparseClimbState:
        """A stage at its first point."""
        support = _support(now - x)
        none = torch.full_like(support, -torch.inf)
        share = support / x[0].numel() / 1.5
        return SparseClimbState(
            stage, torch.zeros_like(stage), now, self._radius(stage), share, support, now, none, now
        )

    def _radius(self, stage: Tensor) -> PerExample:
        return self.threat.eps * (self.radii[0] - stage).clamp(min=1).float()

    def _into(self, point: Images, x: Images, stage: Tensor) -> Images:
        return onto_l1_ball(point, x, self._radius(stage))

    def move(self, state: SparseClimbState, x: Images, loss: PerExample, gradient: Images) -> SparseClimbState:
        """The next point, from what the model said of this one."""
        better = loss > state.best_loss
        best, best_loss = select(better, state.now, state.best), select(better, loss, state.best_loss)
        best_gradient = select(better, gradient, state.best_gradient)

        length = torch.where(state.stage < len(self.radii) - 1, self._lengths[0], self._lengths[-1])
        checkpoint = (state.step > 0) & (state.step % (length * 4 // 100).clamp(min=1) == 0)
        support = _support(best - x)
        sparser = support < 0.95 * state.support
        radius = self._radius(state.stage)
        adapted = torch.where(sparser, radius, torch.maximum(state.size / 1.5, radius / 10))
        size = select(checkpoint, adapted, state.size)
        share = select(checkpoint, support / x[0].numel() / 1.5, state.share)
        again = checkpoint & sparser
        here, uphill = select(again, best, state.now), select(again, best_gradient, gradient)

        over = state.step >= length  # the next stage begins at the best point
        stage = state.stage + over
        point = select(over, best, here + size[:, None, None, None] * _steepest(uphill, share))
        now = self._into(point, x, stage)
        onwards = SparseClimbState(
            stage=stage,
            step=state.step + 1,
            now=now,
            size=size,
            share=share,
            support=select(checkpoint, support, state.support),
            best=best,
            best_loss=best_loss,
            best_gradient=best_gradient,
        )
        return select(over, self._enter(x, now, stage), onwards)

    def ended(self, state: SparseClimbState) -> Hits:
        """Whether the run has had all its evaluations."""
        return state.stage >= len(self.radii)

    def late(self, state: SparseClimbState) -> Hits:
        """Whether the run is in the last quarter of its steps."""
        return (state.stage >= len(self.radii) - 1) & (4 * (self._lengths[-1] - state.step) < self.steps)


def _support(delta: Images) -> PerExample:
    """How many pixels are not where they were."""
    return (delta != 0).flatten(1).sum(1).float()


def _steepest(gradient: Images, share: PerExample) -> Images:
    """The step of unit length along the signs of a share of the pixels, those with the largest gradients."""
    size = gradient.abs().flatten(1)
    n = size.shape[1]
    place = ((1 - share) * n).clamp(0, n - 1).long()
    least = size.sort(dim=1).values.gather(1, place[:, None])
    signs = torch.where(size >= least, gradient.flatten(1).sign(), 0.0)
    return (signs / signs.abs().sum(1, keepdim=True).clamp(min=1)).view_as(gradient)
