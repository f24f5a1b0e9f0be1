"""awnet calibrate: set the detector's operating points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from awnet.cli.arguments import parse
from awnet.cli.checkpoints import images_for, load_checkpoint
from awnet.cli.predict import what_it_means
from awnet.errors import Mistake


@dataclass(frozen=True, kw_only=True)
class Calibrate:
    """Set the detector's operating points anew, on clean images of the kind that it will meet."""

    checkpoint: tyro.conf.Positional[Path]
    """A checkpoint, or a run's folder, whose best checkpoint is meant."""
    split: Literal["test", "validation", "train"] = "validation"
    """Which images; not those that the network was trained on, or that it is judged on."""
    data: str | None = None
    """Another data set than that of its training, with the same classes."""
    data_dir: str | None = None
    """The folder of the data set's files."""
    device: str = "cpu"
    """cpu or cuda."""


def calibrate(argv: Sequence[str]) -> None:
    """Set the detector's operating points."""
    from awnet.attacks import Engine
    from awnet.checkpoint import annotate
    from awnet.detection.operating_point import operating_points

    options = parse(Calibrate, argv, "awnet calibrate")
    model, about = load_checkpoint(options.checkpoint, options.device)
    dataset = images_for(about, options)
    p_clean = Engine().predict(model, dataset).p_clean
    if p_clean.isnan().any():
        raise Mistake(f"a {type(model).__name__} does not tell clean images from attacked ones; AW-Net does")
    points = operating_points(
        p_clean, split=options.split if options.data is None else f"{dataset.name} {options.split}"
    )
    if not points:
        raise Mistake(f"{len(dataset)} images are too few to set a threshold; 5 % of false alarms need 19, 1 % need 99")
    folder = annotate(options.checkpoint, detector=points)
    Console().print(what_it_means(points), highlight=False)
    print(f"calibrated: {folder}; next: awnet predict IMAGE --model {options.checkpoint}")
