"""Ways to damage what a user has: each takes a folder that holds copies (`run`, `dynamic`, `record`) and changes it."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from data.made import class_folders, hub_files, scan

Damage = Callable[[Path], None]


def cut(file: str, share: float = 0.5) -> Damage:
    """Only the first part of a file is left."""

    def damage(place: Path) -> None:
        whole = (place / file).read_bytes()
        (place / file).write_bytes(whole[: int(share * len(whole))])

    return damage


def put(file: str, content: bytes) -> Damage:
    """A file with this content, in place of what was there."""

    def damage(place: Path) -> None:
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_bytes(content)

    return damage


def gone(file: str) -> Damage:
    """A file is missing."""
    return lambda place: (place / file).unlink()


def flipped(file: str, position: int) -> Damage:
    """One bit of a file is another."""

    def damage(place: Path) -> None:
        content = bytearray((place / file).read_bytes())
        content[position] ^= 4
        (place / file).write_bytes(content)

    return damage


def said(file: str, change: Callable[[dict[str, Any]], object]) -> Damage:
    """A JSON file says something else; the digest of a training state is made to fit."""

    def damage(place: Path) -> None:
        about = json.loads((place / file).read_text())
        change(about)
        if "state" in about:
            about["text"] = hashlib.sha256(json.dumps(about["state"]).encode()).hexdigest()
        (place / file).write_text(json.dumps(about))

    return damage


def weights_of(other: str) -> Damage:
    """The run's weights are those of another network, and its description says that they should be."""

    def damage(place: Path) -> None:
        content = (place / other / "best/model.safetensors").read_bytes()
        (place / "run/best/model.safetensors").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        said("run/best/model.json", lambda about: about.update(weights=digest))(place)

    return damage


def checkpoint(name: str, *, classes: int = 10, channels: int = 1) -> Damage:
    """A fresh network in a folder."""

    def damage(place: Path) -> None:
        from awnet.checkpoint import save_model
        from awnet.models import ResNetConfig, create

        architecture = ResNetConfig(depth=10, width=4)
        (place / name).mkdir()
        about = {name: json.loads((place / "run/best/model.json").read_text())[name] for name in TOLD}
        about |= {"classes": [f"class {i}" for i in range(classes)], "shape": [channels, 8, 8]}
        save_model(place / name, create(architecture, classes=classes, channels=channels), architecture, about)

    return damage


SHARD = "set/train-00000-of-00001.parquet"
TOLD = ("data", "threat", "selection", "provenance", "history", "experiment", "given", "epoch")


def shards(place: Path) -> Path:
    """A small set in the hub's layout: 20 training and 4 test images."""
    rows = [(scan(i, width=8, height=8), i % 2) for i in range(24)]
    return hub_files(place / "set", train=rows[:20], test=rows[20:])


def shard(change: Callable[[list[dict[str, Any]]], object]) -> Damage:
    """The rows of the training shard are changed: {"img": {"bytes", "path"}, "label"}."""

    def damage(place: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        (file,) = shards(place).glob("train-*")
        table = pyarrow.parquet.read_table(file)
        rows = table.to_pylist()
        change(rows)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=table.schema), file)

    return damage


def columns(place: Path) -> None:
    """A set without images."""
    import pyarrow
    import pyarrow.parquet

    (place / "set").mkdir()
    table = pyarrow.table({"text": ["a", "b"], "stars": [1, 2]})
    pyarrow.parquet.write_table(table, place / "set/train-00000-of-00001.parquet")


def pets(**images: int) -> Damage:
    """A folder of class folders with so many images each."""

    def damage(place: Path) -> None:
        class_folders(place / "pets", {name: [scan(i) for i in range(n)] for name, n in images.items()})

    return damage


def both(*damages: Damage) -> Damage:
    """One after the other."""

    def damage(place: Path) -> None:
        for one in damages:
            one(place)

    return damage


def half_an_image() -> bytes:
    """The first half of a PNG file."""
    content = BytesIO()
    scan(0, width=8, height=8).save(content, "PNG")
    return content.getvalue()[: content.tell() // 2]


def png(width: int, height: int, colour: int = 6) -> bytes:
    """A PNG file that claims a size, RGBA by default, and has next to no pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
