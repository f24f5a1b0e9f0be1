"""The Square Attack (Andriushchenko et al., 2020, https://arxiv.org/abs/1912.00049): random search, scores only.

In Linf a step adds ±2 eps to every channel of one random square (Algorithm 2); in L2 it moves the perturbation of one random
window into another, where it adds a two-sided bump (Algorithm 3); in L1 likewise with steeper bumps, as in the code of "Mind
the box" (https://arxiv.org/abs/2103.01208). A step that raises the margin is kept. Where AutoAttack's code differs from the
paper we follow the code, so that verdicts agree:

- The schedule of p is that of 10,000 queries whatever their number is, unless `rescale` says otherwise as the paper does.
- A bump is a pair of pyramids of Chebyshev distance, its orientation drawn anew for every window.

Two things in it we take for slips and follow the paper: its windows never touch the last row and column, and all images of a
batch share the places, signs (in Linf) and orientations of their windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from awnet.attacks.attack import Answer, Attack, Forward, nobody, per_image, select
from awnet.attacks.registry import ATTACKS
from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import Margin
from awnet.noise import Noise
from awnet.threat_model import L1, L2, Linf, ThreatModel
from awnet.types import Hits, Images, Labels, PerExample

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # steps of 10,000 after which p is halved (section 4.1)
TILES = 5  # of a side of the first perturbation in L2 and L1


class SquareState(NamedTuple):
    """Where each example is.

    Attributes:
        x, y: the image and its label.
        step: which candidate is asked about: -1 is x itself, 0 the first perturbation, k the k-th window.
        candidate: that image.
        best, margin: the best candidate so far, and how far it is beyond the decision boundary.
    """

    x: Images
    y: Labels
    step: Tensor
    candidate: Images
    best: Images
    margin: PerExample


@setting
@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Change one random window at a time and keep what brings the image closer to misclassified.

    Args:
        threat: the ball.
        steps: windows that are tried after the first perturbation.
        p: the share of the pixels that the first windows cover.
        rescale: whether p is halved at the same shares of `steps` as of 10,000, and not at the same numbers.
    """

    threat: ThreatModel
    steps: int = 5000
    p: float = 0.8
    rescale: bool = False
    stop_on_success: bool = True

    foresees = True

    def __post_init__(self) -> None:
        if self.steps < 0 or not 0 < self.p <= 1:
            raise Mistake(f"Square needs steps of at least 0 and 0 < p <= 1, got steps={self.steps} and p={self.p:g}")

    @property
    def queries(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.steps + 2

    def start(self, x: Images, target: Tensor, noise: Noise) -> SquareState:
        none = torch.full((len(x),), -torch.inf, device=x.device)
        return SquareState(x, target, torch.zeros_like(target) - 1, x, x, none)

    def query(self, state: SquareState) -> Forward:
        return Forward(state.candidate)

    def update(self, state: SquareState, answer: Answer, noise: Noise) -> SquareState:
        found = Margin()(answer.logits, state.y)
        found = torch.where(found.isnan(), -torch.inf, found)  # any number is further than none
        kept = (found > state.margin) | (state.step == 0)  # the search begins there even if x itself was closer
        best, margin = select(kept, state.candidate, state.best), select(kept, found, state.margin)
        step = state.step + 1
        return SquareState(state.x, state.y, step, self._candidate(state.x, best, step, noise), best, margin)

    def ahead(self, state: SquareState, steps: Tensor, noise: Noise) -> SquareState:
        """The next candidates change the same best image, unless one of them is kept."""
        step = state.step + steps
        candidate = select(steps == 0, state.candidate, self._candidate(state.x, state.best, step, noise))
        return state._replace(step=step, candidate=candidate)

    def _candidate(self, x: Images, best: Images, step: Tensor, noise: Noise) -> Images:
        candidate = self._next(x, best, step, noise)
        return candidate if nobody(step == 0) else select(step == 0, self._first(x, noise), candidate)

    def done(self, state: SquareState) -> Hits:
        return state.step > self.steps

    def adversarial(self, state: SquareState) -> Images:
        return state.best

    def side(self, step: Tensor, height: int, width: int) -> Tensor:
        """The side of the windows of these steps, sqrt(p height width) in whole pixels; outside Linf odd and at least 3."""
        before = (step - 1).clamp(min=0)
        if self.rescale:
            before = before * 10_000 // max(self.steps, 1)
        halved = sum(((before > limit).long() for limit in HALVINGS), start=torch.zeros_like(before))
        side = (self.p * height * width * torch.pow(0.5, halved)).sqrt().round().long().clamp(min=1)
        if not isinstance(self.threat, Linf):
            side = side.clamp(min=3)
            side = side + (side % 2 == 0)
        return side.clamp(max=min(height, width))

    def _first(self, x: Images, noise: Noise) -> Images:
        _, c, h, w = x.shape
        if isinstance(self.threat, Linf):  # stripes one pixel wide
            return self.threat.project(x + self.threat.eps * _signs(noise.uniform(0, (c, 1, w))), x)
        side = max(min(h, w) // TILES, 1)
        along = [torch.arange(size, device=x.device) - (size - TILES * side) // 2 for size in (h, w)]
        tile = [(t // side).clamp(0, TILES - 1) for t in along]
        row, column = (t - side * number for t, number in zip(along, tile, strict=True))
        inside = ((row >= 0) & (row < side))[:, None] & ((column >= 0) & (column < side))
        number = tile[0][:, None] * TILES + tile[1]

        one = torch.arange(side, device=x.device)
        sides = torch.full((2,), side, device=x.device)
        bumps = self._bump(
            one[:, None].expand(2, 1, -1, -1), one.expand(2, 1, 1, -1), sides, per_image(sides.cumsum(0) > side)
        )
        lying = (noise.stream(2).uniform(0, (TILES * TILES,)) < 0.5).long()[:, number]
        bump = bumps[lying, 0, row.clamp(0, side - 1)[:, None], column.clamp(0, side - 1)]
        signs = _signs(noise.uniform(0, (c, TILES * TILES)))[:, :, number]
        return self._into(x, signs * (bump * inside)[:, None])

    def _next(self, x: Images, best: Images, step: Tensor, noise: Noise) -> Images:
        """The best image with one window changed."""
        _, c, h, w = x.shape
        side = self.side(step, h, w)
        room = torch.stack([h - side + 1, w - side + 1] * 2, dim=1)
        corner = (noise.uniform(step, (4,)) * room).long()
        rows, columns = torch.arange(h, device=x.device)[:, None], torch.arange(w, device=x.device)
        row, column, other_row, other_column = (
            t - per_image(corner[:, i]) for i, t in enumerate((rows, columns, rows, columns))
        )
        window = _inside(row, side) & _inside(column, side)
        signs = _signs(noise.stream(1).uniform(step, (c, 1, 1)))
        if isinstance(self.threat, Linf):
            return self.threat.project(torch.addcmul(best, 2 * self.threat.eps * signs, window.to(x)), x)

        delta = best - x
        other = _inside(other_row, side) & _inside(other_column, side)
        lying = per_image(noise.stream(2).uniform(step)) < 0.5
        old = delta * window
        new = signs * self._bump(row, column, side, lying) + old / self._norm(old, (2, 3)).clamp(min=1e-12)
        new = new / self._norm(new, (2, 3)).clamp(min=1e-12) * self._budget(delta, window | other)
        return self._into(x, torch.where(window, new, torch.where(other, 0.0, delta)))

    def _budget(self, delta: Images, windows: Tensor) -> Tensor:
        """The norm of each channel of a new window: what both windows had, and a share of what nobody had; (b, c, 1, 1)."""
        c, eps = delta.shape[1], self.threat.eps
        used, freed = self._norm(delta, (1, 2, 3)), self._norm(delta * windows, (2, 3))
        if isinstance(self.threat, L1):
            return (eps - used).clamp(min=0) + c * freed
        return ((eps**2 - used**2).clamp(min=0) / c + freed**2).sqrt()

    def _into(self, x: Images, delta: Images) -> Images:
        """The image with this perturbation, in L2 at its full length."""
        if isinstance(self.threat, L2):
            delta = self.threat.eps * delta / self._norm(delta, (1, 2, 3)).clamp(min=1e-12)
        return self.threat.project(x + delta, x)

    def _norm(self, t: Tensor, dims: tuple[int, ...]) -> Tensor:
        if isinstance(self.threat, L1):
            return t.abs().sum(dims, keepdim=True)
        return t.square().sum(dims, keepdim=True).sqrt()

    def _bump(self, row: Tensor, column: Tensor, side: Tensor, lying: Tensor) -> Tensor:
        """A pyramid above an inverted one, together of norm 1, in a square window; 0 outside, (b, 1, height, width).

        Args:
            row, column: the place of each pixel in the window, (b, 1, height, 1) and (b, 1, 1, width).
            side: of the window, (b,).
            lying: whether the two are side by side instead, (b, 1, 1, 1).
        """
        inside = _inside(row, side) & _inside(column, side)
        row, column = torch.where(lying, column, row), torch.where(lying, row, column)
        half = per_image(side) // 2
        inverted = row >= half
        height = torch.where(inverted, per_image(side) - half, half)
        distance = torch.maximum((row - inverted * half - height // 2).abs(), (column - half).abs())

        # rings of 1/k^power, k from the pixel's ring outwards
        k = torch.arange(1, max(inside.shape[-2:]) + 2, device=row.device)
        rings = torch.cat([k[:1] * 0.0, (1.0 / k ** (4 if isinstance(self.threat, L1) else 2)).cumsum(0)])
        level = (rings[half + 1] - rings[torch.minimum(distance, half + 1)]) * inside
        upper, lower = level * ~inverted, level * inverted
        bump = upper / self._norm(upper, (2, 3)).clamp(min=1e-12) - lower / self._norm(lower, (2, 3)).clamp(min=1e-12)
        return bump / self._norm(bump, (2, 3)).clamp(min=1e-12)


def _inside(place: Tensor, side: Tensor) -> Tensor:
    return (place >= 0) & (place < per_image(side))


def _signs(uniform: Tensor) -> Tensor:
    return torch.where(uniform < 0.5, -1.0, 1.0)


@ATTACKS.register("square")
def square(threat: ThreatModel) -> Square:
    """The Square Attack, 5,000 windows, as in AutoAttack."""
    return Square(threat=threat)
