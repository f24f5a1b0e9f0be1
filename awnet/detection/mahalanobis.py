"""Mahalanobis (Lee et al., 2018, https://arxiv.org/abs/1807.03888): how far an image's features are from every class.

In each layer the features of a class are taken for normal around its mean, with one covariance for all classes (their Eq. 1).
The confidence M = max_c -(f - mu_c)' S^-1 (f - mu_c) (Eq. 2) of every layer goes into a logistic regression. The features are
means over space. With `preprocess`, each layer sees the image moved by that much along the sign of its M's gradient (Eq. 3).

The paper counts noisy images among the clean ones when it fits the regression; here it knows clean and attacked ones only.
All is differentiable; the move of the preprocessing is taken for constant.
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
from awnet.types import Images, Labels, PerExample

FLAT = 1e-6  # directions with a smaller share of the largest variance are left out, as in a pseudo-inverse


@setting
@dataclass(frozen=True, kw_only=True)
class Mahalanobis(DetectorConfig):
    """Distances to class means in several layers.

    Args:
        layers: names of the layers; empty for all blocks.
        preprocess: how far each pixel is moved towards more confidence; 0 in the plain method, up to 0.01 in the paper.
    """

    layers: tuple[str, ...] = ()
    preprocess: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.preprocess < 1:
            raise Mistake(f"preprocess moves pixels in [0, 1], expected 0 <= preprocess < 1, got {self.preprocess:g}")

    def fitted(self, model: nn.Module, known: Known) -> Detector:
        layers = self.layers or blocks_of(model)
        _, features = all_activations(model, known.x, layers)
        detector = MahalanobisDetector(model, layers, [ClassMeans(f, known.y) for f in features], self.preprocess)
        detector.learn(known)
        return detector


class MahalanobisDetector(Detector):
    """A regression over the confidences of the layers, once it has learned."""

    regression: Regression

    def __init__(self, model: nn.Module, layers: Sequence[str], means: Sequence[ClassMeans], preprocess: float) -> None:
        super().__init__(model)
        self.layers, self.preprocess = tuple(layers), preprocess
        self.means = nn.ModuleList(means)

    def learn(self, known: Known) -> None:
        """Fit the regression."""
        clean, attacked = (
            torch.cat([self.confidences(part).detach() for part in in_batches(x)])
            for x in (known.clean, known.attacked)
        )
        self.regression = Regression(clean, attacked)

    def score(self, x: Images) -> PerExample:
        return self.regression(self.confidences(x))

    def confidences(self, x: Images) -> Tensor:
        """M of every layer, shape (b, layers)."""
        if not self.preprocess:
            return self._confidences(x)
        with torch.enable_grad():
            start = x.detach().requires_grad_()
            found = self._confidences(start)
            slopes = [torch.autograd.grad(m.sum(), start, retain_graph=True)[0] for m in found.unbind(1)]
        moved = [self._confidences(x + self.preprocess * slope.sign())[:, i] for i, slope in enumerate(slopes)]
        return torch.stack(moved, dim=1)

    def _confidences(self, x: Images) -> Tensor:
        _, features = activations(self.model, x, self.layers)
        return torch.stack([means(f) for means, f in zip(self.means, features, strict=True)], dim=1)


class ClassMeans(nn.Module):
    """Normal classes with one covariance.

    Args:
        features: shape (n, f).
        y: their classes.
    """

    def __init__(self, features: Tensor, y: Labels) -> None:
        super().__init__()
        features = features.double()
        means = torch.stack([features[y == c].mean(0) for c in y.unique()])
        spread = features - means[y.unique(return_inverse=True)[1]]
        variances, axes = torch.linalg.eigh(spread.T @ spread / len(features))
        kept = variances > FLAT * variances[-1].clamp(min=1e-30)
        whiten = axes[:, kept] / variances[kept].sqrt()  # whiten whiten' = S^-1
        centre = means.mean(0)  # taken off first, so that float32 loses nothing to large features
        self.register_buffer("centre", centre.float(), persistent=False)
        self.register_buffer("whiten", whiten.float(), persistent=False)
        self.register_buffer("means", ((means - centre) @ whiten).float(), persistent=False)

    def forward(self, features: Tensor) -> PerExample:
        """M, at most 0."""
        white = (features - self.get_buffer("centre")) @ self.get_buffer("whiten")
        return -((white[:, None] - self.get_buffer("means")) ** 2).sum(2).amin(1)


DETECTORS.register("mahalanobis")(Mahalanobis())
