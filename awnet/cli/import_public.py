"""awnet import: public weights in the format of their authors become a checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from awnet.cli.arguments import parse
from awnet.errors import Mistake


@dataclass(frozen=True, kw_only=True)
class Import:
    """Make a checkpoint of public weights: those of TRADES, HAT, MTARD, Gowal et al., and theirs on RobustBench."""

    file: tyro.conf.Positional[Path]
    """What was published: safetensors, or a PyTorch file of tensors; nothing is unpickled."""
    model: str
    """The network, such as wrn-34-10, resnet18 or wrn-70-16-swish (awnet list models)."""
    data: str
    """The data set that it tells apart: its class names and the shape of its images."""
    out: Path
    """The new checkpoint's folder."""
    key: str = ""
    """Where a file holds several sets of weights: the key of the one that is meant."""
    mean: tuple[float, ...] = ()
    """Of the normalisation inside the network, where it has one that the file does not hold."""
    std: tuple[float, ...] = ()
    """Likewise."""
    data_dir: str | None = None
    """The folder of the data set's files."""
    norm: Literal["linf", "l2", "l1"] = "linf"
    """Of the threat model that it was trained for, in which it is evaluated unless another is given."""
    eps: float = 8 / 255
    """The radius of the threat model."""


def import_public(argv: Sequence[str]) -> None:
    """Write a checkpoint of public weights."""
    from awnet.checkpoint import save_model
    from awnet.config import to_json
    from awnet.data import DataConfig, load
    from awnet.folders import replace_folder
    from awnet.models.model import MODELS, parameter_count
    from awnet.provenance import provenance
    from awnet.public import adopt, read_public
    from awnet.threat_model import L1, L2, Linf

    options = parse(Import, argv, "awnet import")
    threat = {"linf": Linf, "l2": L2, "l1": L1}[options.norm](options.eps)
    architecture = MODELS[options.model]
    if options.mean or options.std:
        architecture = replace(architecture, mean=options.mean, std=options.std)
    if options.out.exists():
        raise Mistake(f"{options.out} is there already; choose another --out, or remove it")
    tensors = read_public(options.file, options.key)
    data = DataConfig(name=options.data, data_dir=options.data_dir)
    images = load(data).test
    found = adopt(tensors, architecture, channels=images.shape[0], source=str(options.file))
    if found.classes != len(images.classes):
        raise Mistake(
            f"the network in {options.file} tells {found.classes} classes apart, {images.name} has {len(images.classes)}"
        )
    with options.file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    about = {
        **{"classes": images.classes, "shape": images.shape, "data": data, "threat": threat},
        **{"selection": "", "history": [], "experiment": None, "given": {}, "epoch": 0},
        **{"parameters": parameter_count(found.model), "provenance": provenance()},
        "public": {"file": options.file.name, "sha256": digest, "key": options.key, "unused": found.unused},
    }
    replace_folder(options.out, lambda folder: save_model(folder, found.model, found.architecture, to_json(about)))
    print(
        f"imported: {options.out}; next: awnet evaluate {options.out}, whose clean accuracy shows whether it is the one"
    )
