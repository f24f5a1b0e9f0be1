"""What some processors do badly, and what is done there instead."""

from __future__ import annotations

import torch
from torch import nn

NARROW = range(2, 8)  # input channels


def without_avx512() -> bool:
    """Whether this is an x86 processor whose widest instructions are AVX2: bfloat16 takes several times as long there."""
    return torch.backends.cpu.get_cpu_capability() == "AVX2"


def trainable_channels_last(model: nn.Module) -> bool:
    """Whether the gradients of a network's weights can be computed with channels last on this machine's CPU.

    With AVX2, oneDNN (3.12, as torch 2.13 comes with it) writes past its memory in the weight gradient of a 1x1 convolution
    of stride 2 with two to seven input channels in that layout, and the process dies sooner or later.
    """
    return not without_avx512() or not any(
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and module.in_channels in NARROW
        for module in model.modules()
    )
