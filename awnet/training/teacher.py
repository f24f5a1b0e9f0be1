"""A network that another one learns from: it is asked, and never trained."""

from __future__ import annotations

import torch
from torch import nn

from awnet.types import Images, Logits


class Teacher(nn.Module):
    """Answers in eval mode and without gradients.

    An objective that holds one moves it with itself to another device, and neither trains it, nor saves it, nor switches it
    to training mode.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = (network.eval(),)  # in a tuple, so that it is no part of this module

    @property
    def network(self) -> nn.Module:
        """The network itself."""
        return self._network[0]

    @torch.no_grad()
    def forward(self, x: Images) -> Logits:
        return self.network(x)

    def _apply(self, fn, recurse: bool = True):  # noqa: ANN001, ANN202 - moves the network with the module
        self.network._apply(fn)
        return super()._apply(fn, recurse)
