"""An exponential moving average of the weights, with batch statistics that fit them (Izmailov et al., 2018, on SWA).

Averaged weights have other activations than any weights on the way, so an average of running statistics is not theirs.
`fit_statistics` measures them on training images, each branch of a MixBN on its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from awnet.data.loader import Batch
from awnet.noise import fold
from awnet.training.objective import Moment, Objective


class EMA:
    """w_ema <- decay w_ema + (1 - decay) w after each step; the decay is smaller in the first steps.

    Args:
        model: whose weights are averaged; its copy is `self.model`.
        decay: in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = deepcopy(model).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after step number `step`, from 0; buffers are copied."""
        decay = min(self.decay, (1 + step) / (10 + step))  # the first weights are random: forget them quickly
        for mine, theirs in zip(self.model.parameters(), model.parameters(), strict=True):
            mine.lerp_(theirs, 1 - decay)
        for buffer, other in zip(self.model.buffers(), model.buffers(), strict=True):
            buffer.copy_(other)


@torch.no_grad()
def fit_statistics(model: nn.Module, objective: Objective, batches: Iterable[Batch], seed: int) -> None:
    """Replace every running mean and variance by the average over these batches, as the objective shows them.

    The objective makes its adversarial images against the model itself. Models without batch norm are left as they are.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    with _fitting(model, norms, objective):
        for number, batch in enumerate(batches):
            objective(model, batch.x, batch.y, batch.ids, Moment(fold(seed, number)))


@contextmanager
def _fitting(model: nn.Module, norms: list[_BatchNorm], objective: Objective) -> Iterator[None]:
    """Batch statistics that are averaged in the model, nothing moving in the objective; afterwards modes as before."""
    modes = [(module, module.training) for module in (*model.modules(), *objective.modules())]
    momenta = [norm.momentum for norm in norms]
    try:
        model.train()
        objective.eval()
        for norm in norms:
            norm.momentum = None  # a plain average over all passes since none was counted, however many a batch has
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.zero_()  # the statistics stay: the first attack needs some
        yield
    finally:
        for module, training in modes:
            module.training = training
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
