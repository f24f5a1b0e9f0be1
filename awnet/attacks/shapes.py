"""The sizes of batches that a network can be given without any bit of its answers changing.

Which kernels compute an answer, and in which order they add, depends on how many images there are. Whether a smaller batch is
answered as a larger one is, image by image, can only be tried. Linear layers of few rows are what differs first on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from awnet.errors import Mistake

ROOMY = 16  # images of a batch, up to which a CPU takes not much longer for more of them
FEW = 8  # images that are enough to see how a network answers
TRIED = 16  # images on which a smaller batch is compared; of a few logits some agree by chance
SMALL = (2, 3, 4, 6, 8, 12, 16)  # batches smaller than a sixteenth; never one image, for which many a network fails


class Ask(Protocol):
    """A question to the network, as it can be put in batches of any size; see `Shapes.fit`."""

    def __call__(self, size: int, first: int = 0) -> list[Tensor]: ...


class Shapes:
    """The batches that a network can be given: the largest, and smaller ones that change no bit of an answer.

    Args:
        largest: the batch size.
        shrinks: whether there are smaller ones.
        roomy: as many images as a batch may have without taking much longer than with few, if there are smaller ones.
    """

    def __init__(self, largest: int, *, shrinks: bool = True, roomy: int = ROOMY) -> None:
        self.largest, self.shrinks = largest, shrinks
        self.roomy = min(roomy, largest) if shrinks else largest
        small = [size for size in SMALL if size < largest / 16]
        self._sizes = small + sorted({largest * part // 16 for part in range(1, 16)} - {0, 1}) + [largest]
        self._same: dict[tuple[str, bool, int], bool] = {}

    def fit(self, kind: tuple[str, bool], count: int, ask: Ask) -> int:
        """The smallest of them for so many examples.

        Args:
            kind: of the question, for each may be answered by kernels of its own.
            count: at most the largest.
            ask: the answers in a batch of a given size about the same examples, beginning with a given one.
        """
        if not self.shrinks:
            return self.largest
        sizes = [size for size in self._sizes if size >= count]
        known = next(size for size in sizes if size == self.largest or self._same.get((*kind, size)))
        answers: list[Tensor] | None = None
        for size in sizes[: sizes.index(known)]:
            if (*kind, size) not in self._same:
                answers = answers or ask(known)
                self._same[*kind, size] = all(
                    torch.equal(answer, other[first : first + size])
                    for first in range(0, min(max(size, TRIED), known) - size + 1, size)
                    for answer, other in zip(ask(size, first), answers, strict=True)
                )
            if self._same[*kind, size]:  # often a size rounds otherwise and the next larger one does not
                return size
        return known

    def halved(self, warn: Callable[[str], None]) -> Shapes:
        """Those that are left where memory does not suffice for the largest."""
        return Shapes(halved(self.largest, warn), shrinks=self.shrinks, roomy=self.roomy)


def halved(size: int, warn: Callable[[str], None]) -> int:
    """The next smaller batch.

    Raises:
        Mistake: there is none.
    """
    if size == 1:
        raise Mistake("out of memory with a batch of one image; the model needs a device with more memory")
    warn(f"out of memory with batches of {size}; going on with {size // 2}")
    return size // 2
