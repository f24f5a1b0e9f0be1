"""Float32 that is float32, whatever surrounds it.

A verdict that a caller's autocast computes in bfloat16, or a GPU's TensorFloat-32 with ten bits of mantissa, is another
network's: near the boundary it turns. TensorFloat-32 is what PyTorch convolves in on a GPU unless it is told not to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from awnet.models.model import device_of


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """While it lasts, a model computes in the types of its tensors: no autocast, no TensorFloat-32, no inference mode.

    What the model's own forward switches on stays its own. Afterwards every switch is as before.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))  # in it nothing could be differentiated
        for kind in sorted({"cpu", device_of(model).type}):
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(_no_tf32())
        yield


@contextmanager
def _no_tf32() -> Iterator[None]:
    backends: Any = torch.backends
    if not hasattr(backends.cudnn, "conv"):  # torch before 2.9
        before = backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32
        backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_tf32 = False
        try:
            yield
        finally:
            backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32 = before
        return
    switches = backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul
    saved = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "ieee"
        yield
    finally:
        for switch, precision in zip(switches, saved, strict=True):
            switch.fp32_precision = precision
