"""A network compiled for a search: its kernels fused, and on a GPU played back as CUDA graphs, without a launch for each.

It is compiled as it is seen while it is called, so under a `Lean` (`awnet/attacks/lean.py`) the lean network is what is
compiled. Its answers agree with the network's up to rounding, as those of any fast view: good for a search, not for a verdict.
"""

from __future__ import annotations

import torch
from torch import nn

from awnet.models.model import device_of
from awnet.types import Images, Logits


class Compiled:
    """The network as a function of images in batches of one shape; each other shape costs another compilation.

    Args:
        model: frozen for the attack; not changed.
    """

    def __init__(self, model: nn.Module) -> None:
        device = device_of(model).type
        self._graphs = device == "cuda"
        mode = "reduce-overhead" if self._graphs else None
        # of the module itself torch would keep a note in it
        self._network = torch.compile(lambda x: model(x), dynamic=False, mode=mode)

    def __call__(self, x: Images) -> Logits:
        if not self._graphs:
            return self._network(x)
        # A graph answers into memory that the next call writes to. So that neither logits nor gradients lie there when
        # they leave, the ones are copied, and the others go through the slope of a product with one.
        torch.compiler.cudagraph_mark_step_begin()
        return self._network(x * 1.0).clone()
