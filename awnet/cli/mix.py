"""awnet mix: the static mixture of two checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from awnet.cli.arguments import parse
from awnet.cli.checkpoints import load_checkpoint
from awnet.errors import Mistake


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Make the static mixture of two checkpoints' probabilities, as a checkpoint of its own."""

    clean: tyro.conf.Positional[Path]
    """The accurate network."""
    robust: tyro.conf.Positional[Path]
    """The robust network."""
    out: Path
    """The new checkpoint's folder."""
    weight: float = 0.5
    """Of the clean network's probabilities."""
    sharpness: float = 1.0
    """What the robust network's logits are multiplied by."""


def mix(argv: Sequence[str]) -> None:
    """Write the static mixture of two checkpoints."""
    from awnet.checkpoint import save_model
    from awnet.config import from_json
    from awnet.folders import replace_folder
    from awnet.models.model import Architecture, parameter_count
    from awnet.models.static_mixture import StaticMixture, StaticMixtureConfig

    options = parse(Mix, argv, "awnet mix")
    (clean, about_clean), (robust, about) = (load_checkpoint(path, "cpu") for path in (options.clean, options.robust))
    for what in ("classes", "shape"):
        if about_clean[what] != about[what]:
            raise Mistake(f"the two networks have different {what}: {few(about_clean[what])} and {few(about[what])}")
    parts = (from_json(a["architecture"], Architecture, "architecture") for a in (about_clean, about))
    if options.out.exists():
        raise Mistake(f"{options.out} is there already; choose another --out, or remove it")
    config = StaticMixtureConfig(
        **dict(zip(("clean", "robust"), parts, strict=True)), weight=options.weight, sharpness=options.sharpness
    )
    mixture = StaticMixture(clean, robust, weight=options.weight, sharpness=options.sharpness)
    kept = {name: about[name] for name in ("classes", "shape", "data", "threat", "selection", "provenance")}
    said = {**kept, "parameters": parameter_count(mixture), "of": [str(options.clean), str(options.robust)]}
    said |= {"history": [], "experiment": None, "given": {}, "epoch": 0}
    replace_folder(options.out, lambda folder: save_model(folder, mixture, config, said))
    print(f"mixture: {options.out}; next: awnet evaluate {options.out}")


def few(names: Sequence[Any]) -> str:
    """The first of many names."""
    return ", ".join(map(str, names[:5])) + (f", … ({len(names)} in all)" if len(names) > 5 else "")
