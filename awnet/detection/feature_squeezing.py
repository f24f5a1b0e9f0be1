"""Feature squeezing (Xu, Evans and Qi, 2018, https://arxiv.org/abs/1704.01155): an attack does not survive a coarser image.

The score is minus the largest distance ||p(x) - p(squeeze(x))||_1 over the squeezers (their Eq. 1 and joint detection): fewer
bits a pixel, and a median filter. Their third, non-local means, is left out.

Rounding has no gradient: the identity's is passed back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from awnet.config import setting
from awnet.detection.detector import DETECTORS, Detector, DetectorConfig, Known
from awnet.errors import Mistake
from awnet.types import Images, PerExample


@setting
@dataclass(frozen=True, kw_only=True)
class FeatureSqueezing(DetectorConfig):
    """How far the prediction moves when the image becomes coarser. There is nothing to fit.

    Args:
        bits: of each channel of a pixel; 5 for CIFAR-10 in the paper. 0: this squeezer is left out.
        median: pixels a side of the filter's window; 2 in the paper. 0: this squeezer is left out.
    """

    bits: int = 5
    median: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.bits <= 8 or self.median < 0 or self.median == 1 or not self.bits + self.median:
            raise Mistake(
                "feature squeezing needs a squeezer: 1 to 8 bits, or a median of 2 pixels or more; got "
                f"bits={self.bits} and median={self.median}"
            )

    def fitted(self, model: nn.Module, known: Known) -> Detector:
        return FeatureSqueezingDetector(model, self)


class FeatureSqueezingDetector(Detector):
    """Compares the predictions for an image with those for its squeezed versions."""

    def __init__(self, model: nn.Module, config: FeatureSqueezing) -> None:
        super().__init__(model)
        self.config = config

    def score(self, x: Images) -> PerExample:
        squeezed = []
        if self.config.bits:
            squeezed.append(fewer_bits(x, self.config.bits))
        if self.config.median:
            squeezed.append(median_filter(x, self.config.median))
        p = self.model(x).softmax(1)
        return -torch.stack([(p - self.model(s).softmax(1)).abs().sum(1) for s in squeezed]).amax(0)


def fewer_bits(x: Images, bits: int) -> Images:
    """Rounded to 2^bits levels from 0 to 1; backwards, the identity."""
    levels = 2**bits - 1
    return x + ((x * levels).round() / levels - x).detach()


def median_filter(x: Images, size: int) -> Images:
    """The median of each window of size x size pixels, the upper one of the two for an even number of them.

    The window reaches size // 2 pixels up and left, and beyond the edge the image is mirrored.
    """
    rows, columns = (_mirrored(n, size, x.device) for n in x.shape[2:])
    windows = x[:, :, rows][:, :, :, :, columns]  # (b, c, h, size, w, size)
    windows = windows.transpose(3, 4).flatten(4)
    return windows.sort(4).values[..., size * size // 2]


def _mirrored(n: int, size: int, device: torch.device) -> Tensor:
    """The places in a row of n pixels that each pixel's window covers, (n, size): ... 1 0 | 0 1 ... n-1 | n-1 n-2 ..."""
    place = torch.arange(n, device=device)[:, None] + torch.arange(size, device=device) - size // 2
    place = place % (2 * n)
    return torch.where(place < n, place, 2 * n - 1 - place)


DETECTORS.register("feature-squeezing")(FeatureSqueezing())
