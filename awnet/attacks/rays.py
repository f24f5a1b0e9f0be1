"""RayS (Chen and Gu, 2020, https://arxiv.org/abs/2006.12792): an attack that sees nothing but the predicted class.

In Linf the nearest misclassified image mostly lies in a corner of some cube around x, so only rays x + r d with every d_i
either +1 or -1 are looked along. Block by block, finer and finer (Algorithm 3), d is tried with a block's signs turned: if x +
r d is then misclassified at the best radius so far, a binary search finds the smaller radius (Algorithm 2). An answer beyond
eps is no success, and x is then the answer. In L2 and L1, where it is not at home, it is the same search.

As in the authors' code blocks run over the pixels in a row, colour by colour, and the first ray is searched in the whole box.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from awnet.attacks.attack import Answer, Attack, Forward, select
from awnet.attacks.inputs import finite
from awnet.attacks.registry import ATTACKS
from awnet.config import setting
from awnet.errors import Mistake
from awnet.noise import Noise
from awnet.threat_model import ThreatModel
from awnet.types import Hits, Images, Labels, PerExample

CLOSE = 1e-3  # where a binary search ends, as a fraction of the pixel range


class RaySState(NamedTuple):
    """Where each example is.

    Attributes:
        x, y: the image and its label.
        step: how many answers there were.
        level, block: the last block that was turned, of 2^level.
        ray, radius: the best direction, +1 or -1 a pixel, and the radius at which it is misclassified; infinity at first.
        tried: the direction that is tried.
        low, high: where its radius lies; low below 0 while it is asked at `radius` whether there is anything to gain.
    """

    x: Images
    y: Labels
    step: Tensor
    level: Tensor
    block: Tensor
    ray: Images
    radius: PerExample
    tried: Images
    low: PerExample
    high: PerExample


@setting
@dataclass(frozen=True, kw_only=True)
class RayS(Attack):
    """Search for the nearest corner that is misclassified, by the predicted class alone.

    Args:
        threat: the ball.
        steps: queries of an example.
    """

    threat: ThreatModel
    steps: int = 10_000
    stop_on_success: bool = True

    exact = True  # whether a class flips is all it learns

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise Mistake(f"RayS needs at least one query, got {self.steps}")

    @property
    def queries(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.steps

    def start(self, x: Images, target: Tensor, noise: Noise) -> RaySState:
        one = torch.ones_like(x)
        unknown, zero = torch.full((len(x),), -1.0, device=x.device), torch.zeros_like(target)
        far = torch.full_like(unknown, torch.inf)
        return RaySState(x, target, zero, zero, zero - 1, one, far, one, unknown, far)

    def query(self, state: RaySState) -> Forward:
        return Forward(self._at(state))

    def _at(self, state: RaySState) -> Images:
        """Where the ray that is tried is asked about."""
        r = torch.where(state.low < 0, state.high, (state.low + state.high) / 2).clamp(max=1)
        return (state.x + r[:, None, None, None] * state.tried).clamp(0, 1)

    def update(self, state: RaySState, answer: Answer, noise: Noise) -> RaySState:
        wrong = (answer.logits.argmax(1) != state.y) & finite(answer.logits)  # what is no number is no verdict
        asking = state.low < 0
        middle = (state.low.clamp(min=0) + state.high.clamp(max=1)) / 2
        # an answer to "is there anything to gain" opens a search between 0 and the radius; one inside it halves it
        low = torch.where(asking, torch.where(wrong, 0.0, state.low), torch.where(wrong, state.low, middle))
        high = torch.where(asking, state.high.clamp(max=1), torch.where(wrong, middle, state.high))
        found = (low >= 0) & (high - low < CLOSE)
        ray, radius = select(found, state.tried, state.ray), select(found, high, state.radius)  # high never exceeds it
        onwards = found | (asking & ~wrong)

        pixels = state.x[0].numel()
        last = state.block + 1 >= torch.pow(2.0, state.level).clamp(max=pixels).long()
        block = torch.where(last, 0, state.block + 1)
        finest = torch.pow(2.0, state.level) >= pixels
        level = torch.where(last, torch.where(finest, 0, state.level + 1), state.level)
        block, level = select(onwards, block, state.block), select(onwards, level, state.level)
        return RaySState(
            x=state.x,
            y=state.y,
            step=state.step + 1,
            level=level,
            block=block,
            ray=ray,
            radius=radius,
            tried=select(onwards, self._turned(ray, level, block), state.tried),
            low=torch.where(onwards, -1.0, low),
            high=select(onwards, radius, high),
        )

    def _turned(self, ray: Images, level: Tensor, block: Tensor) -> Images:
        """The ray with one block's signs turned."""
        pixels = ray[0].numel()
        length = (pixels / torch.pow(2.0, level)).ceil().clamp(min=1).long()
        place = torch.arange(pixels, device=ray.device)
        turned = place // length[:, None] == block[:, None]
        return torch.where(turned.view_as(ray), -ray, ray)

    def done(self, state: RaySState) -> Hits:
        return state.step >= self.steps

    def adversarial(self, state: RaySState) -> Images:
        r = state.radius.clamp(max=1)[:, None, None, None]
        nearest = (state.x + r * state.ray).clamp(0, 1)
        known = ~state.radius.isinf() & self.threat.contains(state.x, nearest)
        return select(known, nearest, state.x)


@ATTACKS.register("rays")
def rays(threat: ThreatModel) -> RayS:
    """RayS, 10,000 queries for the class alone; for a subset of images (--limit)."""
    return RayS(threat=threat)
