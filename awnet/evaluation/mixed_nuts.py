"""The settings of MixedNUTS (Bai et al., 2024, https://arxiv.org/abs/2402.02263), searched for on validation images.

The margin of an answer is the largest probability less the second. With a one-hot vector for the accurate network, the robust
one overrules it wherever its margin reaches the cutoff (1 - alpha) / alpha. It should do so under attack where it is right, and
not do so unattacked where it is wrong:

    minimise P(margin >= cutoff | unattacked, h wrong)   such that   P(margin >= cutoff | attacked, h right) >= beta

over s, p, c on a grid and alpha, which the constraint gives for each of them. Only the robust network is asked, once on each
set of images, for its logits. The problem is the paper's as its published code solves it (its text was not at hand); which of
several best settings is taken is our choice: the one that leaves the accurate network the largest weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.mixed_nuts import Transform
from awnet.types import Labels, Logits, PerExample

LARGEST = 1 - 1e-6  # cutoff; beyond it, the accurate network would be overruled by rounding


@setting
@dataclass(frozen=True, kw_only=True)
class Search:
    """The grid, eight values a setting as published.

    Args:
        keep: beta, the share of the robust network's correct answers under attack that keep their say.
        scales, powers, offsets: of the transform.
        clamp: likewise.
    """

    keep: float = 0.985
    scales: tuple[float, ...] = (0.05, 0.097, 0.186, 0.36, 0.695, 1.34, 2.59, 5.0)
    powers: tuple[float, ...] = (1.0, 1.43, 1.86, 2.29, 2.71, 3.14, 3.57, 4.0)
    offsets: tuple[float, ...] = (-1.1, -0.943, -0.786, -0.629, -0.471, -0.314, -0.157, 0.0)
    clamp: Literal["gelu", "relu", "none"] = "gelu"

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise Mistake(f"keep, the share of correct answers under attack, lies in (0, 1], got {self.keep:g}")
        if not (self.scales and self.powers and self.offsets):
            raise Mistake("a search of MixedNUTS needs one value or more for each of scales, powers and offsets")

    def transforms(self) -> Sequence[Transform]:
        """Every point of the grid."""
        grid = product(self.scales, self.powers, self.offsets)
        return [Transform(scale=s, power=p, offset=c, clamp=self.clamp) for s, p, c in grid]


class Found(NamedTuple):
    """What a search came to.

    Attributes:
        transform, alpha: the settings of the mixture.
        kept: the share of correct answers under attack that overrule the accurate network whatever it says.
        overruled: the share of wrong answers on unattacked images that do, which is to be small.
    """

    transform: Transform
    alpha: float
    kept: float
    overruled: float


def margins(logits: Logits, transform: Transform) -> PerExample:
    """The largest probability less the second, after the transform."""
    top = transform(logits.double()).softmax(1).topk(2, dim=1).values
    return top[:, 0] - top[:, 1]


def search(clean: Logits, attacked: Logits, y: Labels, config: Search | None = None) -> Found:
    """The best transform and alpha for a robust network.

    Args:
        clean: its logits of validation images.
        attacked: its logits of the same images under an attack on it.
        y: their labels.
        config: the grid.

    Raises:
        Mistake: where it has nothing right under attack or nothing wrong unattacked, so that there is no balance to find.
    """
    config = config or Search()
    right, wrong = attacked[attacked.argmax(1) == y], clean[clean.argmax(1) != y]
    if not len(right) or not len(wrong):
        raise Mistake(
            f"of {len(y)} images the robust network has {len(right)} right under attack and {len(wrong)} wrong unattacked; "
            "both are needed: take more images"
        )
    best: tuple[tuple[float, float], Found] | None = None
    for transform in config.transforms():
        confident, mistaken = margins(right, transform), margins(wrong, transform)
        cutoff = min(_reached_by(confident, config.keep), LARGEST)
        overruled = (mistaken >= cutoff).double().mean().item()
        rank = overruled, -cutoff
        if best is None or rank < best[0]:
            kept = (confident >= cutoff).double().mean().item()
            best = rank, Found(transform, 1 / (1 + cutoff), kept, overruled)
    assert best is not None
    return best[1]


def _reached_by(values: Tensor, share: float) -> float:
    """The largest of the values that at least this share of them reach."""
    ordered = values.sort(descending=True).values
    count = max(1, -int(-share * len(values) // 1))  # rounded up
    return ordered[count - 1].item()


def logits_of(model: torch.nn.Module, x: Tensor, batch_size: int = 128) -> Logits:
    """The logits of many images, without gradients."""
    with torch.no_grad():
        return torch.cat([model(part) for part in x.split(batch_size)])
