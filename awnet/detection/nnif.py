"""NNIF (Cohen, Sapiro and Giryes, 2020, https://arxiv.org/abs/1909.06872): those who helped should be those who are near.

The M training images that helped most with the predicted class, and the M that harmed most, are found by influence functions
(`awnet.detection.influence`). For a clean image the helpful ones are near in the network's layers, for an attacked one they are
not. Four features a layer, the mean rank by distance and the mean distance of each of the two sets, go into a logistic
regression. M is a setting; the paper searches for it.

Backwards, the two sets are taken as they are, and a rank, which is a staircase, as the sum of sigmoids that smooths it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor, nn

from awnet.config import setting
from awnet.detection.detector import DETECTORS, Detector, DetectorConfig, Known, in_batches
from awnet.detection.influence import HeadInfluence, Lissa, LissaInfluence
from awnet.detection.layers import Embedding, activations, all_activations, blocks_of
from awnet.detection.regression import Regression
from awnet.errors import Mistake
from awnet.types import Images, PerExample

SMOOTH = 0.1  # of the distances' standard deviation: the width of the steps of a rank


@setting
@dataclass(frozen=True, kw_only=True)
class NNIF(DetectorConfig):
    """Nearest neighbours and influence functions.

    Args:
        most: how many of the most helpful and of the most harmful training images, 10 to 500 in the paper.
        lissa: how influence goes through all weights by LiSSA, as in the paper; None for the last layer's, exactly.
        damping: added to the Hessian's diagonal.
        layers: names of the layers; empty for all blocks.
    """

    most: int = 50
    lissa: Lissa | None = None
    damping: float = 0.01
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.most < 1 or not 0 < self.damping < inf:
            raise Mistake(
                "NNIF needs at least one helpful image and a positive damping, got "
                f"most={self.most} and damping={self.damping:g}"
            )

    def fitted(self, model: nn.Module, known: Known) -> Detector:
        if len(known.x) < 2 * self.most:
            raise Mistake(f"NNIF looks for twice {self.most} training images, got {len(known.x)}")
        layers = self.layers or blocks_of(model)
        _, references = all_activations(model, known.x, layers)
        if self.lissa is not None:
            influence: nn.Module = LissaInfluence(model, known.x, known.y, self.damping, self.lissa)
        else:
            influence = HeadInfluence(Embedding(model, known.x), known.x, known.y, self.damping)
        detector = NNIFDetector(model, layers, references, influence, self.most)
        detector.learn(known)
        return detector


class NNIFDetector(Detector):
    """A regression over ranks and distances, once it has learned."""

    regression: Regression

    def __init__(
        self, model: nn.Module, layers: Sequence[str], references: Sequence[Tensor], influence: nn.Module, most: int
    ) -> None:
        super().__init__(model)
        self.layers, self.influence, self.most = tuple(layers), influence, most
        for i, features in enumerate(references):
            self.register_buffer(f"references{i}", features, persistent=False)

    def learn(self, known: Known) -> None:
        """Fit the regression."""
        with torch.no_grad():
            clean, attacked = (
                torch.cat([self.features(part) for part in in_batches(x)]) for x in (known.clean, known.attacked)
            )
        self.regression = Regression(clean, attacked)

    def score(self, x: Images) -> PerExample:
        return self.regression(self.features(x))

    def features(self, x: Images) -> Tensor:
        """Four a layer: mean rank and distance of the helpful images, and of the harmful ones; (b, 4 layers)."""
        logits, vectors = activations(self.model, x, self.layers)
        influence = self.influence(x.detach(), logits.argmax(1))
        sets = [influence.topk(self.most, largest=largest).indices for largest in (True, False)]
        found = []
        for i, vector in enumerate(vectors):
            distances = torch.cdist(
                vector, self.get_buffer(f"references{i}"), compute_mode="donot_use_mm_for_euclid_dist"
            )
            for chosen in sets:
                found += [ranks(distances, chosen).mean(1), distances.gather(1, chosen).mean(1)]
        return torch.stack(found, dim=1)


def ranks(distances: Tensor, chosen: Tensor) -> Tensor:
    """How many of all n are nearer than each of the chosen, as a share of n.

    Args:
        distances: shape (b, n).
        chosen: places among the n, shape (b, m).

    Returns:
        Shape (b, m); backwards, each step of the staircase is a sigmoid.
    """
    found = distances.detach().argsort(1).argsort(1).gather(1, chosen) / distances.shape[1]
    if not distances.requires_grad:
        return found
    width = SMOOTH * distances.detach().std(1).clamp(min=1e-12)[:, None, None]
    smooth = ((distances.gather(1, chosen)[:, :, None] - distances[:, None]) / width).sigmoid().mean(2)
    return found + (smooth - smooth.detach())


DETECTORS.register("nnif")(NNIF())
