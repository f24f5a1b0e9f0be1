"""Checkpoints: a folder that says what a network is and holds its weights; reading one never runs anything in it.

    model.json          architecture, class names, image shape, how it was trained and chosen
    model.safetensors   weights and statistics
    training.json, training.safetensors    beside a run's last step: everything needed to go on exactly

A folder is written beside its place and renamed, and the one before is kept until the new one is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from awnet.config import from_json, to_json
from awnet.errors import Mistake
from awnet.models.model import Architecture, create

FORMAT = 1
TENSOR = "$tensor"  # the key under which training.json names a tensor of training.safetensors


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


def find(path: str | Path) -> Path:
    """The checkpoint folder meant by a path: itself, or the best (else the last) checkpoint of a run's folder.

    Raises:
        Mistake: where there is none.
    """
    path = Path(path)
    for folder in (path, path / "best", path / "last"):
        if (whole_folder(folder) / "model.json").is_file():
            return whole_folder(folder)
    raise Mistake(
        f"no checkpoint in {path}: expected a folder with model.json and model.safetensors, or a run that has one"
    )


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
    """What model.json says.

    Raises:
        Mistake: no checkpoint, damaged, or of another format version.
    """
    folder = find(path)
    about = _read_json(folder / "model.json")
    if about.get("format") != FORMAT:
        raise Mistake(f"the checkpoint {folder} has format {about.get('format')!r}, this version reads {FORMAT}")
    try:
        msgspec.convert(about, _Described)
    except msgspec.ValidationError as error:
        raise Mistake(f"{folder / 'model.json'} is damaged: {error}") from None
    return about


class _Described(msgspec.Struct):
    """What every checkpoint says, and of which types."""

    weights: str
    classes: list[str]
    shape: Annotated[list[int], msgspec.Meta(min_length=3, max_length=3)]


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
        if about.get("architecture") is None:
            raise Mistake(
                f"the checkpoint {folder} holds weights of {about.get('class')}, which is not part of this package; "
                f"make one and call awnet.load(path, into=module)"
            )
        architecture = from_json(about["architecture"], Architecture, "architecture")
        into = create(architecture, classes=len(about["classes"]), channels=about["shape"][0])
    tensors = read_tensors(folder / "model.safetensors")
    if _digest(folder / "model.safetensors") != about["weights"]:
        raise Mistake(
            f"the weights in {folder} are not those that were saved with its model.json; copy the folder again"
        )
    load_weights(into, tensors, str(folder))
    return into.eval().to(device)


def load_weights(model: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Strictly, with a sentence where names or shapes do not fit."""
    own = model.state_dict()
    unfit = {
        "missing": own.keys() - tensors.keys(),
        "unexpected": tensors.keys() - own.keys(),
        "of another shape": {name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape},
    }
    said = [f"{len(names)} {what} (such as {min(names)})" for what, names in unfit.items() if names]
    if said:
        raise Mistake(f"the weights in {source} are those of another network: {', '.join(said)}")
    model.load_state_dict(tensors)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        Mistake: missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise Mistake(f"cannot read the weights in {path}: {error}; is the file complete?") from None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Mistake(f"cannot read {path}: {error}; is the file complete?") from None
    if not isinstance(data, dict):
        raise Mistake(f"{path} is not the description of a checkpoint")
    return data


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
    (folder / "training.json").write_text(json.dumps(text) + "\n")


def read_state(folder: Path) -> dict[str, Any]:
    """What `save_state` was given (tuples come back as lists, keys as text)."""
    folder = whole_folder(folder)
    tensors = read_tensors(folder / "training.safetensors")

    def join(value: Any) -> Any:
        if isinstance(value, dict):
            return tensors[value[TENSOR]] if value.keys() == {TENSOR} else {k: join(v) for k, v in value.items()}
        return [join(v) for v in value] if isinstance(value, list) else value

    try:
        return join(_read_json(folder / "training.json"))
    except (KeyError, TypeError) as error:
        raise Mistake(f"the training state in {folder} is damaged: {error} is missing") from None
