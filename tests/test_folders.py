"""What is written whole or not at all, and by one process at a time (replace_folder: tests/test_checkpoint.py)."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from awnet.errors import Mistake
from awnet.folders import alone, remove_folder, replace_file


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place = tmp_path / "new" / "file"
    replace_file(place, "one")
    replace_file(place, b"two")
    assert place.read_text() == "two" and os.listdir(place.parent) == ["file"]
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Mistake, match=r"No space left.*kept"):
        replace_file(place, "three")
    assert place.read_text() == "two" and os.listdir(place.parent) == ["file"]


def test_a_file_below_a_file(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for attempt in (lambda: replace_file(tmp_path / "file" / "place", ""), alone(tmp_path / "file").__enter__):
        with pytest.raises(Mistake, match="cannot write"):
            attempt()


def test_a_folder_is_removed_with_what_a_death_left(tmp_path: Path):
    for name in ("place", "place.part", "place.previous", "placement"):
        (tmp_path / name).mkdir()
    remove_folder(tmp_path / "place")
    remove_folder(tmp_path / "place")
    assert os.listdir(tmp_path) == ["placement"]


def test_a_death_in_the_middle_leaves_no_half_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("place", "place.previous"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("whole")

    def die_where_there_is_something(path: Path, **_: object) -> None:
        if path.exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", die_where_there_is_something)
    with pytest.raises(KeyboardInterrupt):
        remove_folder(tmp_path / "place")
    assert sorted(os.listdir(tmp_path)) == ["place", "place.part"]  # the new one is whole, or else the old one is
    monkeypatch.undo()
    remove_folder(tmp_path / "place")
    assert not os.listdir(tmp_path)


def test_a_folder_is_held_by_one(tmp_path: Path):
    with alone(tmp_path / "run"):
        with pytest.raises(Mistake, match="another process is at work in"), alone(tmp_path / "run"):
            pass
        with alone(tmp_path / "other"):
            pass
    with alone(tmp_path / "run"):
        pass


HOLDS = """
import sys, time
from pathlib import Path
from awnet.folders import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_process_that_dies_lets_go(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(Mistake, match="another process"), alone(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
    with alone(tmp_path, wait=True):
        pass
