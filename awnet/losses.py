"""Losses, one number an example: (logits, target) -> (b,). An attack raises them, training lowers their mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from awnet.config import setting
from awnet.errors import Mistake
from awnet.types import Labels, Logits, PerExample

# The target is the label, shape (b,); for KL the logits of another look at the image, shape (b, k); for a targeted loss
# the label and the class that the image is to be taken for, shape (b, 2).
Loss: TypeAlias = Callable[[Logits, Tensor], PerExample]


@setting
@dataclass(frozen=True)
class CrossEntropy:
    """-log softmax(z)_y, at least 0."""

    def __call__(self, logits: Logits, y: Labels) -> PerExample:
        return F.cross_entropy(logits, y, reduction="none")


@setting
@dataclass(frozen=True)
class LogLikelihood:
    """log softmax(z)_y, at most 0: who raises it makes the prediction surer."""

    def __call__(self, logits: Logits, y: Labels) -> PerExample:
        return -F.cross_entropy(logits, y, reduction="none")


@setting
@dataclass(frozen=True)
class Margin:
    """max_{k != y} z_k - z_y, positive exactly where the image is misclassified (Carlini and Wagner, 2017, f_6).

    The loss of CW_inf is -relu(z_y - max_{k != y} z_k + kappa), as in the evaluation code of the Madry challenge: the
    margin, flat once the image is misclassified by more than kappa.

    Args:
        kappa: the confidence at which the loss stops to grow, in logits.
    """

    kappa: float = float("inf")

    def __post_init__(self) -> None:
        if not self.kappa >= 0:
            raise Mistake(f"kappa, the confidence at which the margin stops to grow, is at least 0, got {self.kappa:g}")

    def __call__(self, logits: Logits, y: Labels) -> PerExample:
        others = logits.scatter(1, y[:, None], float("-inf"))
        margin = others.amax(1) - logits.gather(1, y[:, None])[:, 0]
        return margin if self.kappa == float("inf") else torch.clamp(margin, max=self.kappa)


@setting
@dataclass(frozen=True)
class DLR:
    """The difference of logits ratio: (max_{k != y} z_k - z_y) / (z_(1) - z_(3)), where z_(1) >= z_(2) >= ….

    Section 4 of Croce and Hein (2020, https://arxiv.org/abs/2003.01690). It is the margin made free of the logits' scale
    and offset. With two classes there is no z_(3) and it is the margin itself.
    """

    def __call__(self, logits: Logits, y: Labels) -> PerExample:
        margin = Margin()(logits, y)
        if logits.shape[1] < 3:
            return margin
        top = logits.topk(3, dim=1).values
        return margin / (top[:, 0] - top[:, 2] + 1e-12)


@setting
@dataclass(frozen=True)
class TargetedDLR:
    """(z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2) (Croce and Hein, 2020, section 4), for a target of columns (y, t).

    With fewer than four classes there is no z_(4); it is then z_t - z_y alone.
    """

    def __call__(self, logits: Logits, target: Tensor) -> PerExample:
        margin = TargetedMargin()(logits, target)
        if logits.shape[1] < 4:
            return margin
        top = logits.topk(4, dim=1).values
        return margin / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


@setting
@dataclass(frozen=True)
class TargetedMargin:
    """z_t - z_y, for a target of columns (y, t)."""

    def __call__(self, logits: Logits, target: Tensor) -> PerExample:
        of_y, of_t = logits.gather(1, target).unbind(1)
        return of_t - of_y


@setting
@dataclass(frozen=True)
class Unsure:
    """sum_k 1/K log(p_k + 1e-9), largest (-log K) where all classes are equally likely; the label does not matter."""

    def __call__(self, logits: Logits, y: Tensor) -> PerExample:
        return (logits.softmax(1) + 1e-9).log().mean(1)


@setting
@dataclass(frozen=True)
class KL:
    """KL(softmax(t) || softmax(z)) = sum_k p_k (log p_k - log q_k), with p = softmax(t/tau), q = softmax(z/tau), at least 0.

    Args:
        tau: temperature of both distributions; the loss is not multiplied by tau^2 here.
        reverse: KL(softmax(z) || softmax(t)) instead, the order in which Eq. 20-21 of the AW-Net paper print it.
    """

    tau: float = 1.0
    reverse: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.tau < inf:
            raise Mistake(f"the temperature tau must be positive and finite, got {self.tau:g}")

    def __call__(self, logits: Logits, target: Logits) -> PerExample:
        log_q = F.log_softmax(logits / self.tau, dim=1)
        log_p = F.log_softmax(target / self.tau, dim=1)
        if self.reverse:
            log_p, log_q = log_q, log_p
        return (log_p.exp() * (log_p - log_q)).sum(1)
