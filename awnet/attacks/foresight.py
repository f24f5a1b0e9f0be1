"""Several evaluations of one example in one batch, where fewer examples are left than a batch has room for.

The last images of a search would be asked about one step at a time, in batches that take hardly less time than larger ones. But
random search mostly keeps what it has, and then its next candidates are known before the answer to the first (`Attack.ahead`).
They are asked about together. Where a candidate is kept, those after it were asked about in vain, and count for nothing. What
an attack foresees is compared, bit by bit, with what one step at a time has come to, so that only time depends on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from awnet.attacks.attack import Attack, Slots, take
from awnet.noise import Noise
from awnet.types import Hits


def leap(
    attack: Attack, slots: Slots, noise: Noise, left: Tensor, size: int, advance: Callable[[Slots, Noise], Slots]
) -> tuple[Slots, Tensor]:
    """One evaluation of a batch, and for each example as many steps as that answers.

    Args:
        attack: one that foresees.
        slots: of n examples, all different.
        noise: their random numbers.
        left: how many steps each may make, shape (n,); at least 1 where it is not finished.
        size: of the batch, n or more.
        advance: a step of every slot.

    Returns:
        The slots after what one step at a time would have come to, and how many steps that were, shape (n,).
    """
    n, device = len(slots.finished), slots.finished.device
    row, steps = (t.to(device) for t in chains(n, size))
    foreseen, noise = take(row, slots), Noise(noise.seed, noise.ids[row])
    foreseen = foreseen._replace(
        state=attack.ahead(foreseen.state, steps, noise), finished=foreseen.finished | (steps >= left[row])
    )
    return came_true(foreseen, advance(foreseen, noise), n)


def chains(n: int, size: int) -> tuple[Tensor, Tensor]:
    """Which of n examples is in each place of a batch, and how many steps ahead: 0, 1, ... of the first, then of the next."""
    length = size // n
    spare = torch.zeros(size % n, dtype=torch.int64)  # too few places for a longer chain of each
    return (
        torch.cat([torch.arange(n).repeat_interleave(length), spare]),
        torch.cat([torch.arange(length).repeat(n), spare]),
    )


def came_true(foreseen: Slots, moved: Slots, n: int) -> tuple[Slots, Tensor]:
    """The slot of each of n chains after its last step that was foreseen rightly, and how many steps that were.

    Args:
        foreseen: as each will be if no answer changes anything before.
        moved: the same after an answer.
        n: how many there are.
    """
    length = len(moved.finished) // n
    ahead = torch.arange(1, n * length, device=moved.finished.device)
    before = take(ahead - 1, moved)
    right = ~before.finished & _same(before, take(ahead, foreseen))
    right = torch.cat([right, right.new_zeros(1)]).view(n, length)
    right[:, -1] = False  # what comes after it is another chain
    steps = right.long().cumprod(1).sum(1)
    last = torch.arange(n, device=steps.device) * length + steps
    return take(last, moved), steps + 1


def _same(one: Any, other: Any) -> Hits:
    """Which examples are the same, in a tensor or in every tensor of a NamedTuple."""
    if isinstance(one, Tensor):
        return (one == other).reshape(len(one), -1).all(1)
    return torch.stack([_same(a, b) for a, b in zip(one, other, strict=True)]).all(0)
