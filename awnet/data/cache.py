"""Decoded images as uint8 arrays on disk: a set is decoded once, then memory mapped, however large.

A set has one folder in the cache for each form that it was asked for in: `train.npy`, `train-labels.npy` and
`train-names.json`, the same for the test images, and `meta.json`. A folder takes its place only when it is complete, and of
several processes one makes it while the others wait. Where the source has changed or the folder is damaged, it is made again.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from awnet.data.dataset import Dataset, Split, digest
from awnet.data.source import Contents, Encoded, Form, Source
from awnet.errors import Mistake

_FORMAT = 2  # raised where the same source gives other arrays than before
_log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Where decoded sets are kept: the environment's AWNET_CACHE_DIR, or awnet in the user's folder for caches."""
    if given := os.environ.get("AWNET_CACHE_DIR"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "awnet"


class CachedSource(Source):
    """A source whose images have to be decoded."""

    @property
    @abstractmethod
    def place(self) -> str:
        """What tells this set from all others: a path, or a hub id."""

    @abstractmethod
    def stamp(self) -> str:
        """What changes when the set at this place does; cheap."""

    @abstractmethod
    def open(self, scratch: Path) -> Contents:
        """The set before decoding; `scratch` is an empty folder for its use until the images are decoded."""

    def read(self, form: Form) -> tuple[Dataset, Dataset | None]:
        return self._read({"format": _FORMAT, "place": self.place, **form._asdict()})

    def _read(self, form: dict[str, Any]) -> tuple[Dataset, Dataset | None]:
        slug = re.sub(r"\W+", "-", self.name)
        folder = cache_dir() / "data" / f"{slug}-{digest([json.dumps(form).encode()])}"
        form["stamp"] = self.stamp()
        with suppress(Exception):  # whatever is wrong with a cache, it can be made again
            return _read(folder, self.name, form)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                return self._read_or_build(folder, form)
        except OSError as error:
            raise Mistake(
                f"decoded images cannot be kept in {error.filename or folder} ({error.strerror or error}); "
                "set AWNET_CACHE_DIR to a folder with room that you may write to"
            ) from error

    def _read_or_build(self, folder: Path, form: dict[str, Any]) -> tuple[Dataset, Dataset | None]:
        try:
            return _read(folder, self.name, form)  # another process has made it while this one waited for the lock
        except Exception as error:
            if folder.exists():
                _log.warning("the decoded images of %s in %s are made again: %s", self.name, folder, error)
        self._build(folder, form)
        return _read(folder, self.name, form)

    def _build(self, folder: Path, form: dict[str, Any]) -> None:
        from awnet.data.decode import common_shape

        for left in folder.parent.glob(f"{folder.name}.*/"):  # by a process that was killed in here; we hold the lock
            shutil.rmtree(left, ignore_errors=True)
        with TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent, ignore_cleanup_errors=True) as temporary:
            scratch, new, old = (Path(temporary) / name for name in ("scratch", "new", "old"))
            scratch.mkdir()
            new.mkdir()
            contents = self.open(scratch)
            splits = {"train": contents.train} | ({"test": contents.test} if contents.test else {})
            shape = common_shape(self.name, splits.values(), form["image_size"], form["channels"])
            _check_room(folder.parent, self.name, shape, sum(len(split.labels) for split in splits.values()))
            meta = form | {"classes": contents.classes, "splits": {}}
            for name, split in splits.items():
                _log.info("decoding %s images of %s %s, once", f"{len(split.labels):,}", self.name, name)
                meta["splits"][name] = _write(new, name, shape, form["resize"], split)
            (new / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf8")
            if folder.exists():
                folder.rename(old)
            new.rename(folder)


def _check_room(where: Path, name: str, shape: tuple[int, int, int], n: int) -> None:
    c, h, w = shape
    needed, free = n * c * h * w, shutil.disk_usage(where).free
    if needed > free:
        raise Mistake(
            f"{name} decoded to {w}x{h} takes {needed / 1e9:,.1f} GB, and {where} has {free / 1e9:,.1f} GB left; "
            "choose a smaller image_size, or set AWNET_CACHE_DIR to a folder with room"
        )


def _write(
    folder: Path, split: str, shape: tuple[int, int, int], resize: int | None, encoded: Encoded
) -> dict[str, Any]:
    from awnet.data.decode import decoded

    names: list[str] = []
    path = folder / f"{split}.npy"
    with path.open("wb") as file:  # not through a memory map: on a full disk that ends the process
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(encoded.labels), *shape)}
        np.lib.format.write_array_header_1_0(file, header)

        def written() -> Iterator[bytes]:
            for files, images in decoded(encoded, shape, resize):
                names.extend(one.name for one in files)
                chunk = images.tobytes()
                file.write(chunk)
                yield chunk

        fingerprint = digest(chain([str(shape).encode()], written(), [encoded.labels.tobytes()]))
    np.save(folder / f"{split}-labels.npy", encoded.labels)
    (folder / f"{split}-names.json").write_text(json.dumps(names))
    return {"fingerprint": fingerprint, "written_ns": _written_ns(folder, split)}


def _written_ns(folder: Path, split: str) -> list[int]:
    return [(folder / f"{name}.npy").stat().st_mtime_ns for name in (split, f"{split}-labels")]


def _read(folder: Path, name: str, form: dict[str, Any]) -> tuple[Dataset, Dataset | None]:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf8"))
    if any(meta[key] != value for key, value in form.items()):
        raise ValueError("the source has changed")

    def dataset(split: Split) -> Dataset:
        entry = meta["splits"][split]
        images = np.load(folder / f"{split}.npy", mmap_mode="c")  # c: a write to the array never reaches the file
        labels = np.load(folder / f"{split}-labels.npy")
        tensors = torch.from_numpy(images), torch.from_numpy(labels), torch.arange(len(labels))
        # computed again only where the files are not as they were left: a cache that was copied, or damaged
        known = entry["fingerprint"] if _written_ns(folder, split) == entry["written_ns"] else None
        named_in = folder / f"{split}-names.json"
        found = Dataset(name, split, *tensors, tuple(meta["classes"]), named_in=named_in, known_fingerprint=known)
        if found.fingerprint != entry["fingerprint"]:
            raise ValueError(f"the {split} images or labels have changed")
        return found

    return dataset("train"), dataset("test") if "test" in meta["splits"] else None
