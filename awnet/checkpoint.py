"""Checkpoints: a folder that says what a network is and holds its weights; reading one never runs anything in it.

model.json          architecture, class names, image shape, how it was trained and chosen
model.safetensors   weights and statistics
training.json, training.safetensors    beside a run's last step: everything needed to go on exactly
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from awnet.config import from_json, to_json
from awnet.data.source import LARGEST
from awnet.errors import Mistake
from awnet.folders import replace_file, whole_folder
from awnet.json_file import read_json
from awnet.models.model import Architecture, create, outline

FORMAT = 1
DESCRIPTIONS = ("model.json", "config.json")  # the second is its name on the Hugging Face hub (awnet/hub.py)
TENSOR = "$tensor"  # the key under which training.json names a tensor of training.safetensors


def find(path: str | Path) -> Path:
    """The checkpoint folder meant by a path: itself, or the best (else the last) checkpoint of a run's folder.

    Raises:
        Mistake: where there is none.
    """
    path = Path(path)
    for folder in (path, path / "best", path / "last"):
        if _description(whole_folder(folder)).is_file():
            return whole_folder(folder)
    raise Mistake(
        f"no checkpoint in {path}: expected a folder with model.json and model.safetensors, or a run that has one"
    )


def _description(folder: Path) -> Path:
    return next((folder / name for name in DESCRIPTIONS if (folder / name).is_file()), folder / DESCRIPTIONS[0])


def save_model(folder: Path, model: nn.Module, architecture: Architecture | None, about: dict[str, Any]) -> None:
    """Write a network into an existing folder.

    Args:
        folder: where.
        model: whose weights.
        architecture: its settings; None for a module that this package did not make, which then has to be made by the
            user before its weights are read (`load(..., into=module)`).
        about: what else to say: "classes" (names), "shape" (c, h, w), provenance.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    save_file(_unshared(tensors), folder / "model.safetensors")
    made_by = f"{type(model).__module__}.{type(model).__qualname__}"
    text = {"format": FORMAT, "architecture": to_json(architecture), "class": made_by, **to_json(about)}
    text["weights"] = _digest(folder / "model.safetensors")
    (folder / "model.json").write_text(json.dumps(text, indent=1) + "\n")


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tied weights and views of one another, each with memory of its own as the file format wants it."""
    seen: set[int] = set()
    for name, t in tensors.items():
        memory = t.untyped_storage().data_ptr()
        if memory in seen and t.numel():
            tensors[name] = t.clone()
        seen.add(memory)
    return tensors


def read_about(path: str | Path) -> dict[str, Any]:
    """What the description says: model.json, or on the hub config.json.

    Raises:
        Mistake: no checkpoint, damaged, or of another format version.
    """
    folder = find(path)
    about = read_json(_description(folder))
    if about.get("format") != FORMAT:
        raise Mistake(f"the checkpoint {folder} has format {about.get('format')!r}, this version reads {FORMAT}")
    try:
        msgspec.convert(about, _Described)
    except msgspec.ValidationError as error:
        raise Mistake(f"{_description(folder)} is damaged: {error}") from None
    return about


def annotate(path: str | Path, **said: Any) -> Path:
    """Say more of a checkpoint in its model.json; its weights are left alone.

    Returns:
        The checkpoint's folder.
    """
    folder = find(path)
    text = {**read_about(folder), **to_json(said)}
    replace_file(_description(folder), json.dumps(text, indent=1) + "\n")
    return folder


class _Described(msgspec.Struct):
    """What every checkpoint says, and of which types; with a default, what only trained ones do."""

    weights: str
    classes: Annotated[list[str], msgspec.Meta(min_length=2)]
    shape: Annotated[list[Annotated[int, msgspec.Meta(ge=1, le=LARGEST)]], msgspec.Meta(min_length=3, max_length=3)]
    data: dict[str, Any] = {}
    threat: dict[str, Any] = {}
    selection: str = ""
    history: list[dict[str, Any]] = []
    experiment: dict[str, Any] | None = None
    given: dict[str, str] = {}
    epoch: Annotated[int, msgspec.Meta(ge=0)] = 0


def read_architecture(path: str | Path) -> Architecture:
    """The settings of a checkpoint's network.

    Raises:
        Mistake: no checkpoint, damaged, or a network that is not one of this package.
    """
    about = read_about(path)
    if about.get("architecture") is None:
        raise Mistake(
            f"the checkpoint {find(path)} holds weights of {about.get('class')}, which is not part of this package; "
            f"make one and call awnet.load(path, into=module)"
        )
    return from_json(about["architecture"], Architecture, "architecture")


def load(path: str | Path, *, into: nn.Module | None = None, device: torch.device | str = "cpu") -> nn.Module:
    """The network of a checkpoint, in eval mode: an `nn.Module` from [0, 1] images to logits.

    Args:
        path: a checkpoint, or a run's folder (its best checkpoint is meant).
        into: a module that takes the weights, where the checkpoint's network is not one of this package.
        device: where to.

    Raises:
        Mistake: no checkpoint there, a damaged one, or weights that do not fit the network.
    """
    folder = find(path)
    about = read_about(folder)
    if into is None:
        size = {"classes": len(about["classes"]), "channels": about["shape"][0]}
        architecture = read_architecture(folder)
        _check_file(folder, about["weights"], outline(architecture, **size))
        into = create(architecture, **size)
    else:
        _check_file(folder, about["weights"], into.state_dict())
    load_weights(into, read_tensors(folder / "model.safetensors"), str(folder))
    return into.eval().to(device)


def _check_file(folder: Path, digest: str, own: Mapping[str, Tensor]) -> None:
    # before any memory is taken for the network: what is described may be as large as anybody cares to write
    _check_shapes(own, read_shapes(folder / "model.safetensors"), str(folder))
    check_digest(folder, digest)


def check_digest(folder: Path, digest: str) -> None:
    """Compare the weights of a folder with the "weights" that its description says.

    Raises:
        Mistake: missing, or others.
    """
    with _readable(folder / "model.safetensors"):
        found = _digest(folder / "model.safetensors")
    if found != digest:
        raise Mistake(
            f"the weights in {folder} are not those that were saved with its {_description(folder).name}; "
            "copy the folder again"
        )


def load_weights(model: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Strictly, with a sentence where names, shapes or sorts of numbers do not fit."""
    own = model.state_dict()
    _check_shapes(own, {name: t.shape for name, t in tensors.items()}, source)
    for name, t in tensors.items():
        if t.is_floating_point() != own[name].is_floating_point() or t.is_complex() != own[name].is_complex():
            raise Mistake(f"the weights in {source} are damaged: {name} holds {t.dtype}, expected {own[name].dtype}")
    model.load_state_dict(tensors)


