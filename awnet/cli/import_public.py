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

IMAGENET = "imagenet"  # as a name that stands for no files


@dataclass(frozen=True, kw_only=True)
class Import:
    """Make a checkpoint of public weights: those of TRADES, HAT, MTARD, Gowal et al., and theirs on RobustBench, to be used as
    they are; those of Swin on ImageNet, to be fine-tuned (awnet train --init)."""

    file: tyro.conf.Positional[Path]
    """What was published: safetensors, or a PyTorch file of tensors; nothing is unpickled."""
    model: str
    """The network, such as wrn-34-10, resnet18 or wrn-70-16-swish (awnet list models)."""
    data: str
    """The data set that it tells apart: its class names and the shape of its images. With imagenet, which need not be at hand,
    the classes are numbered."""
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
    from awnet.cli.checkpoints import few
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
    if options.data == IMAGENET:
        images, data, shape = None, replace(data, image_size=224), (3, 224, 224)
    else:
        images = load(data).test
        shape = images.shape
    found = adopt(tensors, architecture, channels=shape[0], source=str(options.file))
    classes = tuple(f"class {i}" for i in range(found.classes)) if images is None else images.classes
    if images is not None and found.classes != len(classes):
        raise Mistake(
            f"the network in {options.file} tells {found.classes} classes apart, {images.name} has {len(classes)}"
        )
    with options.file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    about = {
        **{"classes": classes, "shape": shape, "data": data, "threat": threat},
        **{"selection": "", "history": [], "experiment": None, "given": {}, "epoch": 0},
        **{"parameters": parameter_count(found.model), "provenance": provenance()},
        "public": {
            **{"file": options.file.name, "sha256": digest, "key": options.key},
            **{"unused": found.unused, "resampled": found.resampled},
        },
    }
    replace_folder(options.out, lambda folder: save_model(folder, found.model, found.architecture, to_json(about)))
    if found.resampled:
        print(f"resampled for another patch or window: {few(found.resampled)}")
    following = f"awnet evaluate {options.out}, whose clean accuracy shows whether it is the one"
    if options.data == IMAGENET:
        following = f"awnet train RECIPE --init {options.out}"
    print(f"imported: {options.out}; next: {following}")
