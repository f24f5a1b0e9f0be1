"""What the kinds of sets have in common, and what they hand out before anything is decoded."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

import numpy as np

from awnet.data.augment import Augment
from awnet.data.dataset import Dataset, digest
from awnet.errors import Mistake

Channels = Literal["keep", "grey", "rgb"]
SMALLEST = 8  # pixels a side; below, nothing is left after the pooling of any model
LARGEST = 1 << 13  # beyond every camera; a file that claims more is broken, or a bomb
CAUTIOUS = Augment(padding=4, flip=False)  # for sets of which it is not known whether a mirrored image keeps its class


class Form(NamedTuple):
    """What images are made into.

    Attributes:
        image_size: the side of the square images wanted, in pixels; None keeps the set's own size.
        channels: "keep" gives one channel where all images are grey, and otherwise three.
        resize: the shorter side that images have before the middle is cut out, in pixels; None: `image_size`.
    """

    image_size: int | None = None
    channels: Channels = "keep"
    resize: int | None = None


class Source(ABC):
    """A set of labelled images that can be read: its name, and what is done to its training images by default."""

    name: str
    augment: Augment

    def located(self, data_dir: str | None) -> Source:
        """The same set with its files found, in `data_dir` where one is given."""
        if data_dir is not None:
            raise Mistake(f"data_dir is for the sets of the hub, and {self.name} is none of them; leave it out")
        return self

    @abstractmethod
    def read(self, form: Form) -> tuple[Dataset, Dataset | None]:
        """The training and the test images; None where the test images are still to be cut from the training images.

        Raises:
            Mistake: where the set cannot be found or read.
        """


class File(NamedTuple):
    """An image file.

    Attributes:
        said: what messages call it.
        content: its path or content.
        name: what it is called in the set, such as class/file.png; "" where it has no name.
    """

    said: str
    content: Path | bytes
    name: str


@dataclass(frozen=True)
class Encoded:
    """A split before decoding.

    Args:
        labels: int64 of shape (n,).
        files: from start and stop, the images in between.
    """

    labels: np.ndarray
    files: Callable[[int, int], list[File]]


@dataclass(frozen=True)
class Contents:
    """The class names and splits of a set before decoding; `test` is None where the set has only training images."""

    classes: tuple[str, ...]
    train: Encoded
    test: Encoded | None


def files_below(folder: Path) -> Iterator[str]:
    """The paths of all files in a folder and its folders, in order, without those whose name begins with a dot.

    Raises:
        Mistake: where a folder cannot be listed.
    """

    def fail(error: OSError) -> NoReturn:
        raise Mistake(f"{error.filename} cannot be read ({error.strerror})") from error

    for parent, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(parent, name) for name in sorted(files) if not name.startswith("."))


def listing(folder: Path) -> str:
    """A short name for the files of a folder: it differs where a path, a size or a time of change does.

    Raises:
        Mistake: where a folder or file cannot be listed.
    """

    def lines() -> Iterator[bytes]:
        for path in files_below(folder):
            try:
                status = os.stat(path)
            except OSError as error:
                raise Mistake(f"{path} cannot be read ({error.strerror})") from error
            yield f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf8", "surrogateescape")

    return digest(lines())
