"""Checkpoints: what was saved comes back, one version is whole at any moment, and no file that is read can run anything."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from awnet.checkpoint import (
    find,
    load,
    load_weights,
    read_about,
    read_state,
    save_model,
    save_state,
)
from awnet.errors import Mistake
from awnet.folders import replace_folder, whole_folder
from awnet.models import AWNetConfig, Knob, ResNetConfig, RouterConfig, create
from awnet.models.model import Architecture
from models.randomised import randomise

NARROW = ResNetConfig(depth=10, width=4)
DYNAMIC = AWNetConfig(base=NARROW, router=RouterConfig(backbone=NARROW), knob=Knob(p_max=0.5), mean=(0.5,), std=(0.2,))
ABOUT = {"classes": ["cat", "dog", "é"], "shape": (1, 8, 8), "epoch": 3}


def saved(folder: Path, architecture: Architecture = NARROW, seed: int = 1, **about: Any) -> nn.Module:
    """A network with all its numbers drawn, in eval mode, and in a folder."""
    model = randomise(create(architecture, classes=3, channels=1), seed).eval()
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, model, architecture, {**ABOUT, **about})
    return model


class Own(nn.Module):
    """A user's network with everything that a state can hold: one number, a whole number, tied and overlapping weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("count", torch.tensor([3]))
        self.register_buffer("table", torch.arange(6.0))
        self.register_buffer("tail", self.get_buffer("table")[2:])
        self.register_buffer("turned", torch.randn(3, 2).T)
        self.register_buffer("nothing", torch.empty(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x.flatten(1))) * self.get_buffer("scale")


# --- there and back ---


