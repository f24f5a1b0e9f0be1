"""Accuracies as pure functions of per-example hits, with intervals, and how well P_type separates clean from attacked."""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

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


def auc(p_clean: Scores, p_attacked: OtherScores) -> float:
    """The probability that a clean image gets a higher P(clean) than an attacked one; ties count half (0.5: blind)."""
    values = torch.cat([p_clean, p_attacked]).double()
    order = values.argsort(stable=True)
    ranks = torch.empty_like(values)
    ranks[order] = torch.arange(1, len(values) + 1, dtype=torch.float64)
    # ties share the mean of their ranks
    _, group, counts = values.unique(return_inverse=True, return_counts=True)
    ranks = torch.zeros(len(counts), dtype=torch.float64).scatter_add(0, group, ranks)[group] / counts[group]
    n, m = len(p_clean), len(p_attacked)
    return ((ranks[:n].sum() - n * (n + 1) / 2) / (n * m)).item()


def roc(p_clean: Scores, p_attacked: OtherScores) -> tuple[list[float], list[float]]:
    """The curve of a detector that calls an image attacked where P(clean) is low: false alarms, and attacks noticed."""
    thresholds = torch.cat([p_clean, p_attacked]).double().unique()
    thresholds = torch.cat([torch.tensor([float("-inf")], dtype=torch.float64), thresholds])
    false_alarms = torch.searchsorted(p_clean.double().sort().values, thresholds, right=True) / max(len(p_clean), 1)
    noticed = torch.searchsorted(p_attacked.double().sort().values, thresholds, right=True) / max(len(p_attacked), 1)
    return false_alarms.tolist(), noticed.tolist()
