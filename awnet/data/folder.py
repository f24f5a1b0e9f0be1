"""A folder of class folders: the folder that an image is in names its class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from awnet.data.augment import Augment
from awnet.data.cache import CachedSource
from awnet.data.source import CAUTIOUS, Contents, Encoded, File, files_below, listing
from awnet.errors import Mistake

_TEST = ("test", "val", "valid", "validation")


@dataclass(frozen=True)
class ClassFolders(CachedSource):
    """Images in `folder`/train/<class>/ and `folder`/test/<class>/, or all in `folder`/<class>/.

    The test folder may also be called val, valid or validation; without one, test images are cut from the training
    images. Classes are the sorted folder names. Every file below a class folder must be an image, except those whose
    name begins with a dot.
    """

    folder: Path
    augment: Augment = CAUTIOUS

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def place(self) -> str:
        return str(self.folder)

    def stamp(self) -> str:
        return listing(self.folder)

    def open(self, scratch: Path) -> Contents:
        inside = _folders(self.folder)
        train = self.folder / "train" if "train" in inside else self.folder
        classes = _folders(train)
        if len(classes) < 2:
            raise Mistake(
                f"{train} has {len(classes)} class folders; expected a folder of images for each class, "
                "in it or in its train folder"
            )
        test = next((self.folder / name for name in _TEST if name in inside), None) if train != self.folder else None
        return Contents(tuple(classes), _encoded(train, classes), _encoded(test, classes) if test else None)


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _encoded(split: Path, classes: list[str]) -> Encoded:
    paths: list[str] = []

    def files(start: int, stop: int) -> list[File]:
        return [File(path, Path(path), Path(path).relative_to(split).as_posix()) for path in paths[start:stop]]

    labels: list[int] = []
    for name in _folders(split):
        if name not in classes:
            raise Mistake(f"{split / name} is no class of the training images ({', '.join(classes[:5])}, …)")
        found = list(files_below(split / name))
        if not found:
            raise Mistake(f"{split / name} has no images; fill the class or remove its folder")
        paths += found
        labels += [classes.index(name)] * len(found)
    if not paths:
        raise Mistake(f"{split} has no class folders; expected those of the training images")
    return Encoded(np.array(labels), files)
