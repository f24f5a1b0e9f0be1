"""Which classes a targeted attack aims at: the likeliest ones besides the label, as the model sees the clean image.

An attack learns how many classes there are from its first answer, the logits at the image itself. With fewer classes than
targets it aims at each of the others once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from awnet.types import Labels, Logits


def runners_up(logits: Logits, y: Labels, count: int) -> Tensor:
    """The `count` likeliest classes besides y, the likeliest first, shape (b, count); where there are fewer, padded with y."""
    others = min(count, logits.shape[1] - 1)
    found = logits.scatter(1, y[:, None], float("-inf")).topk(others, dim=1).indices
    return torch.cat([found, y[:, None].expand(-1, count - others)], dim=1)


def aims(targets: Tensor, y: Labels) -> Tensor:
    """How many of the targets are none of the padding, shape (b,)."""
    return (targets != y[:, None]).sum(1)
