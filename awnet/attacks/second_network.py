"""The second network that some attacks look at beside the model, a teacher or a surrogate, by a name that settings can hold.

A checkpoint, or any network as `package.module:attribute` or `timm:NAME` (`awnet.modules`). Nothing is imported because a file
names it: it is looked up when an attack that was asked for is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count

import torch
from torch import nn

from awnet.attacks.frozen import frozen_for_attack
from awnet.checkpoint import load
from awnet.modules import is_module, load_module

_lent: dict[str, nn.Module] = {}
_number = count()


def second_network(name: str, device: torch.device) -> nn.Module:
    """The network of that name in eval mode and without gradients of its weights; read once.

    Raises:
        Mistake: there is no such network.
    """
    return _lent[name] if name in _lent else _read(name, device)


@contextmanager
def lent(network: nn.Module | str) -> Iterator[str]:
    """A name for a network at hand, under which attacks find it while this lasts; afterwards it is exactly as it was.

    Args:
        network: on the device of the model that is attacked; or a name, which is its own.
    """
    if isinstance(network, str):
        yield network
        return
    name = f"lent/{next(_number)}"
    with frozen_for_attack(network):
        _lent[name] = network
        try:
            yield name
        finally:
            del _lent[name]


@cache
def _read(name: str, device: torch.device) -> nn.Module:
    network: nn.Module = load_module(name, device) if is_module(name) else load(name, device=device)
    return network.eval().requires_grad_(False)
