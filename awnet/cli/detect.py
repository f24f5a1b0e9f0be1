"""awnet detect: how well a model tells attacked images from clean ones, and what that is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from awnet.cli.arguments import parse
from awnet.cli.checkpoints import beside, images_for, load_checkpoint
from awnet.errors import Mistake


@dataclass(frozen=True, kw_only=True)
class Detect:
    """Judge a checkpoint as a detector: against attacks, on benign changes, and under attackers who mean to evade it."""

    checkpoint: tyro.conf.Positional[Path]
    """A checkpoint, or a run's folder, whose best checkpoint is meant."""
    attacks: tuple[str, ...] = ("fgsm", "pgd-sat", "cw-inf", "apgd-ce", "fab-t", "square")
    """Which attacks (awnet list attacks), beside those that evade."""
    limit: int | None = 500
    """A seeded subset of so many images."""
    split: Literal["test", "validation", "train"] = "test"
    """Which images."""
    data: str | None = None
    """Another data set than that of its training, with the same classes."""
    data_dir: str | None = None
    """The folder of the data set's files."""
    eps: float | None = None
    """The radius, such as 8/255; that of its training by default."""
    out: Path | None = None
    """Where the record goes; a folder beside the checkpoint by default."""
    seed: int = 0
    """Of the attacks."""
    batch_size: int = 128
    """Images at a time."""
    device: str = "cpu"
    """cpu or cuda."""


def detect(argv: Sequence[str]) -> None:
    """Judge a detector, print its figures and write its record."""
    from dataclasses import replace

    from awnet.attacks import ATTACKS, Engine
    from awnet.config import from_json
    from awnet.evaluation.detection import RATES, detection
    from awnet.threat_model import ThreatModel

    options = parse(Detect, argv, "awnet detect")
    model, about = load_checkpoint(options.checkpoint, options.device)
    threat: ThreatModel = from_json(about["threat"], ThreatModel, "threat")
    threat = threat if options.eps is None else replace(threat, eps=options.eps)
    dataset = images_for(about, options)
    out = options.out or beside(options.checkpoint) / "detection"
    if (out / "detection.json").exists():
        raise Mistake(f"{out} holds a record already; choose another --out")
    with Console(stderr=True).status("") as status:
        found = detection(
            model,
            dataset,
            lambda ball: {name: ATTACKS[name](ball) for name in options.attacks},
            threat=threat,
            engine=Engine(batch_size=options.batch_size),
            seed=options.seed,
            limit=options.limit,
            rates=RATES,
            watch=status.update,
        )
    about = {"model": str(options.checkpoint), "data": dataset.name, "split": dataset.split, "seed": options.seed}
    found.save(out, about)
    for table in _tables(found.figures()):
        Console().print(table)
    print(f"record: {out}")


def _tables(figures: dict[str, Any]) -> list[Table]:
    """What was attacked, what was not, and what is left under attackers who mean to evade."""
    rates = list(figures["accuracy with rejection"])
    attacked = Table(
        "attacked by", "accuracy", "AUC", *(f"TPR@{_percent(r)}" for r in rates), "AUC, fooled",
        *(f"TPR@{_percent(r)}, fooled" for r in rates), box=None, header_style="bold",
    )  # fmt: skip
    for name, row in figures["attacks"].items():
        every = [row["AUC"], *(row[f"noticed at {r}"] for r in rates)]
        fooled = [row["AUC, fooled"], *(row[f"noticed at {r}, fooled"] for r in rates)]
        attacked.add_row(name, *map(_percent, (row["accuracy"], *every, *fooled)))
    benign = Table("not attacked", "accuracy", *(f"alarms@{_percent(r)}" for r in rates), box=None, header_style="bold")
    for name, row in figures["false alarms"].items():
        benign.add_row(name, *map(_percent, (row["accuracy"], *(row[r] for r in rates))))
    evaded = Table("right, and no attack evades", "eps", "eps/2", box=None, header_style="bold")
    for rate, row in figures["accuracy with rejection"].items():
        evaded.add_row(f"with rejection, {_percent(rate)} false alarms", *map(_percent, row.values()))
    evaded.add_row("without, worst of the attacks above", *map(_percent, figures["worst of the attacks"].values()))
    return [attacked, benign, evaded]


def _percent(share: float | str) -> str:
    return "" if isnan(float(share)) else f"{100 * float(share):.1f}"
