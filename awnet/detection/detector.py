"""What all detectors share: frozen settings are fitted to a classifier, and what comes out scores images.

The score is the higher, the cleaner; where a regression makes it, it is the log-odds of clean. Each image is judged by itself.
A score can be differentiated, so that an attacker who knows the detector can climb it (`awnet.detection.guarded`): its value is
always that of the definition, and where the definition has no gradient, or a useless one, a stand-in's is passed back, as BPDA
does (Athalye et al., 2018, https://arxiv.org/abs/1802.00420). Each file says which.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from awnet.attacks.frozen import frozen_for_attack
from awnet.errors import Mistake
from awnet.registry import Registry
from awnet.types import Images, Labels, PerExample

BATCH = 128  # images at a time while a detector is fitted


class Known(NamedTuple):
    """What a detector may learn from.

    Attributes:
        x, y: images that the classifier was trained on, with their labels: what is normal.
        clean, attacked: images that it was not trained on, as they are and attacked, in the same order.
    """

    x: Images
    y: Labels
    clean: Tensor  # (m, c, h, w), of another number of images than x
    attacked: Tensor


class Detector(nn.Module, ABC):
    """A classifier under watch.

    Args:
        model: the classifier, which is shared, not copied.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @abstractmethod
    def score(self, x: Images) -> PerExample:
        """How clean each image looks, the higher the cleaner. The classifier must be in eval mode."""

    def forward(self, x: Images) -> PerExample:
        return self.score(x)


@dataclass(frozen=True, kw_only=True)
class DetectorConfig(ABC):
    """A detector before it has seen a classifier."""

    def fit(self, model: nn.Module, known: Known) -> Detector:
        """The detector for a classifier, which is left as it was.

        Raises:
            Mistake: the classifier or what is known of it does not suffice.
        """
        if known.clean.shape != known.attacked.shape:
            raise Mistake(
                "a detector learns from images as they are and attacked, in pairs; got shapes "
                f"{tuple(known.clean.shape)} and {tuple(known.attacked.shape)}"
            )
        with frozen_for_attack(model):
            return self.fitted(model, known)

    @abstractmethod
    def fitted(self, model: nn.Module, known: Known) -> Detector:
        """`fit`, with the classifier in eval mode already."""


DETECTORS: Registry[DetectorConfig] = Registry("detector")


def in_batches(x: Tensor) -> tuple[Tensor, ...]:
    """Images a batch at a time."""
    return torch.split(x, BATCH)
