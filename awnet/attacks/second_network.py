"""The second network that some attacks look at beside the model, a teacher or a surrogate, by a name that settings can hold.

A checkpoint, or any network as `package.module:attribute` or `timm:NAME` (`awnet.modules`). Nothing is imported because a file
names it: it is looked up when an attack that was asked for is run.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from awnet.checkpoint import load
from awnet.modules import is_module, load_module


@cache
def second_network(name: str, device: torch.device) -> nn.Module:
    """The network of that name in eval mode and without gradients of its weights; read once.

    Raises:
        Mistake: there is no such network.
    """
    network: nn.Module = load_module(name, device) if is_module(name) else load(name, device=device)
    return network.eval().requires_grad_(False)
