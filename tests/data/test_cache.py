"""Decoded images on disk."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from awnet.data import DataConfig, load
from awnet.data.cache import cache_dir
from awnet.errors import Mistake
from data.made import class_folders, scan


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    images = {name: [scan(10 * place + i) for i in range(10)] for place, name in enumerate(("cat", "dog"))}
    return DataConfig(name=str(class_folders(tmp_path / "pets", images)))


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of images with each split that is decoded."""
    from awnet.data import decode

    counts: list[int] = []
    original = decode.decoded

    def counted(split, shape, resize):
        counts.append(len(split.labels))
        return original(split, shape, resize)

    monkeypatch.setattr(decode, "decoded", counted)
    return counts


def entry(cache: Path) -> Path:
    (folder,) = (path for path in (cache / "data").iterdir() if path.is_dir())
    return folder


def test_images_are_decoded_once(config, decodes, cache):
    first, second = load(config), load(config)
    assert decodes == [20]
    assert torch.equal(first.train.images, second.train.images)
    assert first.train.fingerprint == second.train.fingerprint
    grey, colour = load(DataConfig(name=config.name, channels="grey")), load(config)
    assert decodes == [20, 20] and (grey.train.shape[0], colour.train.shape[0]) == (1, 3)


def test_the_stored_fingerprint_is_that_of_the_pixels(config):
    from dataclasses import replace

    whole = load(config).train.whole
    assert whole.known_fingerprint == replace(whole, known_fingerprint=None).fingerprint


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux to say what is mapped")
def test_images_are_memory_mapped_and_the_file_cannot_be_written_through_them(config, cache):
    splits = load(config)
    path = entry(cache) / "train.npy"
    assert str(path) in Path("/proc/self/maps").read_text()
    before = path.read_bytes()
    splits.train.whole.images.zero_()
    assert path.read_bytes() == before


def test_a_changed_source_is_decoded_again(config, decodes, cache):
    load(config)
    scan(99).save(Path(config.name) / "cat/3.png")
    changed = load(config)
    scan(98).save(Path(config.name) / "dog/77.png")
    assert len(load(config).train.whole) == 21 and decodes == [20, 20, 21] and entry(cache)
    assert np.array_equal(changed.train.whole.images[3].permute(1, 2, 0), np.asarray(scan(99)))


def truncate(folder: Path) -> None:
    os.truncate(folder / "train.npy", 3000)


def garble(folder: Path) -> None:
    content = bytearray((folder / "train.npy").read_bytes())
    content[-7] ^= 255
    (folder / "train.npy").write_bytes(content)


def garble_labels(folder: Path) -> None:
    np.save(folder / "train-labels.npy", np.zeros(20, np.int64))


def remove(folder: Path) -> None:
    (folder / "train.npy").unlink()


def empty_meta(folder: Path) -> None:
    (folder / "meta.json").write_text("")


def other_meta(folder: Path) -> None:
    (folder / "meta.json").write_text("[1, 2]")


@pytest.mark.parametrize("damage", [truncate, garble, garble_labels, remove, empty_meta, other_meta])
def test_a_damaged_cache_is_made_again_with_a_line_in_the_log(config, decodes, cache, caplog, damage):
    before = load(config)
    images = before.train.images
    damage(entry(cache))
    with caplog.at_level(logging.WARNING):
        after = load(config)
    assert decodes == [20, 20] and "made again" in caplog.text
    assert torch.equal(after.train.images, images) and torch.equal(after.train.labels, before.train.labels)
    assert after.train.fingerprint == before.train.fingerprint
    load(config)
    assert decodes == [20, 20]


def test_what_a_killed_process_left_is_gone_when_it_is_made_again(config, decodes, cache):
    load(config)
    place = entry(cache)
    left = place.with_name(f"{place.name}.n0fty6y8")
    (left / "new").mkdir(parents=True)
    (left / "new" / "train.npy").write_bytes(bytes(100))
    load(config)
    assert left.exists() and decodes == [20]  # whoever only reads removes nothing
    remove(place)
    load(config)
    assert not left.exists() and place.exists() and decodes == [20, 20]


def test_a_copied_cache_still_serves(config, decodes, cache, tmp_path, monkeypatch):
    before = load(config)
    shutil.copytree(cache, tmp_path / "copy", copy_function=shutil.copyfile)  # with new times of change
    monkeypatch.setenv("AWNET_CACHE_DIR", str(tmp_path / "copy"))
    assert load(config).train.fingerprint == before.train.fingerprint and decodes == [20]


def test_of_several_at_once_one_decodes_and_the_others_wait(config, decodes, cache):
    with ThreadPoolExecutor(4) as pool:
        splits = list(pool.map(load, [config] * 4))
    assert decodes == [20] and len({one.train.fingerprint for one in splits}) == 1
    assert {path.name for path in entry(cache).iterdir()} == {
        "meta.json",
        "train.npy",
        "train-labels.npy",
        "train-names.json",
    }


def test_a_full_disk_is_a_mistake(config, cache):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(Mistake, match=r"cannot be kept in .* \(File too large\); set AWNET_CACHE_DIR"):
            load(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [path for path in (cache / "data").iterdir() if path.is_dir()]


def test_too_little_room_is_a_mistake_before_anything_is_written(config, decodes, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**8))
    with pytest.raises(
        Mistake, match=r"pets decoded to 2000x2000 takes 0\.2 GB, .* 0\.1 GB left; choose a smaller image_size"
    ):
        load(DataConfig(name=config.name, image_size=2000))
    assert decodes == []


def test_a_cache_that_cannot_be_written_is_a_mistake(config, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AWNET_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(Mistake, match=r"cannot be kept in .*file/data \(Not a directory\); set AWNET_CACHE_DIR"):
        load(config)


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("AWNET_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_dir() == Path("/x/awnet")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache/awnet"


def test_what_is_stored_says_what_it_is(config, cache):
    load(config)
    meta = json.loads((entry(cache) / "meta.json").read_text())
    assert meta["classes"] == ["cat", "dog"] and meta["place"] == config.name
