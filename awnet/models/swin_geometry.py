"""Weights of a Swin transformer for other patches and windows: ImageNet's have 4 and 7, for 32 pixels ours have 2 and 4.

Two tensors have the geometry in their shape; all others fit as they are. What comes out is a start for fine-tuning, not the
same network.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

import torch.nn.functional as F
from torch import Tensor

PATCHES, BIAS = "patches.weight", ".attention.bias"  # what `Swin` calls them


def resampled(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the weights that miss a network's shape by their patch or window alone, brought to it.

    Args:
        weights: by the names that they have in `Swin`.
        own: the network's, of which only names and shapes count.

    Returns:
        Nothing where the geometry is the same. What differs otherwise is not among them.
    """
    found: dict[str, Tensor] = {}
    # Tables of several sizes come from small images, whose last maps are smaller than a window: their code cuts the window to
    # the map, ours the table, so that those are the middle of ours and not ours made smaller. They are left, and do not fit.
    one_window = len({len(t) for name, t in weights.items() if name.endswith(BIAS) and t.ndim}) == 1
    for name in own.keys() & weights.keys():
        t, shape = weights[name], own[name].shape
        if t.shape == shape or t.ndim != len(shape) or not t.is_floating_point():
            continue
        if name == PATCHES and t.shape[:2] == shape[:2] and t.shape[2] == t.shape[3] > 0:
            found[name] = patch_kernel(t.float(), shape[3])
        elif name.endswith(BIAS) and t.shape[1:] == shape[1:] and _is_table(t) and one_window:
            found[name] = bias_table(t.float(), isqrt(shape[0]))
    return found


def _is_table(t: Tensor) -> bool:
    side = isqrt(len(t))  # 2 window - 1
    return side % 2 == 1 and side**2 == len(t)


def patch_kernel(kernel: Tensor, patch: int) -> Tensor:
    """A kernel (width, channels, side, side) that answers to a patch as the old one does to the patch enlarged.

    Sums over areas, as Mo et al. (2022) have them for other transformers on 32 pixels, not bicubic: then the answers are the
    same numbers where one side divides the other, the image being enlarged by repeating pixels or shrunk by averaging them.
    They keep their size beside the bias, which the layer norm after them would not put right.
    """
    return F.interpolate(kernel, size=(patch, patch), mode="area") * (kernel.shape[-1] / patch) ** 2


def bias_table(table: Tensor, side: int) -> Tensor:
    """Biases (places, heads) for all places of two tokens to each other, bicubic, as the code of Liu et al. has it."""
    old = isqrt(len(table))
    grid = table.T.reshape(1, -1, old, old)
    return F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False).reshape(-1, side * side).T
