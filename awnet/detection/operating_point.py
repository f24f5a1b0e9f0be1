"""Where a detector says "attacked": thresholds on P(clean) with a stated rate of false alarms.

Split conformal prediction (Vovk, Gammerman and Shafer, 2005; Angelopoulos and Bates, 2023, section 1): of n clean images
that the network was not trained on, take the k-th smallest P(clean), k = floor(rate (n + 1)). A further clean image of the
same kind lies below it with a probability of at most `rate`, whatever the distribution. It says nothing of attacked
images: an attacker who knows the detector can evade it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

from torch import Tensor

from awnet.config import setting

RATES = (0.01, 0.05)


@setting
@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """One threshold.

    Args:
        false_alarms: the rate in (0, 1) at which clean images are called attacked, at most.
        threshold: an image looks attacked where P(clean) is below it.
        images: how many clean images it was measured on.
        split: which: "validation", or "test" where the checkpoint was chosen on test images.
    """

    false_alarms: float
    threshold: float
    images: int
    split: str


def operating_points(p_clean: Tensor, *, split: str, rates: Sequence[float] = RATES) -> tuple[OperatingPoint, ...]:
    """The thresholds for P(clean) of clean images; none for a rate that so few images cannot tell, or a model that tells none.

    Args:
        p_clean: of n images that the network was not trained on, shape (n,); NaN where the model does not tell.
        split: what to say of where they are from.
        rates: of false alarms.
    """
    if p_clean.isnan().any():
        return ()
    ordered, n = p_clean.double().sort().values, len(p_clean)
    places = [(rate, floor(rate * (n + 1) + 1e-9)) for rate in rates]
    return tuple(
        OperatingPoint(false_alarms=rate, threshold=float(ordered[k - 1]), images=n, split=split)
        for rate, k in places
        if k >= 1
    )


def looks_attacked(p_clean: Tensor, point: OperatingPoint) -> Tensor:
    """Which images the detector calls attacked at an operating point; bool of the shape of `p_clean`."""
    return p_clean.double() < point.threshold
