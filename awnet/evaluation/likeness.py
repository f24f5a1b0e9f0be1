"""Whether a model is the one that was met before: what a name and weights do not tell.

A temperature, a rounded input or the share of a mixture may be a plain attribute, which is in no state dict and turns few
clean predictions, and robustness follows from it all the same. So a few margins are compared, of images and of the same
images with noise, off the grid of eight bits on which they lie.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from awnet.attacks.float32 import in_float32
from awnet.attacks.frozen import frozen_for_attack
from awnet.attacks.sweep import Examples
from awnet.losses import Margin
from awnet.models.model import device_of, judge
from awnet.noise import Noise
from awnet.types import Images, Labels, PerExample

FEW = 8
NOISE = 8 / 255
ROUNDING = 1e-3  # of the largest margin: what another machine's float32 may differ by, and more


def likeness(model: nn.Module, examples: Examples) -> list[float]:
    """Class margins of the first few examples, and of the same with noise."""
    index = torch.arange(FEW) % len(examples)
    x, y = (t.to(device_of(model)) for t in examples.batch(index))
    drawn = Noise(0, torch.arange(FEW, device=x.device)).uniform(0, tuple(x.shape[1:]))
    noisy = (x + NOISE * (2 * drawn - 1)).clamp(0, 1)
    with in_float32(model), frozen_for_attack(model), torch.no_grad():
        margins = [_margins(model, images, y) for images in (x, noisy)]
    return [float(f"{margin:.6g}") for margin in torch.cat(margins).nan_to_num(0, 0, 0).tolist()]


def _margins(model: nn.Module, x: Images, y: Labels, size: int = FEW) -> PerExample:
    try:
        pairs = zip(x.split(size), y.split(size), strict=True)
        return torch.cat([Margin()(judge(model, images.clone())[0].float(), labels) for images, labels in pairs])
    except torch.OutOfMemoryError:
        if size == 1:
            raise
    return _margins(model, x, y, size // 2)


def alike(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Whether they may be those of one model, but for rounding."""
    if len(ours) != len(theirs):
        return False
    largest = max(map(abs, (*ours, *theirs)), default=0.0)
    return all(abs(a - b) <= ROUNDING * largest for a, b in zip(ours, theirs, strict=True))
