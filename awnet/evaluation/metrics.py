"""Accuracies as pure functions of per-example hits, with intervals, and how well P_type separates clean from attacked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf, sqrt
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from awnet.errors import Mistake
from awnet.types import Hits

Scores = Float[Tensor, " n"]
OtherScores = Float[Tensor, " m"]  # of as many attacked images as there are, not of as many as there are clean ones


class Accuracy(NamedTuple):
    """A share of n examples, with its 95 % Wilson interval."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{100 * self.value:.2f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def accuracy(correct: Hits, z: float = 1.96) -> Accuracy:
    """The share of True with the interval of Wilson (1927), which is honest near 0 and 1 and for few examples."""
    n = len(correct)
    if n == 0:
        return Accuracy(float("nan"), 0.0, 1.0, 0)
    p = correct.double().mean().item()
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Accuracy(p, max(0.0, centre - half), min(1.0, centre + half), n)


def worst_case(corrects: Iterable[Hits]) -> Hits:
    """Which examples withstand every attack: the minimum for each example, our headline."""
    return torch.stack(list(corrects)).all(0)


def w_robust(clean: float, robust: float, gamma_nat: float = 0.5, gamma_adv: float = 0.5) -> float:
    """A_w = gamma_nat A_nat + gamma_adv A_adv (Eq. 23 of the AW-Net paper)."""
    return gamma_nat * clean + gamma_adv * robust


def check_weights(gamma_nat: float, gamma_adv: float) -> None:
    """Refuse weights of A_w with which it would say nothing.

    Raises:
        Mistake: where one is negative or not finite, or both are 0.
    """
    if not (0 <= gamma_nat < inf and 0 <= gamma_adv < inf and gamma_nat + gamma_adv > 0):
        raise Mistake(f"the weights of A_w must not be negative nor both zero, got {gamma_nat:g} and {gamma_adv:g}")


class Difference(NamedTuple):
    """A share minus another of the same examples, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def distinguishable(self) -> bool:
        """Whether chance alone is an unlikely explanation: the interval leaves zero out."""
        return not self.low <= 0 <= self.high

    def __str__(self) -> str:
        return f"{100 * self.value:+.2f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


def paired_difference(a: Hits, b: Hits, z: float = 1.96) -> Difference:
    """How much larger a's share of True is than b's, where both were measured on the same examples in the same order.

    The interval is that of Bonett and Price (2012, "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data"): only examples on which the two disagree count, and one more of either kind is
    added, so that it is not empty where they never disagree.
    """
    n = len(a)
    if n == 0:
        return Difference(float("nan"), -1.0, 1.0)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p, q = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = z * sqrt((p + q - (p - q) ** 2) / (n + 2))
    return Difference((only_a - only_b) / n, max(-1.0, p - q - half), min(1.0, p - q + half))


def mean_difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> Difference:
    """How much larger one or several trainings' mean value is than that of others, with its 95 % interval.

    The variance is a sum of two. That of the examples comes from the differences of each example's means over the
    trainings, to which one of 1 and one of -1 are added, as `paired_difference` does. That of training is Student's: the
    seeds of a and of b are taken to scatter alike; with one training each it is unknown and left out. Degrees of freedom
    after Satterthwaite (1946). As the seeds' scatter holds some of the examples' chance already, the interval is a little
    too wide rather than too narrow.

    Args:
        a, b: for each training the values in [0, 1], such as hits, of the same examples in the same order, each (n,).
    """
    from scipy.stats import t

    n, free = len(a[0]), len(a) + len(b) - 2
    if n == 0:
        return Difference(float("nan"), -1.0, 1.0)
    over_a, over_b = (torch.stack(list(each)).double() for each in (a, b))
    gap = over_a.mean(0) - over_b.mean(0)
    padded = torch.cat([gap, gap.new_tensor([1.0, -1.0])])
    parts = [(float(padded.var()) / len(padded), len(padded) - 1)]
    if free:
        scatter = sum(float(over.mean(1).var(correction=0)) * len(over) for over in (over_a, over_b)) / free
        parts.append((scatter * (1 / len(a) + 1 / len(b)), free))
    variance = sum(part for part, _ in parts)
    half = float(t.ppf(0.975, variance**2 / sum(part**2 / f for part, f in parts))) * sqrt(variance)
    centre = float(padded.mean())
    return Difference(float(gap.mean()), max(-1.0, centre - half), min(1.0, centre + half))


def auc(p_clean: Scores, p_attacked: OtherScores) -> float:
    """The probability that a clean image gets a higher P(clean) than an attacked one; ties count half (0.5: blind)."""
    values = torch.cat([p_clean, p_attacked]).double()
    _, group, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()  # the rank of the last of each group of ties, which share the mean of theirs
    ranks = (last - (counts - 1) / 2)[group]
    n, m = len(p_clean), len(p_attacked)
    return ((ranks[:n].sum() - n * (n + 1) / 2) / (n * m)).item()


def roc(p_clean: Scores, p_attacked: OtherScores) -> tuple[list[float], list[float]]:
    """The curve of a detector that calls an image attacked where P(clean) is low: false alarms, and attacks noticed."""
    thresholds = torch.cat([p_clean, p_attacked]).double().unique()
    thresholds = torch.cat([torch.tensor([float("-inf")], dtype=torch.float64), thresholds])
    false_alarms = torch.searchsorted(p_clean.double().sort().values, thresholds, right=True) / max(len(p_clean), 1)
    noticed = torch.searchsorted(p_attacked.double().sort().values, thresholds, right=True) / max(len(p_attacked), 1)
    return false_alarms.tolist(), noticed.tolist()


def noticed_at(false_alarms: float, p_clean: Scores, p_attacked: OtherScores) -> float:
    """The share of attacked images below the highest threshold that calls at most this share of clean ones attacked.

    TPR at a fixed FPR; NaN where there are no attacked images.
    """
    return float((p_attacked.double() < threshold_at(false_alarms, p_clean)).double().mean())


def threshold_at(false_alarms: float, p_clean: Scores) -> float:
    """The highest threshold below which at most this share of clean images lies."""
    ordered = p_clean.double().sort().values
    return float(ordered[min(int(false_alarms * len(ordered) + 1e-9), len(ordered) - 1)])
