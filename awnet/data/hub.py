"""Sets of the Hugging Face hub, or of a folder in its layout, through the hub's own library
(https://huggingface.co/docs/datasets)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from awnet.data.augment import Augment
from awnet.data.cache import CachedSource
from awnet.data.dataset import Dataset
from awnet.data.source import CAUTIOUS, Contents, Encoded, File, Form, listing
from awnet.errors import Mistake

_UNLABELLED = {None, -1}  # what stands in the label column of the hub's test splits without labels


@dataclass(frozen=True, kw_only=True)
class HubSet(CachedSource):
    """An image-classification set of the hub.

    Args:
        name: what the set is called here.
        hub_id: "owner/name" on the hub.
        config: the hub's configuration of the set, where it has several.
        folders: where its files may lie in a folder of sets, the best first.
        image: the column of images; None takes the one that holds images.
        label: the column of labels; None takes the one of class labels.
        train: the training split.
        test: the splits that may serve as test images; the first that has labels does.
        augment: what is done to training images by default.
        classes: how many the whole set has; a part of it with fewer is called after them, like tiny-imagenet-20.
        folder: where its files are; None takes them from the hub.
    """

    name: str
    hub_id: str
    config: str | None = None
    folders: tuple[str, ...] = ()
    image: str | None = None
    label: str | None = None
    train: str = "train"
    test: tuple[str, ...] = ("test", "validation", "valid", "val")
    augment: Augment = CAUTIOUS
    classes: int | None = None
    folder: Path | None = None

    def located(self, data_dir: str | None) -> HubSet:
        """The same set with its folder: in `data_dir` or else in AWNET_DATA_DIR, where it is in one of them.

        Raises:
            Mistake: where data_dir is not a folder.
        """
        if data_dir is not None:
            given = Path(data_dir).expanduser().resolve()
            if not given.is_dir():
                raise Mistake(f"data_dir should be the folder of {self.name}, and there is no folder {given}")
            return replace(self, folder=self._within(given) or given)
        if not os.environ.get("AWNET_DATA_DIR"):
            return self
        shared = Path(os.environ["AWNET_DATA_DIR"]).expanduser().resolve()
        if not shared.is_dir():
            raise Mistake(f"AWNET_DATA_DIR should name a folder that holds the sets, and there is no folder {shared}")
        return replace(self, folder=self._within(shared))

    def _within(self, sets: Path) -> Path | None:
        return next((sets / folder for folder in self.folders if (sets / folder).is_dir()), None)

    def read(self, form: Form) -> tuple[Dataset, Dataset | None]:
        train, test = super().read(form)
        if self.classes in (None, len(train.classes)):
            return train, test
        name = f"{self.name}-{len(train.classes)}"
        return replace(train, name=name), test and replace(test, name=name)

    @property
    def where(self) -> str:
        """The folder, or the id on the hub."""
        return str(self.folder or self.hub_id + (f":{self.config}" if self.config else ""))

    @property
    def place(self) -> str:
        return " ".join(map(str, (self.where, self.image, self.label, self.train, *self.test)))

    def stamp(self) -> str:
        # a set on the hub is asked for once: afterwards its decoded images serve, without a network too
        return listing(self.folder) if self.folder else "hub"

    def open(self, scratch: Path) -> Contents:
        splits = self._load(scratch)
        if self.train not in splits:
            raise Mistake(f"{self.where} has no split {self.train!r}; it has {', '.join(splits)}")
        image, label = self._columns(splits[self.train].features)
        values = {name: self._values(splits[name], label) for name in (self.train, *self.test) if name in splits}
        test = next((name for name in self.test if name in values and set(values[name]) - _UNLABELLED), None)
        classes = _classes(splits[self.train].features[label], values[self.train])

        def encoded(name: str) -> Encoded:
            what = f"the {name} split of {self.where}"
            return Encoded(_labels(what, values[name], classes), _files(what, splits[name], image))

        return Contents(tuple(classes.values()), encoded(self.train), encoded(test) if test else None)

    def _load(self, scratch: Path) -> Any:
        import datasets

        try:
            if self.folder:  # the library's own copy of local files is of no use once they are decoded
                with _quietly():
                    return datasets.load_dataset(str(self.folder), cache_dir=str(scratch))
            return datasets.load_dataset(self.hub_id, self.config)
        except Exception as error:  # the library raises nearly anything
            cause = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            reason = next(iter(str(cause).splitlines()), type(cause).__name__).rstrip(".")
            if self.folder:
                raise Mistake(
                    f"{_damaged(self.folder)} cannot be read as a data set ({reason}); is it whole?"
                ) from error
            raise Mistake(
                f"{self.where} is no folder here and cannot be had from the hub ({reason}); where its files are on this "
                "machine, give their folder as data_dir, or a folder that holds all sets in AWNET_DATA_DIR"
            ) from error

    def _columns(self, features: Mapping[str, Any]) -> tuple[str, str]:
        import datasets

        def choose(given: str | None, kind: type, usual: tuple[str, ...]) -> str:
            of_kind = [name for name, feature in features.items() if isinstance(feature, kind)]
            candidates = [given] if given else of_kind if len(of_kind) == 1 else usual
            for name in candidates:
                if name in features:
                    return name
            wanted = " or ".join(map(repr, candidates))
            raise Mistake(f"{self.where} has no column {wanted}; its columns are {', '.join(features)}")

        return (
            choose(self.image, datasets.Image, ("image", "img")),
            choose(self.label, datasets.ClassLabel, ("label", "labels", "fine_label")),
        )

    def _values(self, split: Any, label: str) -> list[int | str | None]:
        values = split.select_columns([label]).with_format("arrow")[:].column(label).to_pylist()
        for value in values:
            if not isinstance(value, int | str | None):
                raise Mistake(f"{self.where} has labels like {value!r} in {label!r}, expected one class an image")
        return values


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the library's bars and its log: what cannot be read is said in a sentence."""
    import datasets

    log, bars = logging.getLogger("datasets"), not datasets.are_progress_bars_disabled()
    level = log.level
    log.setLevel(logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        log.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


def _damaged(folder: Path) -> Path:
    import pyarrow.parquet

    for path in sorted(folder.rglob("*.parquet")):
        try:
            pyarrow.parquet.read_metadata(path)
        except Exception:
            return path
    return folder


def _classes(feature: Any, values: list[Any]) -> dict[Any, str]:
    """From what stands in the label column to the names of the classes, in their order."""
    names = getattr(feature, "names", None)
    if names is not None:
        return dict(enumerate(names))
    return {value: str(value) for value in sorted(set(values) - _UNLABELLED)}


def _labels(what: str, values: list[Any], classes: dict[Any, str]) -> np.ndarray:
    if not values:
        raise Mistake(f"{what} has no images")
    places = {value: place for place, value in enumerate(classes)}
    for i, value in enumerate(values):
        if value not in places:
            raise Mistake(f"image {i} of {what} has the label {value!r}, which is none of its {len(places)} classes")
    return np.array([places[value] for value in values])


def _files(what: str, split: Any, image: str) -> Callable[[int, int], list[File]]:
    import datasets

    encoded = split.select_columns([image]).cast_column(image, datasets.Image(decode=False)).with_format("arrow")

    def files(start: int, stop: int) -> list[File]:
        rows = encoded[start:stop].column(image).to_pylist()
        return [File(f"image {i} of {what}", _content(row), _name(row)) for i, row in enumerate(rows, start)]

    return files


def _name(row: dict[str, Any] | None) -> str:
    return Path((row or {}).get("path") or "").name


def _content(row: dict[str, Any] | None) -> Path | bytes:
    if row is None:
        return b""
    return row["bytes"] if row["bytes"] is not None else Path(row["path"] or "")
