"""A labelled set of images, held as uint8 and handed out in [0, 1]."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from awnet.errors import Mistake
from awnet.noise import permutation
from awnet.types import Images, Labels

Split = Literal["train", "validation", "test", "all"]


def digest(pieces: Iterable[bytes]) -> str:
    """A short name for some content: 16 hexadecimal digits that differ where the bytes do."""
    content = blake2b(digest_size=8)
    for piece in pieces:
        content.update(piece)
    return content.hexdigest()


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """n images of one split, of one size, with their labels.

    Args:
        name: of the set, as results name it.
        split: what the images are for.
        images: uint8 of shape (n, c, h, w); may be memory mapped, so that only what is asked for is read.
        labels: int64 of shape (n,), places in `classes`.
        ids: int64 of shape (n,), each example's place in the split it comes from; it keeps its id in every subset.
        classes: the names of the classes.
        named_in: a JSON list of what the files of the split are called, by id, such as class/file.png; None where they have no
            names.
        known_fingerprint: the fingerprint, where it has been computed before.
    """

    name: str
    split: Split
    images: Tensor
    labels: Tensor
    ids: Tensor
    classes: tuple[str, ...]
    _: KW_ONLY
    named_in: Path | None = None
    known_fingerprint: str | None = None

    def __post_init__(self) -> None:
        assert self.images.ndim == 4, self.images.shape
        assert (self.images.dtype, self.labels.dtype, self.ids.dtype) == (torch.uint8, torch.int64, torch.int64)
        assert self.images.shape[:1] == self.labels.shape == self.ids.shape
        assert not len(self) or 0 <= self.labels.min() <= self.labels.max() < len(self.classes)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        size = "x".join(map(str, self.shape))
        return f"<{self.name} {self.split}: {len(self):,} images of {size}, {len(self.classes)} classes>"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of every image."""
        c, h, w = self.images.shape[1:]
        return c, h, w

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name the pixels and labels."""
        if self.known_fingerprint is not None:
            return self.known_fingerprint
        chunks = (chunk.numpy().tobytes() for chunk in self.images.split(1024))
        return digest(chain([str(self.shape).encode()], chunks, [self.labels.numpy().tobytes()]))

    def pixels(self, indices: Tensor) -> Tensor:
        """The images at these places, uint8 of shape (b, c, h, w)."""
        return self.images[indices]

    def batch(self, indices: Tensor) -> tuple[Images, Labels]:
        """The images at these places, float32 of shape (b, c, h, w) in [0, 1], and their labels, of shape (b,)."""
        return self.pixels(indices).float() / 255, self.labels[indices]

    def subset(self, indices: Tensor, split: Split | None = None) -> Dataset:
        """The examples at these places, int64 of shape (m,), in this order, under another split's name or their own; copies no
        pixels."""
        return _Subset(self, indices, split or self.split)

    def called(self, names: Sequence[str]) -> Dataset:
        """The examples whose files have these names, in this order.

        A name is class/file.png, or of a set without class folders file.png; of the hub's copy of ImageNet, whose files
        have their class in their own name, class/file.png finds file_class.png.

        Raises:
            Mistake: the files have no names, or a name is none of theirs, or of several.
        """
        known: list[str] = json.loads(self.named_in.read_text()) if self.named_in else []
        found: dict[str, list[int]] = {}
        for place, id in enumerate(self.ids.tolist()):
            name = known[id] if known else ""
            for spelling in {name, Path(name).name}:
                found.setdefault(spelling, []).append(place)
        places = []
        for name in names:
            path = Path(name)
            spellings = [name, f"{path.stem}_{path.parent.name}{path.suffix}", path.name]
            at = next((found[spelling] for spelling in spellings if spelling in found), [])
            if not name or len(at) != 1:
                raise Mistake(
                    f"{name!r} names {len(at) or 'none'} of the {len(self)} {self.split} images of {self.name}"
                    + (
                        f", which are called as {known[int(self.ids[0])]!r} is"
                        if any(known)
                        else ": they have no names"
                    )
                )
            places += at
        return self.subset(torch.tensor(places))

    def sample(self, limit: int, seed: int) -> Dataset:
        """At most `limit` examples, chosen by `seed` alone; a larger limit adds to what a smaller one chose.

        Raises:
            Mistake: where limit is below 1.
        """
        if limit < 1:
            raise Mistake(f"a sample of {self.name} needs at least 1 image, got a limit of {limit}")
        if limit >= len(self):
            return self
        return self.subset(permutation(seed, len(self))[:limit].sort().values)


class _Subset(Dataset):
    """Some places of a set. `images` copies the pixels when asked for; `pixels` and `batch` read only their rows."""

    whole: Dataset
    places: Tensor

    def __init__(self, whole: Dataset, places: Tensor, split: Split) -> None:
        if isinstance(whole, _Subset):
            whole, places = whole.whole, whole.places[places]
        own = {
            "whole": whole,
            "places": places,
            "name": whole.name,
            "split": split,
            "labels": whole.labels[places],
            "ids": whole.ids[places],
            "classes": whole.classes,
            "named_in": whole.named_in,
            "known_fingerprint": None,
        }
        self.__dict__.update(own)  # the class is frozen

    @property
    def images(self) -> Tensor:
        return self.whole.images[self.places]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.whole.shape

    @cached_property
    def fingerprint(self) -> str:
        return digest([self.whole.fingerprint.encode(), self.places.numpy().tobytes()])

    def pixels(self, indices: Tensor) -> Tensor:
        return self.whole.images[self.places[indices]]


@dataclass(frozen=True)
class Splits:
    """The three splits of a set; `validation` was cut from the training images."""

    train: Dataset
    validation: Dataset
    test: Dataset


def cut(whole: Dataset, places: Tensor, kept: Split, taken: Split) -> tuple[Dataset, Dataset]:
    """The set without these places, as the split `kept`, and these places, as the split `taken`; both in order."""
    chosen = torch.zeros(len(whole), dtype=torch.bool)
    chosen[places] = True
    return _Subset(whole, (~chosen).nonzero()[:, 0], kept), _Subset(whole, chosen.nonzero()[:, 0], taken)
