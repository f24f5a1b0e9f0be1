"""Maximum softmax (Hendrycks and Gimpel, 2017, https://arxiv.org/abs/1610.02136): a network is surer of what it knows.

The score is the log-odds of the likeliest class instead of its probability: the same order, and it never saturates.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from awnet.config import setting
from awnet.detection.detector import DETECTORS, Detector, DetectorConfig, Known
from awnet.types import Images, PerExample


@setting
@dataclass(frozen=True, kw_only=True)
class MaxSoftmax(DetectorConfig):
    """Log-odds of the likeliest class. There is nothing to fit."""

    def fitted(self, model: nn.Module, known: Known) -> Detector:
        return MaxSoftmaxDetector(model)


class MaxSoftmaxDetector(Detector):
    """log p / (1 - p) of the likeliest class."""

    def score(self, x: Images) -> PerExample:
        logits = self.model(x)
        most, place = logits.max(1)
        return most - logits.scatter(1, place[:, None], float("-inf")).logsumexp(1)


DETECTORS.register("max-softmax")(MaxSoftmax())
