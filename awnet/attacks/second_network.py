"""The second network that some attacks look at beside the model: a teacher or a surrogate, by its checkpoint."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from awnet.checkpoint import load


@cache
def second_network(checkpoint: str, device: torch.device) -> nn.Module:
    """The network of a checkpoint in eval mode and without gradients of its weights; read once.

    Raises:
        Mistake: there is no such checkpoint.
    """
    return load(checkpoint, device=device).eval().requires_grad_(False)
