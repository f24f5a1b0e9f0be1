"""awnet verify: re-check a record from its adversarial images."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from awnet.cli.arguments import parse
from awnet.cli.checkpoints import check_device, load_checkpoint
from awnet.errors import Mistake
from awnet.modules import is_module, load_module


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Re-check a record's robust accuracy from its adversarial images, without an attack; exits with 1 where it fails.

    Of a model that draws random numbers, whose verdicts cannot be had again, on average over draws.
    """

    record: tyro.conf.Positional[Path]
    """The record's folder."""
    model: Path | None = None
    """The network that it is about, a checkpoint, a run or package.module:attribute; the one that it names by default."""
    data: str | None = None
    """The data set, where it is not known by the name in the record."""
    data_dir: str | None = None
    """The folder of the data set's files."""
    device: str = "cpu"
    """cpu or cuda."""


def verify(argv: Sequence[str]) -> None:
    """Re-check a record."""
    from awnet.config import from_json
    from awnet.data import DATASETS, DataConfig, load_split
    from awnet.data.dataset import Split
    from awnet.evaluation.draws import Average
    from awnet.evaluation.record import Record
    from awnet.evaluation.verify import verify as check
    from awnet.models import AWNet, Knob

    options = parse(Verify, argv, "awnet verify")
    record = Record.load(options.record)
    name = options.model or Path(record.model.get("checkpoint") or record.model.get("spec") or "")
    if name == Path():
        raise Mistake(f"the record in {options.record} does not say which network it is about; give --model")
    check_device(options.device)
    if is_module(name):
        model = load_module(str(name), options.device)
        config = from_json(record.model["data"], DataConfig, "data") if "data" in record.model else DataConfig()
    elif options.model is None and not name.exists():
        raise Mistake(f"the checkpoint {name}, which the record is about, is not there; give --model")
    else:
        model, about = load_checkpoint(name, options.device)
        config = from_json(about["data"], DataConfig, "data")
    knob = record.model.get("knob")
    if isinstance(model, AWNet) and knob is not None:
        model = model.turned(from_json(knob, Knob, "knob"))
    known = record.data.get("name")
    data = options.data or (known if known in DATASETS else config.name)
    config = replace(config, name=data, data_dir=options.data_dir or config.data_dir)
    split: Any = record.data.get("split")
    if split not in get_args(Split):
        raise Mistake(f"the record in {options.record} is of the split {split!r}, which no set has")
    found = check(options.record, model, load_split(config, split))

    table = Table("", "", "holds", "of", box=None, header_style="bold")
    for one in found.checks:
        mark = "[green]✓[/]" if one.passed else "[bold red]✗[/]"
        table.add_row(f"{mark} {one.name}", escape(one.meaning), str(one.held), str(one.of))
    Console().print(table)
    says = f"{record.label}: robust accuracy at most {found.claimed}, {record.threat.get('text')}"
    drawn = isinstance(found.derived, Average)
    if drawn:
        print("note: the model draws random numbers: no verdict can be had again, only their mean", file=sys.stderr)
    if found.holds:
        print(f"verified: {says}" + (f"; {found.derived}" if drawn else ""))
        return
    failed = ", ".join(one.name for one in found.checks if not one.passed)
    print(f"NOT verified: {says}; fails: {failed}. What the images show is at most {found.derived}")
    if drawn:
        print("attacks on single draws count lucky ones; --attacks aa-rand (EOT) attacks their mean")
    sys.exit(1)