@pytest.mark.parametrize("architecture", [NARROW, DYNAMIC], ids=["resnet", "awnet"])
def test_a_network_comes_back(architecture, tmp_path):
    model = saved(tmp_path, architecture)
    again = load(tmp_path)
    assert not any(module.training for module in again.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(again(x), model(x))
    assert {name: read_about(tmp_path)[name] for name in ABOUT} == {**ABOUT, "shape": [1, 8, 8]}


def test_a_users_network_comes_back_into_one_of_its_kind(tmp_path):
    model = Own()
    save_model(tmp_path, model, None, ABOUT)
    with pytest.raises(Mistake, match=r"holds weights of .*test_checkpoint\.Own.*awnet\.load\(path, into=module\)"):
        load(tmp_path)
    again = Own()
    assert load(tmp_path, into=again) is again
    assert not again.training
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_best_of_a_run_is_meant_then_last(tmp_path):
    last = saved(tmp_path / "last", seed=1)
    assert torch.equal(load(tmp_path).state_dict()["head.weight"], last.state_dict()["head.weight"])
    best = saved(tmp_path / "best", seed=2)
    assert torch.equal(load(str(tmp_path)).state_dict()["head.weight"], best.state_dict()["head.weight"])
    assert find(tmp_path / "last") == tmp_path / "last"


@pytest.mark.parametrize("here", [".", "", "best", "./best"])
def test_a_path_from_where_one_is(here, tmp_path, monkeypatch):
    saved(tmp_path / "best")
    monkeypatch.chdir(tmp_path)
    assert find(here).resolve() == tmp_path / "best"
    monkeypatch.chdir(tmp_path / "best")
    assert find(".").resolve() == tmp_path / "best"


STATE = {
    "place": {
        "epoch": 3,
        "best": "-inf",
        "history": [{"loss": 0.1 + 0.2}, {"loss": 1e-300}],
        "empty": {},
        "none": None,
    },
    "deep": {"a": {"b": {"c": torch.randn(2, 3)}}, "list": [torch.tensor(1.5), {"x": torch.tensor([True])}, 4]},
    "numbers": {0: {"momentum_buffer": torch.randn(3, dtype=torch.float64)}, 1: {"momentum_buffer": None}},
    "tensor": torch.arange(3),
    "lone": {"tensor": torch.arange(4)},
    "slash": {"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}},
}


def test_a_state_comes_back(tmp_path):
    """Nested values and tensors of any type; keys come back as text."""
    shared = torch.randn(4)
    saved_state = {**STATE, "twice": [shared, shared, shared[1:]], "nan": float("nan"), "pair": (1, 2)}
    save_state(tmp_path, saved_state)

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, torch.Tensor):
            return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
        if isinstance(a, dict):
            return (
                isinstance(b, dict) and list(map(str, a)) == list(b) and all(same(v, b[str(k)]) for k, v in a.items())
            )
        if isinstance(a, (list, tuple)):
            return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
        return a == b or (a != a and b != b)

    again = read_state(tmp_path)
    for name, value in saved_state.items():
        assert same(value, again[name]), name


# --- one version is whole at any moment ---


def text(folder: Path) -> str:
    return (folder / "file").read_text()


def writes(content: str):
    return lambda folder: (folder / "file").write_text(content)


def test_a_folder_is_replaced_whole(tmp_path):
    place = tmp_path / "new" / "place"
    replace_folder(place, writes("one"))
    (place / "other").write_text("of the old version")
    replace_folder(place, writes("two"))
    assert text(place) == "two" and sorted(p.name for p in place.parent.iterdir()) == ["place"]
    assert [p.name for p in place.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [OSError("disk full"), RuntimeError("a bug"), KeyboardInterrupt()], ids=repr)
def test_a_writer_that_fails_leaves_the_old(error, tmp_path):
    place = tmp_path / "place"
    replace_folder(place, writes("old"))

    def half(folder: Path) -> None:
        (folder / "file").write_text("ne")
        raise error

    with pytest.raises(Mistake if isinstance(error, OSError) else type(error)) as said:
        replace_folder(place, half)
    if isinstance(error, OSError):
        assert "cannot write" in str(said.value) and "kept" in str(said.value)
    assert text(place) == "old" and [p.name for p in tmp_path.iterdir()] == ["place"]


def test_a_process_that_dies_leaves_one_version_whole(tmp_path, monkeypatch):
    """Death at every touch of the disk, one after the other: at each new folder, rename and removal."""
    place = tmp_path / "place"

    class Death(BaseException):
        pass

    def replace_and_die_at(moment: int) -> bool:
        touches = 0

        def dying(touch):
            def instead(*args, **kwargs):
                nonlocal touches
                touches += 1
                if touches > moment:
                    raise Death  # and nothing after it touches the disk any more
                return touch(*args, **kwargs)

            return instead

        with monkeypatch.context() as patch:
            for owner, name in [(Path, "mkdir"), (Path, "rename"), (os, "fsync"), (shutil, "rmtree")]:
                patch.setattr(owner, name, dying(getattr(owner, name)))
            try:
                replace_folder(place, writes("new"))
            except Death:
                return True
        return False

    for moment in range(100):
        replace_folder(place, writes("old"))  # which also clears away what the death before left
        assert text(place) == "old" and [p.name for p in tmp_path.iterdir()] == ["place"]
        died = replace_and_die_at(moment)
        assert text(whole_folder(place)) in (("old", "new") if died else ("new",)), moment
        if not died:
            assert moment >= 7
            return


def test_death_between_the_renames(tmp_path):
    replace_folder(tmp_path / "run" / "best", saved)
    (tmp_path / "run" / "best").rename(tmp_path / "run" / "best.previous")
    assert find(tmp_path / "run") == tmp_path / "run" / "best.previous"
    assert isinstance(load(tmp_path / "run" / "best"), nn.Module)
    save_state(tmp_path / "run" / "best.previous", STATE)
    assert read_state(tmp_path / "run" / "best")["place"]["epoch"] == 3


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Mistake, match="cannot write"):
        replace_folder(tmp_path / "file" / "place", writes("new"))


# --- what cannot be read is said in a sentence ---


