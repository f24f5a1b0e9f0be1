"""An evaluation that several processes share: `torchrun --nproc-per-node 8 -m awnet.cli evaluate RUN --device cuda`.

Each process attacks every n-th example; what they find is put together in the examples' order, so that every process knows
all of it, and the first one alone writes. Random numbers follow the examples' ids: nothing depends on who attacks whom.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from awnet.data.dataset import Dataset
from awnet.errors import Mistake

PATIENCE = timedelta(weeks=4)  # one process may have to wait for another's attacks
T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """This process's part.

    Args:
        rank: which process it is.
        world: how many there are; of 1 nothing is ever sent.
        group: through which they talk.
    """

    rank: int = 0
    world: int = 1
    group: Any = None

    @staticmethod
    def here() -> Share:
        """That of this process. Where there are others, all of them have to ask at the same time."""
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return Share()
        group = dist.new_group(backend="gloo", timeout=PATIENCE)  # objects on the CPU, whatever the user's group is for
        return Share(dist.get_rank(), dist.get_world_size(), group)

    @property
    def leads(self) -> bool:
        """Whether it is the first one, which writes and prints."""
        return self.rank == 0

    def of(self, dataset: Dataset) -> Dataset:
        """The examples of this process."""
        return dataset if self.world == 1 else dataset.subset(self.mine(torch.arange(len(dataset))))

    def mine(self, whole: Tensor) -> Tensor:
        """Of what is known of all examples that of those of this process."""
        return whole[self.rank :: self.world]

    def told(self, value: T) -> list[T]:
        """What each process says, in their order."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self.group)
        return values

    def joined(self, part: dict[str, Tensor]) -> dict[str, Tensor]:
        """What was found for each example of the whole, from what was found for each example of each process's part."""
        if self.world == 1:
            return part
        parts = [each for each in self.told(part) if each]  # who had no example may have found nothing
        return {name: _interleaved([each[name] for each in parts]) for name in (parts[0] if parts else ())}

    def at_first(self, part: Tensor) -> Tensor:
        """The same of what is large, for the first process alone; the others get none of it."""
        if self.world == 1:
            return part
        parts: list[Any] | None = [None] * self.world if self.leads else None
        dist.gather_object(part, parts, dst=dist.get_global_rank(self.group, 0), group=self.group)
        return part[:0] if parts is None else _interleaved(parts)

    def first(self, do: Callable[[], T]) -> T:
        """What the first process finds when it alone does something, and the others wait for it.

        Raises:
            Mistake: the first one's, in each.
        """
        if self.world == 1:
            return do()
        said: list[Any] = [None, None]
        if self.leads:
            try:
                said[0] = do()
            except Mistake as mistake:
                said[1] = str(mistake)
        dist.broadcast_object_list(said, src=dist.get_global_rank(self.group, 0), group=self.group)
        if said[1] is not None:
            raise Mistake(said[1])
        return cast(T, said[0])


def _interleaved(parts: list[Tensor]) -> Tensor:
    """The rows of the whole, of which the r-th part holds every n-th beginning with the r-th."""
    n = sum(map(len, parts))
    whole = torch.empty(n, *parts[0].shape[1:], dtype=parts[0].dtype)
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole


@contextmanager
def started_together(device: str) -> Iterator[Share]:
    """While it lasts, the processes that torchrun started know of each other; without torchrun there is only this one.

    Args:
        device: if it is "cuda", each process has a GPU of its own, which for it is the meaning of that word.

    Raises:
        Mistake: there are fewer GPUs than processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Share()
        return
    if device == "cuda" and torch.cuda.is_available():
        place, many = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if place >= many:
            raise Mistake(f"torchrun started more processes than the {many} GPUs here; use --nproc-per-node {many}")
        torch.cuda.set_device(place)
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Share.here()
    finally:
        dist.destroy_process_group()
