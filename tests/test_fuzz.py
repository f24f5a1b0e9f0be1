"""Damaged and hostile files: each is read as what it says or refused in a sentence; nothing crashes, runs or fills memory.

Every mutation is a function of its number, so that one that fails is found again by it.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch

from awnet.checkpoint import load, read_state
from awnet.cli import main
from awnet.data.decode import read_image
from awnet.errors import Mistake
from awnet.evaluation.record import Record
from awnet.experiment import read
from awnet.models import ResNetConfig, create
from awnet.report.page import page
from awnet.threat_model import Linf
from awnet.training import StandardConfig
from awnet.training.optimizer import SGDConfig
from awnet.training.train import _restore
from bad import png
from conftest import REPO
from data.made import scan

MEMORY = 1 << 30  # bytes by which reading anything may raise the peak; an image of 8192x8192 pixels takes most of it
MAGIC = (b"", b"\x80\x04\x95", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"II*\0", b"RIFF",
         b"\x89HDF\r\n", b"\x7fELF", b"{", b"[", b"\xef\xbb\xbf", b"%!PS", b"\0\0\0\x0cjP  \r\n\x87\n")  # fmt: skip
HUGE = [struct.pack(order + kind, value) for order in "<>" for kind, value in (
    ("I", 2**32 - 1), ("I", 2**31 - 1), ("Q", 2**64 - 1), ("Q", 2**63 - 1), ("Q", 2**60), ("I", 60_000), ("Q", 0)
)]  # fmt: skip
HOSTILE: list[Any] = [
    None, True, 0, -1, 1, 1.5, -0.0, 10**9, 2**62, 2**64, 10**400, float("nan"), float("inf"), 1e308, "", "x" * 5000,
    "\ud800", "a\nb\x1b[31m", "[/red]", "../../../etc/passwd", "nan", "ResNetConfig", "Knob", [], [[]], {}, [0] * 5000,
    {"kind": "ResNetConfig"}, {"kind": "StaticMixtureConfig"}, {"kind": "os.system"}, {"$tensor": "nothing"},
]  # fmt: skip


class Evil:
    """Unpickling it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.mark,)


# --- mutations ---


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Bytes that are cut, flipped, written over, moved, repeated, or begin like another format."""
    n = len(content)
    place = draw.randrange(n)
    some = draw.randbytes(draw.choice((1, 2, 4, 8, 64)))
    match draw.randrange(8):
        case 0:
            return content[:place]
        case 1 | 2:
            found = bytearray(content)
            for _ in range(draw.choice((1, 1, 3, 30))):
                found[draw.randrange(n)] ^= 1 << draw.randrange(8)
            return bytes(found)
        case 3:
            return content[:place] + some + content[place + len(some) :]
        case 4:
            return content[:place] + some + content[place:]
        case 5:
            stop = min(n, place + draw.choice((1, 8, 200)))
            return content[:place] + content[place:stop] * draw.choice((0, 2, 50)) + content[stop:]
        case 6:
            magic = draw.choice(MAGIC)
            return magic + content[draw.choice((0, len(magic))) :]
        case _:
            number = draw.choice(HUGE)
            place = draw.choice((0, draw.randrange(min(n, 64)), place))
            return content[:place] + number + content[place + len(number) :]


def reworded(content: bytes, draw: random.Random) -> bytes:
    """JSON in which some things say something else; now and then nested without end."""
    data = json.loads(content)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        places = list(_places(data))
        if not places:
            break
        holder, key = draw.choice(places)
        match draw.randrange(5):
            case 0 if isinstance(holder, dict):
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[draw.choice(("kind", "format", "x" * 500, "\n", key + "s"))] = holder.pop(key)
            case 2:
                holder[key] = deepcopy(draw.choice(places)[0])  # something from elsewhere
            case _:
                holder[key] = deepcopy(draw.choice(HOSTILE))
    text = json.dumps(data)
    if draw.randrange(20) == 0 and ":" in text:
        depth = draw.choice((70, 900, 100_000))
        place = text.index(":") + 1
        text = text[:place] + "[" * depth + "]" * draw.choice((depth, 0)) + ', "x": ' + text[place:]
    return text.encode()


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    for key in data if isinstance(data, dict) else range(len(data)):
        yield data, key
        if isinstance(data[key], (dict, list)):
            yield from _places(data[key])


def reheaded(content: bytes, draw: random.Random) -> bytes:
    """A safetensors file whose header says something else, and is as long as it says."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    name = draw.choice(list(header))
    match draw.randrange(7):
        case 0:
            header[name]["shape"] = draw.choice(
                ([], [2**62], [10**12, 3], [-1], [2**62, 0], [0], [1.5], "x", [1] * 5000)
            )
        case 1:
            header[name]["dtype"] = draw.choice(("F64", "I32", "BOOL", "BF16", "F8_E4M3", "C64", "U64", "F4", "", "X"))
        case 2:
            header[name]["data_offsets"] = draw.choice(([0, 2**60], [2**60, 2**61], [-4, 0], [8, 4], [0, 0], [], "x"))
        case 3:
            header[draw.choice(("x", "", "../x", "\n", "x" * 9000, "__metadata__"))] = header.pop(name)
        case 4:
            header[f"{name} again"] = header[name]
        case 5:
            return reworded_header(content, draw)
        case _:
            header["__metadata__"] = draw.choice(({"format": "np"}, {"a": 1}, [], {"x": "y" * 9000}))
    return _headed(header, content[8 + size :])


