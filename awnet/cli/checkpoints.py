"""What the commands ask of a checkpoint: the network, what is said of it, and the images that fit it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from awnet.errors import Mistake

if TYPE_CHECKING:
    from awnet.cli.analyse import Analyse
    from awnet.cli.calibrate import Calibrate
    from awnet.cli.detect import Detect
    from awnet.cli.evaluate import Evaluate
    from awnet.cli.export import Export
    from awnet.cli.nuts import Nuts
    from awnet.data import Dataset


TOLD = ("selection", "history", "experiment", "given", "epoch")


def load_checkpoint(path: Path, device: str) -> tuple[Any, dict[str, Any]]:
    """The network, and what is said of it."""
    from awnet.checkpoint import load, read_about

    check_device(device)
    return load(path, device=device), read_about(path)


def load_pair(clean: Path, robust: Path, out: Path, device: str) -> tuple[tuple[Any, dict[str, Any]], ...]:
    """Two networks that go together, each with what is said of it, to be made into one in a folder that is not there."""
    pair = load_checkpoint(clean, device), load_checkpoint(robust, device)
    for what in ("classes", "shape"):
        one, other = (about[what] for _, about in pair)
        if one != other:
            raise Mistake(f"the two networks have different {what}: {few(one)} and {few(other)}")
    if out.exists():
        raise Mistake(f"{out} is there already; choose another --out, or remove it")
    return pair


def save_made_of(
    out: Path, network: Any, config: Any, about: dict[str, Any], parts: Sequence[Path], **more: Any
) -> None:
    """Write a network that is made of checkpoints; `about` is what is said of the robust one of them."""
    from awnet.checkpoint import save_model
    from awnet.folders import replace_folder
    from awnet.models.model import parameter_count

    said = {name: about[name] for name in ("classes", "shape", "data", "threat", "selection", "provenance")}
    said |= {"parameters": parameter_count(network), "of": [str(path) for path in parts]}
    said |= {"history": [], "experiment": None, "given": {}, "epoch": 0, **more}
    replace_folder(out, lambda folder: save_model(folder, network, config, said))


def few(names: Sequence[Any]) -> str:
    """The first of many names."""
    return ", ".join(map(str, names[:5])) + (f", … ({len(names)} in all)" if len(names) > 5 else "")


def check_device(device: str) -> None:
    """Refuse a device that is not here."""
    import torch

    if device not in ("cpu", "cuda"):
        raise Mistake(f"the device must be cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise Mistake("there is no CUDA device here; use --device cpu")


def check_told(about: dict[str, Any], path: Path) -> None:
    """Refuse a checkpoint that does not say how it came about."""
    missing = [name for name in ("threat", "data", *TOLD) if name not in about]
    if missing:
        raise Mistake(f"the checkpoint {path} lacks its {', '.join(missing)}, which `awnet train` writes")


def images_for(about: dict[str, Any], options: Evaluate | Calibrate | Detect | Analyse | Nuts) -> Dataset:
    """The images that are asked for, which must fit the network."""
    from awnet.config import from_json
    from awnet.data import DataConfig, load_split

    config: DataConfig = from_json(about["data"], DataConfig, "data")
    config = replace(config, name=options.data or config.name, data_dir=options.data_dir or config.data_dir)
    dataset = load_split(config, options.split)
    if len(dataset.classes) != len(about["classes"]):
        raise Mistake(
            f"the model has {len(about['classes'])} classes, the data set {dataset.name} {len(dataset.classes)}"
        )
    if tuple(dataset.shape) != tuple(about["shape"]):
        raise Mistake(
            f"the model takes images of shape {tuple(about['shape'])}, {dataset.name} has {tuple(dataset.shape)}"
        )
    return dataset


def named(dataset: Dataset, file: Path) -> Dataset:
    """The images that a file names, by their places in the set or as their files are called.

    Raises:
        Mistake: the file cannot be read, or names an image twice or one that is not in the set.
    """
    import torch

    try:
        text = file.read_text()
        lines = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
        names = [line.strip() for line in map(str, lines) if line.strip()]
        by_place = all(re.fullmatch(r"-?\d+", part) for name in names for part in name.split())
        places = [int(part) for name in names for part in name.split()] if by_place else []
        indices = torch.tensor(places, dtype=torch.int64)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        said = str(error).splitlines()[0]
        raise Mistake(
            f"expected {file} to hold places of images or names of their files, one a line or as a JSON list: {said}"
        ) from None
    if by_place and len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(dataset):
        raise Mistake(
            f"{file} names images {int(indices.min())} to {int(indices.max())}; {dataset.name} {dataset.split} has 0 to "
            f"{len(dataset) - 1}"
        )
    found = dataset.subset(indices) if by_place else dataset.called(names)
    if not len(found) or len(found.ids.unique()) < len(found):
        raise Mistake(f"expected {file} to name one or more images, each once, got {len(found)}")
    return found


def turned(model: Any, options: Evaluate | Detect | Export) -> tuple[Any, dict[str, Any] | None]:
    """The model with its knob turned as asked, and the knob's settings where it has one."""
    from awnet.config import to_json
    from awnet.models import AWNet

    asked = asked_of_knob(options)
    if isinstance(model, AWNet):
        model = model.turned(replace(model.knob, **asked))
        return model, to_json(model.knob)
    if asked:
        raise Mistake(f"{', '.join(asked)} can be set for an AW-Net, this checkpoint is a {type(model).__name__}")
    return model, None


def asked_of_knob(options: Evaluate | Detect | Export) -> dict[str, Any]:
    """What of the knob was given."""
    asked = {name: getattr(options, name) for name in ("type_bias", "p_max", "omega")}
    return {name: value for name, value in asked.items() if value is not None}


def beside(checkpoint: Path) -> Path:
    """The run's folder, of the run or of one of its checkpoints."""
    return checkpoint.parent if checkpoint.name in ("best", "last") else checkpoint
