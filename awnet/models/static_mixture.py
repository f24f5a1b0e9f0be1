"""The static mixture: the weighted average of two classifiers' probabilities, without any router.

The plainest rival of every network that divides and rules (adaptive smoothing, Bai et al., 2023; MixedNUTS, 2024): it
knows nothing of the image, so there is no decision to attack. Sharpening the robust one (a temperature below 1) gives its
confident answers the last word.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf, log

import torch
import torch.nn.functional as F
from torch import nn

from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.model import Architecture
from awnet.models.resnet import ResNetConfig
from awnet.types import Images, Logits

MOST = 16  # networks in a mixture of mixtures


@setting
@dataclass(frozen=True, kw_only=True)
class StaticMixtureConfig(Architecture):
    """weight * softmax(clean(x)) + (1 - weight) * softmax(sharpness * robust(x)), as log-probabilities.

    Args:
        clean, robust: the two networks. Each normalises as its own settings say; `mean` and `std` here come before both.
        weight: of the clean one, in (0, 1).
        sharpness: what the robust logits are multiplied by.
    """

    clean: Architecture = field(default_factory=ResNetConfig)
    robust: Architecture = field(default_factory=ResNetConfig)
    weight: float = 0.5
    sharpness: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.networks > MOST:
            raise Mistake(f"a mixture is made of at most {MOST} networks, got {self.networks}")
        if not 0 < self.weight < 1:
            raise Mistake(f"the weight of the clean network must lie between 0 and 1, got {self.weight:g}")
        if not 0 < self.sharpness < inf:
            raise Mistake(f"the sharpness of the robust network must be positive and finite, got {self.sharpness:g}")

    @property
    def networks(self) -> int:
        """How many it is made of in all, where its two are mixtures themselves."""
        return sum(part.networks if isinstance(part, StaticMixtureConfig) else 1 for part in (self.clean, self.robust))

    def build(self, *, classes: int, channels: int = 3) -> StaticMixture:
        parts = (part.build(classes=classes, channels=channels) for part in (self.clean, self.robust))
        normalize = self.normalize(channels)
        return StaticMixture(*parts, weight=self.weight, sharpness=self.sharpness, normalize=normalize)

    def narrow(self) -> StaticMixtureConfig:
        return replace(self, clean=self.clean.narrow(), robust=self.robust.narrow())


class StaticMixture(nn.Module):
    """Log-probabilities of the mixture, which serve as logits."""

    def __init__(
        self,
        clean: nn.Module,
        robust: nn.Module,
        *,
        weight: float = 0.5,
        sharpness: float = 1.0,
        normalize: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.normalize = normalize or nn.Identity()
        self.clean, self.robust, self.weight, self.sharpness = clean, robust, weight, sharpness

    def forward(self, x: Images) -> Logits:
        x = self.normalize(x)
        clean = F.log_softmax(self.clean(x), dim=1) + log(self.weight)
        robust = F.log_softmax(self.sharpness * self.robust(x), dim=1) + log(1 - self.weight)
        return torch.logaddexp(clean, robust)
