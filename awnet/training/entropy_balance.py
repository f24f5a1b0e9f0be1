"""Entropy balance of B-MTARD (Zhao et al., TPAMI 2024, https://arxiv.org/abs/2306.16170): teachers equally sure.

A robust teacher spreads its answers over classes, a clean one does not, and the student learns more from who is surer. So each
teacher has a temperature of its own, which moves after each step until both have the same mean entropy:

    tau_adv <- tau_adv - lr sign(H_adv / H_nat - 1),   tau_nat <- tau_nat - lr sign(H_nat / H_adv - 1),   both in [1, 10]

H_k is the entropy of softmax(T_k / tau_k), averaged over the batch: the clean teacher's on clean images, the robust one's on
adversarial images. The student has no temperature. The code adds 1e-5 inside the logarithm: left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from awnet.types import Logits, PerExample

HIGHEST = 10.0


class EntropyBalance(nn.Module):
    """The two temperatures. They rest in eval mode.

    Args:
        lr: how far a temperature moves in a step.
    """

    tau_nat: Tensor
    tau_adv: Tensor

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.register_buffer("tau_nat", torch.tensor(1.0, dtype=torch.float64))
        self.register_buffer("tau_adv", torch.tensor(1.0, dtype=torch.float64))

    def forward(self, nat: Logits, adv: Logits, lr_factor: float) -> tuple[Logits, Logits]:
        """The teachers' logits divided by their temperatures, which move afterwards."""
        nat, adv = nat / self.tau_nat, adv / self.tau_adv
        if self.training:
            step = self.lr * lr_factor * (entropy(adv).mean() - entropy(nat).mean()).sign()
            self.tau_adv.sub_(step).clamp_(1, HIGHEST)
            self.tau_nat.add_(step).clamp_(1, HIGHEST)
        return nat, adv

    def watched(self) -> dict[str, Tensor]:
        """Both temperatures, for the log."""
        return {"tau_nat": self.tau_nat.clone(), "tau_adv": self.tau_adv.clone()}


def entropy(logits: Logits) -> PerExample:
    """-sum_k p_k log p_k, p = softmax(z)."""
    log_p = logits.double().log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)
