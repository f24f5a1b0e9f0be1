"""awnet evaluate: from a checkpoint to a record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from awnet.cli.arguments import parse
from awnet.cli.checkpoints import TOLD, beside, check_told, images_for, load_checkpoint, turned
from awnet.errors import Mistake


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Attack a checkpoint and write a record of every example."""

    checkpoint: tyro.conf.Positional[Path]
    """A checkpoint, or a run's folder, whose best checkpoint is meant."""
    attacks: tuple[str, ...] = ("fgsm", "pgd-sat", "pgd-trades", "cw-inf")
    """Which attacks (awnet list attacks)."""
    eps: float | None = None
    """The radius, such as 8/255; that of its training by default."""
    norm: Literal["linf", "l2", "l1"] | None = None
    """The norm of the threat model; that of its training by default."""
    limit: int | None = None
    """A seeded subset of so many images."""
    split: Literal["test", "validation", "train"] = "test"
    """Which images."""
    data: str | None = None
    """Another data set than that of its training, with the same classes."""
    data_dir: str | None = None
    """The folder of the data set's files."""
    out: Path | None = None
    """Where the record goes; a folder beside the checkpoint by default."""
    resume: bool = False
    """Go on where the evaluation in this folder stopped, or add attacks to it."""
    label: str = ""
    """The name of the row in tables."""
    type_bias: float | None = None
    """AW-Net: added to the log-odds of clean."""
    p_max: float | None = None
    """AW-Net: the largest weight of the clean batch norms."""
    omega: bool | None = None
    """AW-Net: whether the router scales the filters."""
    seed: int = 0
    """Of the attacks."""
    batch_size: int = 128
    """Images at a time."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the search; the verdict is always float32."""
    device: str = "cpu"
    """cpu or cuda."""
    keep_images: int = 8
    """How many sample images the record holds."""


def evaluate(argv: Sequence[str]) -> None:
    """Attack a checkpoint and write a record."""
    from awnet.attacks import ATTACKS, Engine
    from awnet.config import from_json
    from awnet.evaluation.evaluate import evaluate as attack_all
    from awnet.report.tables import rich_table
    from awnet.threat_model import L1, L2, Linf, ThreatModel

    options = parse(Evaluate, argv, "awnet evaluate")
    model, about = load_checkpoint(options.checkpoint, options.device)
    check_told(about, options.checkpoint)
    model, knob = turned(model, options)
    threat: ThreatModel = from_json(about["threat"], ThreatModel, "threat")
    if options.norm or options.eps is not None:
        norm = {"linf": Linf, "l2": L2, "l1": L1}[options.norm] if options.norm else type(threat)
        if options.norm and norm is not type(threat) and options.eps is None:
            raise Mistake(f"the norm is changed from {threat}: give its eps too")
        threat = norm(threat.eps if options.eps is None else options.eps)
    dataset = images_for(about, options)
    attacks = {name: ATTACKS[name](threat) for name in options.attacks}
    out = options.out or beside(options.checkpoint) / "records" / slug(f"{threat} {knob or ''} {options.split}")
    said = {
        "checkpoint": str(options.checkpoint),
        "knob": knob,
        **{name: about[name] for name in ("architecture", *TOLD)},
        **{name: about.get(name) for name in ("init", "weights", "detector")},
    }
    console = Console(stderr=True)
    count = min(len(dataset), options.limit or len(dataset))
    with console.status("clean images") as status:
        record = attack_all(
            model,
            dataset,
            attacks,
            threat=threat,
            engine=Engine(batch_size=options.batch_size, precision=options.precision),
            seed=options.seed,
            limit=options.limit,
            label=options.label or label_of(about, options.checkpoint, knob),
            front=str(beside(options.checkpoint)) if knob is not None else "",
            about=said,
            samples=options.keep_images,
            progress=lambda attack, n: status.update(f"{attack}: {n} of {count} images"),
            out=out,
            resume=options.resume,
        )
    Console().print(rich_table([record]))
    print(f"record: {out}; next: awnet report {out}")


def label_of(about: dict[str, Any], checkpoint: Path, knob: dict[str, Any] | None) -> str:
    """The name of the row: of the experiment, and how far the knob is turned."""
    name = (about.get("experiment") or {}).get("name") or checkpoint.name
    usual = {"kind": "Knob", "type_bias": 0.0, "p_max": 1.0, "omega": True}
    turned = [f"{key}={value:g}" for key, value in (knob or {}).items() if value != usual[key]]
    return " ".join([name, *turned])


def slug(text: str) -> str:
    """A folder name."""
    return re.sub(r"[^\w.]+", "-", text).strip("-").lower()
