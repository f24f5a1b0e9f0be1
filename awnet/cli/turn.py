"""awnet turn: an OAT network at another balance, as a checkpoint of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from awnet.cli.arguments import parse
from awnet.cli.checkpoints import load_checkpoint
from awnet.errors import Mistake


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Choose the lambda of an OAT network, without training again. AW-Net's knob is turned by awnet evaluate itself."""

    checkpoint: tyro.conf.Positional[Path]
    """A checkpoint, or a run's folder, whose best checkpoint is meant."""
    lam: float
    """One of the lambdas that it was trained for: 0 for accuracy, 1 for robustness."""
    out: Path
    """The new checkpoint's folder."""


def turn(argv: Sequence[str]) -> None:
    """Write an OAT network with another lambda."""
    from awnet.checkpoint import read_architecture, save_model
    from awnet.folders import replace_folder
    from awnet.models.oat import OAT, OATConfig

    options = parse(Turn, argv, "awnet turn")
    model, about = load_checkpoint(options.checkpoint, "cpu")
    config = read_architecture(options.checkpoint)
    if not (isinstance(model, OAT) and isinstance(config, OATConfig)):
        raise Mistake(f"lambda can be chosen for an OAT network, this checkpoint is a {type(model).__name__}")
    if options.out.exists():
        raise Mistake(f"{options.out} is there already; choose another --out, or remove it")
    config = replace(config, lam=options.lam)  # which refuses one that it was not trained for
    said = {name: value for name, value in about.items() if name not in ("format", "architecture", "class", "weights")}
    replace_folder(options.out, lambda folder: save_model(folder, model.turned(options.lam), config, said))
    print(f"lambda {options.lam:g}: {options.out}; next: awnet evaluate {options.out}")
