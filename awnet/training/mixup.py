"""Mixup (Zhang et al., 2018, https://arxiv.org/abs/1710.09412) and CutMix (Yun et al., 2019, https://arxiv.org/abs/1905.04899).

Two images become one, the labels in proportion: everywhere a share lambda ~ Beta(alpha, alpha) of the one and the rest of the
other, or a box of the other of area 1 - lambda pasted into the one. An image's partner is the one as far from the end of the
batch as it is from its beginning.

Each image has draws of its own; the libraries that transformers are trained with draw one lambda for a whole batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
import torch.nn.functional as F
from scipy.special import betaincinv
from torch import Tensor

from awnet.attacks.attack import per_image
from awnet.config import setting
from awnet.errors import Mistake
from awnet.noise import Noise
from awnet.types import Images, Labels, Logits, PerExample


@setting
@dataclass(frozen=True, kw_only=True)
class Mixup:
    """How images are mixed.

    Args:
        probability: of an image to be mixed, half of the time by mixup and half by CutMix.
        mixup, cutmix: alpha of either; 1 makes every share as likely.
    """

    probability: float = 0.3
    mixup: float = 0.8
    cutmix: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.probability <= 1 and 0 < self.mixup < inf and 0 < self.cutmix < inf):
            raise Mistake(
                "images are mixed with a probability between 0 and 1 and positive alphas, got "
                f"{self.probability:g}, {self.mixup:g} and {self.cutmix:g}"
            )

    def __call__(self, x: Images, y: Labels, noise: Noise) -> tuple[Images, Tensor]:
        """Mixed images, and for each the columns (y, the partner's y, the share of y), which `MixedCrossEntropy` takes."""
        other = x.flip(0)
        whether, which, quantile, *place = noise.uniform(0, (5,)).double().unbind(1)
        pasted = which < 0.5
        share = torch.where(pasted, _beta(quantile, self.cutmix), _beta(quantile, self.mixup))
        inside = _boxes(x, share, *place)
        blended = per_image(share).to(x) * x + per_image(1 - share).to(x) * other
        mixed = torch.where(per_image(pasted), torch.where(inside, other, x), blended)
        share = torch.where(pasted, 1 - inside.double().mean((1, 2, 3)), share)  # a box may reach over the edge
        left = whether >= self.probability
        share = torch.where(left, 1.0, share)
        return torch.where(per_image(left), x, mixed), torch.stack([y.double(), y.flip(0).double(), share], dim=1)


def alone(y: Labels) -> Tensor:
    """The target of images that are not mixed."""
    return torch.stack([y, y, torch.ones_like(y)], dim=1).double()


@setting
@dataclass(frozen=True)
class MixedCrossEntropy:
    """share CE(z, y) + (1 - share) CE(z, y'), for a target of columns (y, y', share)."""

    def __call__(self, logits: Logits, target: Tensor) -> PerExample:
        one, other = (F.cross_entropy(logits, target[:, column].long(), reduction="none") for column in (0, 1))
        share = target[:, 2].to(logits.dtype)
        return share * one + (1 - share) * other


def _beta(quantile: Tensor, alpha: float) -> Tensor:
    """Beta(alpha, alpha) by inversion of its distribution function."""
    if alpha == 1:
        return quantile
    return torch.from_numpy(betaincinv(alpha, alpha, quantile.cpu().numpy())).to(quantile)


def _boxes(x: Images, share: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Which pixels lie in a box of area 1 - share around a place, cut off at the edges; shape (b, 1, h, w)."""
    inside = []
    for size, place in ((x.shape[2], row), (x.shape[3], column)):
        side = (size * (1 - share).sqrt()).floor()
        first = (place * size).floor() - (side / 2).floor()
        pixel = torch.arange(size, device=x.device)
        inside.append((pixel >= first[:, None]) & (pixel < (first + side)[:, None]))
    return (inside[0][:, :, None] & inside[1][:, None])[:, None]
