"""Stochastic weight averaging (Izmailov et al., 2018, https://arxiv.org/abs/1803.05407): the mean of the last epochs' weights.

    w_swa <- (n w_swa + w) / (n + 1) after each epoch, n epochs having been taken in before

Batch statistics that fit the mean are measured as for the moving average (`awnet.training.ema.fit_statistics`). The learning
rate is that of the schedule, where the paper keeps it constant or cyclical while it averages: `Constant`, or a `StepDecay`
whose last milestone lies before.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn


class SWA:
    """The mean of the weights at the end of each epoch from `first` on; before it, those of the last epoch.

    Args:
        model: whose weights are averaged; the mean's network is `self.model`.
        first: the first epoch that counts, from 0.
    """

    def __init__(self, model: nn.Module, first: int) -> None:
        self.model = deepcopy(model).requires_grad_(False)
        self.first = first

    @torch.no_grad()
    def update(self, model: nn.Module, epoch: int) -> None:
        """Take in the weights at the end of an epoch; buffers are copied."""
        share = 1 / (1 + max(0, epoch - self.first))
        for mine, theirs in zip(self.model.parameters(), model.parameters(), strict=True):
            mine.lerp_(theirs, share)
        for buffer, other in zip(self.model.buffers(), model.buffers(), strict=True):
            buffer.copy_(other)