def _check_shapes(own: Mapping[str, Tensor], found: Mapping[str, Sequence[int]], source: str) -> None:
    unfit = {
        "missing": own.keys() - found.keys(),
        "unexpected": found.keys() - own.keys(),
        "of another shape": {name for name in own.keys() & found.keys() if own[name].shape != torch.Size(found[name])},
    }
    said = [f"{len(names)} {what} (such as {min(names)})" for what, names in unfit.items() if names]
    if said:
        raise Mistake(f"the weights in {source} are those of another network: {', '.join(said)}")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        Mistake: missing or damaged.
    """
    with _readable(path):
        return load_file(path)


def read_shapes(path: Path) -> dict[str, list[int]]:
    """The names and shapes that a safetensors file begins with, which have been compared with its length.

    Raises:
        Mistake: missing or damaged.
    """
    with _readable(path), safe_open(path, "pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - it is no mapping


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    if not path.is_file():  # opening a pipe would wait for ever
        what = "it is no file" if os.path.lexists(path) else "there is no such file"
        raise Mistake(f"cannot read the weights in {path}: {what}")
    try:
        yield
    except (OSError, SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise Mistake(f"cannot read the weights in {path}: {error}; is the file complete?") from None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(text: Any) -> str:
    """Of a value that JSON gives back as it was."""
    return hashlib.sha256(json.dumps(text).encode()).hexdigest()


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write a nested dict of tensors and plain values beside a model, for `read_state`."""
    tensors: dict[str, Tensor] = {}

    def split(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            name = path if path not in tensors else f"{path} {len(tensors)}"  # where keys hold slashes themselves
            tensors[name] = value.detach().cpu().contiguous()
            return {TENSOR: name}
        if isinstance(value, dict):
            return {str(k): split(v, f"{path}/{k}") for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [split(v, f"{path}/{i}") for i, v in enumerate(value)]
        return value

    text = split(state, "")
    save_file(_unshared(tensors), folder / "training.safetensors")
    about = {"format": FORMAT, "tensors": _digest(folder / "training.safetensors"), "text": _digest_of(text)}
    (folder / "training.json").write_text(json.dumps({**about, "state": text}) + "\n")


def read_state(folder: Path) -> dict[str, Any]:
    """What `save_state` was given (tuples come back as lists, keys as text).

    Raises:
        Mistake: missing, damaged by as little as a bit, or of another format version.
    """
    folder = whole_folder(folder)
    about = read_json(folder / "training.json")
    if about.get("format") != FORMAT:
        raise Mistake(f"the training state in {folder} has format {about.get('format')!r}, this version reads {FORMAT}")
    tensors = read_tensors(folder / "training.safetensors")
    if (_digest(folder / "training.safetensors"), _digest_of(about.get("state"))) != (
        about.get("tensors"),
        about.get("text"),
    ):
        raise Mistake(
            f"the training state in {folder} is damaged: its files are not what was saved; "
            "remove the folder to start anew, or copy it again"
        )

    def join(value: Any) -> Any:
        if isinstance(value, dict):
            return tensors[value[TENSOR]] if value.keys() == {TENSOR} else {k: join(v) for k, v in value.items()}
        return [join(v) for v in value] if isinstance(value, list) else value

    try:
        return {name: join(value) for name, value in about["state"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise Mistake(f"the training state in {folder} is damaged: {error} is missing") from None
