"""Losses, one number an example: (logits, target) -> (b,). An attack raises them, training lowers their mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from awnet.config import setting
from awnet.types import Labels, Logits, PerExample

# The target is the label, shape (b,), or for KL the logits of another look at the image, shape (b, k).
Loss: TypeAlias = Callable[[Logits, Tensor], PerExample]


@setting
@dataclass(frozen=True)
class CrossEntropy:
    """-log softmax(z)_y, at least 0."""

    def __call__(self, logits: Logits, y: Labels) -> PerExample:
        return F.cross_entropy(logits, y, reduction="none")


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

    def __call__(self, logits: Logits, y: Labels) -> PerExample:
        others = logits.scatter(1, y[:, None], float("-inf"))
        margin = others.amax(1) - logits.gather(1, y[:, None])[:, 0]
        return margin if self.kappa == float("inf") else torch.clamp(margin, max=self.kappa)


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

    def __call__(self, logits: Logits, target: Logits) -> PerExample:
        log_q = F.log_softmax(logits / self.tau, dim=1)
        log_p = F.log_softmax(target / self.tau, dim=1)
        if self.reverse:
            log_p, log_q = log_q, log_p
        return (log_p.exp() * (log_p - log_q)).sum(1)