class Evil:
    """Unpickling it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("form", ["pickle", "torch"])
@pytest.mark.parametrize("file", ["model.safetensors", "model.json", "training.safetensors", "training.json"])
def test_nothing_is_ever_unpickled(form, file, tmp_path):
    folder, mark = tmp_path / "run", tmp_path / "mark"
    saved(folder)
    save_state(folder, STATE)
    if form == "pickle":
        (folder / file).write_bytes(pickle.dumps(Evil(mark)))
    else:
        torch.save(Evil(mark), folder / file)
    with pytest.raises(Mistake, match=r"cannot read.*is the file complete"):
        read_state(folder) if "training" in file else load(folder)
    assert not mark.exists()


def test_a_file_of_weights_is_no_checkpoint(tmp_path):
    torch.save({}, tmp_path / "weights.pt")
    for path in (tmp_path / "weights.pt", tmp_path, tmp_path / "nowhere"):
        with pytest.raises(Mistake, match=r"no checkpoint in .*expected a folder with model.json"):
            load(path)


def edited(folder: Path, **changes: Any) -> None:
    about = json.loads((folder / "model.json").read_text())
    for name, value in changes.items():
        if value is None:
            del about[name]
        else:
            about[name] = value
    (folder / "model.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": 2}, "has format 2, this version reads 1"),
        ({"format": None}, "has format None"),
        ({"classes": None}, "classes"),
        ({"classes": ["cat", "dog"]}, r"those of another network: 2 of another shape \(such as head\.bias\)"),
        ({"classes": 3}, "classes"),
        ({"shape": [3, 8, 8]}, "of another shape"),
        ({"shape": "grey"}, "shape"),
        ({"architecture": {"kind": "ResNetConfig", "depth": 18, "width": 4}}, "missing"),
        ({"architecture": {"kind": "ResNetConfig", "depth": 11, "width": 4}}, "depth"),
        ({"architecture": {"kind": "ResnetConfig"}}, "did you mean ResNetConfig"),
        ({"architecture": {"kind": "Knob"}}, "should be of kind Architecture, got Knob"),
        ({"architecture": "os.system"}, "should be of kind Architecture"),
    ],
    ids=str,
)
def test_a_description_that_does_not_fit(changes, sentence, tmp_path):
    saved(tmp_path)
    edited(tmp_path, **changes)
    with pytest.raises(Mistake, match=sentence) as said:
        load(tmp_path)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff\xfe", b'"text"'], ids=repr)
@pytest.mark.parametrize("file", ["model.json", "training.json"])
def test_a_damaged_description(file, content, tmp_path):
    saved(tmp_path)
    save_state(tmp_path, STATE)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(Mistake, match=r"cannot read|is not the description"):
        load(tmp_path) if file == "model.json" else read_state(tmp_path)


def test_weights_of_another_network_are_named(tmp_path):
    saved(tmp_path)
    model = create(NARROW, classes=3, channels=1)
    tensors = dict(model.state_dict())
    tensors["surplus"] = tensors.pop("head.bias")
    tensors["head.weight"] = torch.zeros(3, 5)
    with pytest.raises(Mistake) as said:
        load_weights(model, tensors, "somewhere")
    assert str(said.value) == (
        "the weights in somewhere are those of another network: 1 missing (such as head.bias), "
        "1 unexpected (such as surplus), 1 of another shape (such as head.weight)"
    )


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_truncated_weights(keep, tmp_path):
    saved(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(Mistake, match=r"cannot read the weights in .*is the file complete"):
        load(tmp_path)


def test_weights_that_are_not_those_of_the_description(tmp_path):
    """A bit that flipped on the way, or the weights of another run with the same network."""
    saved(tmp_path / "one", seed=1)
    saved(tmp_path / "two", seed=2)
    file = tmp_path / "one" / "model.safetensors"
    damaged = bytearray(file.read_bytes())
    damaged[-9] ^= 1
    for content in (bytes(damaged), (tmp_path / "two" / "model.safetensors").read_bytes()):
        file.write_bytes(content)
        with pytest.raises(Mistake, match=r"are not those that were saved with its model.json"):
            load(tmp_path / "one")
    assert isinstance(load(tmp_path / "two"), nn.Module)


def test_missing_weights(tmp_path):
    saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(Mistake, match="cannot read the weights"):
        load(tmp_path)


@pytest.mark.parametrize("file", ["model.json", "model.safetensors"])
def test_any_flipped_bit_is_refused_or_harmless(file, tmp_path):
    """Bits of the description, and of the weights' header: either a network comes back, or a sentence."""
    small = ResNetConfig(depth=10, width=7)  # no flip makes a 7 a 0
    saved(tmp_path, small)
    path = tmp_path / file
    whole = path.read_bytes()
    end = len(whole) if file == "model.json" else 8 + int.from_bytes(whole[:8], "little")
    refused = 0
    for place in range(0, end, max(1, end // 200)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 7)
        path.write_bytes(damaged)
        try:
            assert isinstance(load(tmp_path), nn.Module)
        except Mistake as mistake:
            assert "\n" not in str(mistake)
            refused += 1
    assert refused > 10
