"""Batches of a data set, in an order that is a function of the seed and the epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from awnet.data.dataset import Dataset
from awnet.errors import Mistake
from awnet.noise import Noise, fold, permutation
from awnet.types import Images, Labels

_AUGMENT = 1  # the stream of an epoch's augmentation, beside that of its order


class Batch(NamedTuple):
    """b examples on one device.

    x: images in [0, 1], float32 of shape (b, c, h, w).
    y: labels, int64 of shape (b,).
    ids: places in the source split, int64 of shape (b,).
    """

    x: Images
    y: Labels
    ids: Labels


class Loader:
    """The batches of each epoch; there is no state, so any epoch can be started anywhere.

    Args:
        dataset: where the images come from.
        batch_size: images a batch; a smaller set comes as one batch.
        seed: of the order and the augmentation.
        augment: what is done to the uint8 images, given the examples' noise (an `Augment`).
        device: where the batches are.
        resident: whether all images are kept on the device, so that a step copies nothing from the host and augments
            there. None: on a CUDA device, if they take less than a quarter of its free memory; a CPU reads the set
            where it is.
        shuffle: whether each epoch has its own order; otherwise it is the set's.
        drop_last: whether the images that do not fill a batch are left out of an epoch.

    Raises:
        Mistake: where the set is empty or batch_size is below 1.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        seed: int,
        augment: Callable[[Tensor, Noise], Tensor] | None = None,
        device: torch.device | str = "cpu",
        resident: bool | None = None,
        shuffle: bool = True,
        drop_last: bool = True,
    ) -> None:
        if batch_size < 1:
            raise Mistake(f"a batch has at least 1 image, got a batch size of {batch_size}")
        if len(dataset) == 0:
            raise Mistake(f"the {dataset.split} split of {dataset.name} has no images")
        self.dataset = dataset
        self.batch_size = min(batch_size, len(dataset))
        self.seed = seed
        self.augment = augment
        self.device = torch.device(device)
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.resident = _fits(dataset, self.device) if resident is None else resident
        self._images = dataset.images.to(self.device) if self.resident else None

    def __len__(self) -> int:
        """Batches an epoch."""
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number` from step `start` on, the same as when the epoch is run from its beginning."""
        n = len(self.dataset)
        seed = fold(self.seed, number)
        order = permutation(seed, n) if self.shuffle else torch.arange(n)
        for places in order.split(self.batch_size)[start : len(self)]:
            x, y, ids = (
                self._pixels(places),
                self._send(self.dataset.labels[places]),
                self._send(self.dataset.ids[places]),
            )
            if self.augment is not None:
                x = self.augment(x, Noise(fold(seed, _AUGMENT), ids))
            yield Batch(x.float() / 255, y, ids)

    def _pixels(self, places: Tensor) -> Tensor:
        if self._images is not None:
            return self._images[self._send(places)]
        return self._send(self.dataset.pixels(places))

    def _send(self, t: Tensor) -> Tensor:
        if self.device.type == "cuda":  # from pinned memory the copy does not wait for the work queued before it
            return t.pin_memory().to(self.device, non_blocking=True)
        return t.to(self.device)


def _fits(dataset: Dataset, device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    c, h, w = dataset.shape
    free, _ = torch.cuda.mem_get_info(device)
    return len(dataset) * c * h * w < free / 4