def reworded_header(content: bytes, draw: random.Random) -> bytes:
    size = int.from_bytes(content[:8], "little")
    return _headed(reworded(content[8 : 8 + size], draw), content[8 + size :])


def _headed(header: Any, tensors: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + tensors


# --- loaders ---


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def say(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def seal_weights(folder: Path) -> None:
    say(folder / "model.json", weights=sha256((folder / "model.safetensors").read_bytes()))


def seal_state(folder: Path) -> None:
    try:
        state = json.loads((folder / "training.json").read_text())["state"]
        text = sha256(json.dumps(state).encode())
        say(folder / "training.json", text=text, tensors=sha256((folder / "training.safetensors").read_bytes()))
    except (ValueError, KeyError, TypeError, RecursionError):
        return  # it is refused before the digests are looked at


def seal_record(folder: Path) -> None:
    content = (folder / "record.safetensors").read_bytes()
    say(folder / "record.json", arrays=hashlib.blake2b(content, digest_size=16).hexdigest())


def judge(folder: Path) -> None:
    network = load(folder)
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def predict(folder: Path) -> None:
    """The command, which looks at all that is said of a network; exit code 2 is a sentence too."""
    image = folder / "image.png"
    if not image.exists():
        scan(0).save(image)
    try:
        main(["predict", str(image), "--model", str(folder)])
    except SystemExit as end:
        assert end.code == 2
        raise Mistake("told on stderr") from None


def resume(folder: Path) -> None:
    """What a resumed training does before its first step."""
    network = create(ResNetConfig(depth=10, width=4), classes=10, channels=1)
    _restore(folder, network, StandardConfig().build(Linf(0.3), {}), SGDConfig().build(network), None)


def report(folder: Path) -> None:
    page([Record.load(folder)])


@dataclass(frozen=True)
class Loader:
    """A reader of files, and how the one that is read is damaged.

    Args:
        of: the folder: "best" or "last" of a run, "run", "record", or "images".
        file: which of its files is damaged.
        read: what is tried; it raises a Mistake or comes to an end.
        mutate: the damage.
        seal: makes the digests fit what was damaged, so that it is read at all.
    """

    of: str
    file: str
    read: Callable[[Path], object]
    mutate: Callable[[bytes, random.Random], bytes] = damaged
    seal: Callable[[Path], None] = lambda folder: None


IMAGES = {"PNG": "png", "JPEG": "jpg", "GIF": "gif", "TIFF": "tif", "WEBP": "webp", "BMP": "bmp", "PPM": "ppm",
          "JPEG2000": "jp2"}  # fmt: skip

LOADERS = {
    "model.json, bytes": Loader("best", "model.json", predict),
    "model.json, values": Loader("best", "model.json", predict, reworded),
    "model.safetensors, bytes": Loader("best", "model.safetensors", judge),
    "model.safetensors, bytes, digest made to fit": Loader("best", "model.safetensors", judge, seal=seal_weights),
    "model.safetensors, header, digest made to fit": Loader("best", "model.safetensors", judge, reheaded, seal_weights),
    "training.json, bytes": Loader("last", "training.json", resume),
    "training.json, values, digest made to fit": Loader("last", "training.json", resume, reworded, seal_state),
    "training.safetensors, bytes": Loader("last", "training.safetensors", resume),
    "training.safetensors, header, digest made to fit": Loader(
        "last", "training.safetensors", resume, reheaded, seal_state
    ),
    "experiment.json, bytes": Loader("run", "experiment.json", read),
    "experiment.json, values": Loader("run", "experiment.json", read, reworded),
    "record.json, bytes": Loader("record", "record.json", report),
    "record.json, values": Loader("record", "record.json", report, reworded),
    "record.safetensors, bytes": Loader("record", "record.safetensors", report),
    "record.safetensors, bytes, digest made to fit": Loader("record", "record.safetensors", report, seal=seal_record),
    "record.safetensors, header, digest made to fit": Loader(
        "record", "record.safetensors", report, reheaded, seal_record
    ),
    **{
        f"{kind} image": Loader("images", f"image.{suffix}", lambda folder, suffix=suffix: read_image(
            folder / f"image.{suffix}", (3, 8, 8)
        ))
        for kind, suffix in IMAGES.items()
    },
}  # fmt: skip


@pytest.fixture
def whole(static: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Undamaged files of every kind."""
    place = tmp_path / "whole"
    shutil.copytree(static, place / "run")
    shutil.copytree(place / "run/best", place / "best")
    shutil.copytree(place / "run/last", place / "last")
    shutil.copytree(REPO / "docs/demo/records/static-mtard", place / "record")
    (place / "images").mkdir()
    for kind, suffix in IMAGES.items():
        scan(1, width=40, height=30).save(place / f"images/image.{suffix}", kind)
    monkeypatch.chdir(tmp_path)
    return place


def fuzz(name: str, whole: Path, numbers: range) -> tuple[Counter[str], list[str]]:
    """How many mutations were loaded, told and crashed, and what the crashes were."""
    loader, counts, crashes = LOADERS[name], Counter[str](), []
    folder = whole.parent / "damaged"
    shutil.copytree(whole / loader.of, folder)
    file, others = folder / loader.file, {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    loader.read(folder)
    for number in numbers:
        draw = random.Random(f"{name} {number}")
        for path, content in others.items():
            path.write_bytes(content)
        file.write_bytes(loader.mutate(others[file], draw))
        loader.seal(folder)
        try:
            loader.read(folder)
            counts["loaded"] += 1
        except Mistake:
            counts["told"] += 1
        except Exception as error:
            counts["crashed"] += 1
            crashes.append(f"number {number}: {type(error).__name__}: {str(error)[:200]}")
    shutil.rmtree(folder)
    return counts, crashes


@contextmanager
def within_memory(bound: int) -> Iterator[None]:
    """Fails where the peak of memory rises by more than this many bytes; measured where Linux tells it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is in use
    except OSError:
        yield
        return
    before = _peak()
    yield
    assert _peak() - before < bound


def _peak() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("name", LOADERS)
def test_damage_is_told_or_harmless(name, whole):
    with within_memory(MEMORY):
        counts, crashes = fuzz(name, whole, range(16))
    assert not crashes
    assert counts["told"], "damage that nobody notices is no damage"


@pytest.mark.slow
def test_twenty_thousand_mutations(whole, capsys):
    """The same with other numbers; prints how each loader fared."""
    each = -(-20_000 // len(LOADERS))
    failed = []
    for name in LOADERS:
        began = time.perf_counter()
        with within_memory(MEMORY):
            counts, crashes = fuzz(name, whole, range(1000, 1000 + each))
        failed += [f"{name}, {crash}" for crash in crashes]
        numbers = " | ".join(f"{counts[what]}" for what in ("loaded", "told", "crashed"))
        with capsys.disabled():
            print(f"| {name} | {numbers} | {time.perf_counter() - began:.0f} s |", flush=True)  # noqa: T201
    assert not failed


# --- by hand ---


def header(**entries: Any) -> bytes:
    return _headed(entries, b"\0" * 64)


HEADERS = {
    "a header of 2^60 bytes": (2**60).to_bytes(8, "little") + b"{}",
    "a header of -1 byte": b"\xff" * 8 + b"{}",
    "a tensor of a terabyte": header(x={"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}),
    "a tensor beyond the file": header(x={"dtype": "F32", "shape": [16], "data_offsets": [2**50, 2**50 + 64]}),
    "a shape that overflows": header(x={"dtype": "F32", "shape": [2**33, 2**33], "data_offsets": [0, 64]}),
    "a shape of nothing times much": header(x={"dtype": "F32", "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}),
    "nested brackets": (10**5).to_bytes(8, "little") + b"[" * 10**5,
}


@pytest.mark.parametrize("case", HEADERS)
@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors", "record.safetensors"])
def test_sizes_that_are_claimed_are_not_believed(case, name, whole):
    folder = {"model": whole / "best", "training": whole / "last", "record": whole / "record"}[name.split(".")[0]]
    seal, reads = {
        "model": (seal_weights, load), "training": (seal_state, read_state), "record": (seal_record, Record.load)
    }[name.split(".")[0]]  # fmt: skip
    (folder / name).write_bytes(HEADERS[case])
    seal(folder)
    with within_memory(MEMORY), pytest.raises(Mistake):
        reads(folder)


SMALL = {"kind": "ResNetConfig", "depth": 10, "width": 4}
MIXED = SMALL
for _ in range(12):  # 4,096 networks in a file of some hundred kilobytes
    MIXED = {"kind": "StaticMixtureConfig", "clean": MIXED, "robust": MIXED}

DESCRIBED = {
    "a width of 10^9": {"architecture": {**SMALL, "width": 10**9}},
    "a width of 600, in a file of one of 4": {"architecture": {**SMALL, "width": 600}},
    "a width of 10^6": {"architecture": {**SMALL, "width": 10**6}},
    "a factor of 10^300": {"architecture": {"kind": "MobileNetV2Config", "width": 1e300}},
    "a depth of 6 10^8": {"architecture": {"kind": "ResNetCifarConfig", "depth": 6 * 10**8 + 2}},
    "a wide one as deep": {"architecture": {"kind": "WideResNetConfig", "depth": 6 * 10**8 + 4}},
    "a million classes": {"classes": [""] * 10**6},
    "a million channels": {"shape": [10**6, 8, 8]},
    "images as large as a city": {"shape": [1, 10**9, 10**9]},
    "4,096 networks": {"architecture": MIXED},
    "a mean of many channels": {"architecture": {**SMALL, "mean": [0.0] * 10**4, "std": [1.0] * 10**4}},
}


@pytest.mark.parametrize("case", DESCRIBED)
def test_a_network_is_not_built_because_somebody_described_it(case, whole):
    say(whole / "best/model.json", **DESCRIBED[case])
    began = time.perf_counter()
    with within_memory(MEMORY), pytest.raises(Mistake):
        load(whole / "best")
    assert time.perf_counter() - began < 20


@pytest.mark.parametrize("size", [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (9_000, 8_000), (1, 2**30)], ids=str)
def test_images_that_claim_to_be_huge(size, tmp_path):
    width, height = size
    files = {
        "png": png(width, height),
        "bmp": b"BM" + struct.pack("<IHHI", 10**6, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(100),
        "gif": b"GIF89a" + struct.pack("<HH", width & 0xFFFF, height & 0xFFFF) + b"\0\0\0," + bytes(4)
        + struct.pack("<HH", width & 0xFFFF, height & 0xFFFF) + b"\0\x02\x02\x4c\x01\0;",
        "ppm": f"P6 {width} {height} 255\n".encode() + bytes(100),
        "webp": b"RIFF" + struct.pack("<I", 100) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\x10\0\0\0"
        + (width - 1 & 0xFFFFFF).to_bytes(3, "little") + (height - 1 & 0xFFFFFF).to_bytes(3, "little") + bytes(80),
        "tif": tiff(width, height),
        "jpg": jpeg(width & 0xFFFF, height & 0xFFFF),
    }  # fmt: skip
    for suffix, content in files.items():
        (tmp_path / f"image.{suffix}").write_bytes(content)
        with within_memory(MEMORY), pytest.raises(Mistake):
            read_image(tmp_path / f"image.{suffix}", (3, 8, 8))


def tiff(width: int, height: int) -> bytes:
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 200),
            (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 2**31)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(200)


def jpeg(width: int, height: int) -> bytes:
    content = BytesIO()
    scan(1).save(content, "JPEG")
    found = content.getvalue()
    place = found.index(b"\xff\xc0") + 5
    return found[:place] + struct.pack(">HH", height, width) + found[place + 4 :]


@pytest.mark.slow
def test_the_largest_image_that_is_read_stays_within_memory(tmp_path):
    from PIL import Image

    Image.new("RGB", (8192, 8192)).save(tmp_path / "large.png", compress_level=1)
    with within_memory(MEMORY):
        assert read_image(tmp_path / "large.png", (3, 8, 8)).shape == (3, 8, 8)


@pytest.mark.parametrize("name", LOADERS)
def test_a_pickle_is_never_opened(name, whole):
    loader, mark = LOADERS[name], whole / "mark"
    for content in (pickle.dumps(Evil(mark)), pickle.dumps(Evil(mark), protocol=0), _saved(Evil(mark))):
        (whole / loader.of / loader.file).write_bytes(content)
        loader.seal(whole / loader.of)
        with pytest.raises(Mistake):
            loader.read(whole / loader.of)
    assert not mark.exists()


def _saved(value: Any) -> bytes:
    content = BytesIO()
    torch.save(value, content)
    return content.getvalue()


@pytest.mark.parametrize(
    "kind", ["a link to itself", "a device without end", "a pipe", "a folder", "a link to nowhere"]
)
@pytest.mark.parametrize("name", [name for name in LOADERS if "bytes" in name or "PNG" in name])
def test_what_is_no_file_is_not_read(kind, name, whole):
    loader = LOADERS[name]
    file = whole / loader.of / loader.file
    file.unlink()
    if kind == "a pipe":
        os.mkfifo(file)
    elif kind == "a folder":
        file.mkdir()
    else:
        file.symlink_to({"a device without end": "/dev/zero", "a link to itself": file}.get(kind, "/nowhere"))
    with pytest.raises(Mistake):
        loader.read(whole / loader.of)


@pytest.mark.parametrize("name", [name for name in LOADERS if "bytes" in name])
def test_a_link_to_a_file_is_that_file(name, whole):
    loader = LOADERS[name]
    file = whole / loader.of / loader.file
    file.rename(whole / "elsewhere")
    file.symlink_to(whole / "elsewhere")
    loader.read(whole / loader.of)
