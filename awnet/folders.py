"""What is written whole or not at all, and by one process at a time.

A folder or file is written beside its place and renamed into it, and the one before is kept until the new one is whole:
a process may be killed at any moment and the disk may fill up, and what was there before is still there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from awnet.errors import Mistake


def replace_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Make `path` hold what `write` puts into an empty folder: at any moment the old content or the new one is whole.

    Raises:
        Mistake: where the disk is full or may not be written; the old content is still there.
    """
    part, previous = path.parent / f"{path.name}.part", path.parent / f"{path.name}.previous"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        write(part)
        for file in part.iterdir():
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())
        if path.exists():
            shutil.rmtree(previous, ignore_errors=True)
            path.rename(previous)
        part.rename(path)
        shutil.rmtree(previous, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise Mistake(f"cannot write {path}: {error}; what was there before is kept") from None
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def whole_folder(path: Path) -> Path:
    """`path`, or the one before where a process died between the two renames of `replace_folder`."""
    previous = path.parent / f"{path.name}.previous"  # with_name fails on "."
    return previous if not path.exists() and previous.exists() else path


def remove_folder(path: Path) -> None:
    """Remove what `replace_folder` wrote, and what a death in it left; half a folder is never found under its name."""
    part = path.parent / f"{path.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    for name in (f"{path.name}.previous", path.name):
        with suppress(OSError):  # not there, or not ours to move
            (path.parent / name).rename(part)
            shutil.rmtree(part, ignore_errors=True)


def replace_file(path: Path, content: str | bytes) -> None:
    """Make `path` hold `content`: a reader meets the old file or the new one.

    Raises:
        Mistake: where the disk is full or may not be written; the old file is still there.
    """
    part = path.parent / f"{path.name}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as handle:
            handle.write(content.encode() if isinstance(content, str) else content)
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(path)
    except OSError as error:
        if part.is_file():
            part.unlink()
        raise Mistake(f"cannot write {path}: {error}; what was there before is kept") from None


@contextmanager
def alone(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder, made if need be, against other processes that ask for it so; a process that dies lets go of it.

    Args:
        folder: what is held.
        wait: until another process lets go of it, instead of the mistake.

    Raises:
        Mistake: another process holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=-1 if wait else 0)
        lock.acquire()
    except Timeout:
        raise Mistake(
            f"another process is at work in {folder}; wait until it is done, or choose another --out"
        ) from None
    except OSError as error:
        raise Mistake(f"cannot write to {folder}: {error}") from None
    try:
        yield
    finally:
        lock.release()
