"""Local intrinsic dimensionality (Ma et al., 2018, https://arxiv.org/abs/1801.02613): attacked images fill more dimensions.

In each layer, from the distances r_1 <= ... <= r_k to the nearest clean images, LID = -(1/k sum_i log(r_i / r_k))^-1 (their
Eq. 4, the estimator of maximum likelihood); a logistic regression over the layers makes the score. The paper looks for the
neighbours in the minibatch that the image comes in. Here the minibatch is chosen once, among training images, so that each
image is judged by itself. The paper counts noisy images among the clean ones for the regression; here there are none.

With the neighbours as they are, all is differentiable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from awnet.config import setting
from awnet.detection.detector import DETECTORS, Detector, DetectorConfig, Known, in_batches
from awnet.detection.layers import activations, all_activations, blocks_of
from awnet.detection.regression import Regression
from awnet.errors import Mistake
from awnet.noise import permutation
from awnet.types import Images, PerExample


@setting
@dataclass(frozen=True, kw_only=True)
class LID(DetectorConfig):
    """Dimensions around an image in several layers.

    Args:
        neighbours: k, 20 in the paper.
        minibatch: among how many images they are looked for, 100 in the paper.
        layers: names of the layers; empty for all blocks.
        seed: of the choice of the minibatch.
    """

    neighbours: int = 20
    minibatch: int = 100
    layers: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.neighbours <= self.minibatch:
            raise Mistake(
                f"LID needs 2 neighbours or more among its minibatch, got {self.neighbours} of {self.minibatch} images"
            )

    def fitted(self, model: nn.Module, known: Known) -> Detector:
        if len(known.x) < self.minibatch:
            raise Mistake(f"LID looks for neighbours among {self.minibatch} training images, got {len(known.x)}")
        layers = self.layers or blocks_of(model)
        chosen = permutation(self.seed, len(known.x))[: self.minibatch].to(known.x.device)
        _, references = all_activations(model, known.x[chosen], layers, pooled=False)
        detector = LIDDetector(model, layers, references, self.neighbours)
        detector.learn(known)
        return detector


class LIDDetector(Detector):
    """A regression over the dimensions in the layers, once it has learned."""

    regression: Regression

    def __init__(self, model: nn.Module, layers: Sequence[str], references: Sequence[Tensor], neighbours: int) -> None:
        super().__init__(model)
        self.layers, self.neighbours = tuple(layers), neighbours
        for i, features in enumerate(references):
            self.register_buffer(f"references{i}", features, persistent=False)

    def learn(self, known: Known) -> None:
        """Fit the regression."""
        with torch.no_grad():
            clean, attacked = (
                torch.cat([self.dimensions(part) for part in in_batches(x)]) for x in (known.clean, known.attacked)
            )
        self.regression = Regression(clean, attacked)

    def score(self, x: Images) -> PerExample:
        return self.regression(self.dimensions(x))

    def dimensions(self, x: Images) -> Tensor:
        """LID in every layer, shape (b, layers)."""
        _, features = activations(self.model, x, self.layers, pooled=False)
        found = [dimension(f, self.get_buffer(f"references{i}"), self.neighbours) for i, f in enumerate(features)]
        return torch.stack(found, dim=1)


def dimension(features: Tensor, references: Tensor, neighbours: int) -> PerExample:
    """LID at each of the features (b, f) among the references (n, f)."""
    distances = torch.cdist(features, references, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = distances.topk(neighbours, largest=False).values.clamp(min=1e-12)  # in order
    return -1 / (nearest / nearest[:, -1:]).log().mean(1).clamp(max=-1e-6)


DETECTORS.register("lid")(LID())
