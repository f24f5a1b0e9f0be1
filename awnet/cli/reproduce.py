"""awnet reproduce: the paper's tables and figures, its numbers and ours side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from awnet.cli.arguments import parse
from awnet.cli.checkpoints import check_device
from awnet.errors import Mistake, unknown


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Train and attack what tables and figures of the paper need, where it is not there, and set ours beside its numbers."""

    what: tyro.conf.Positional[tuple[str, ...]] = ()
    """table1 … table11, fig1, fig3, fig4, fig5, and own-best and rivals, which the paper has not; all where none is named."""
    scale: Literal["full", "gpu", "small"] = "small"
    """full: the paper's own settings; gpu: about half an hour of one modern GPU a network (an estimate); small: narrow networks
    and two epochs, for two CPU cores."""
    out: Path = Path("runs")
    """The folder of the runs; records and pages go to SCALE in it."""
    only: tuple[str, ...] = ()
    """These systems alone (awnet list recipes)."""
    seeds: int | None = None
    """At most so many trainings of a system; as many as the scale has by default."""
    show: bool = False
    """Run nothing, only show what is there."""
    jobs: int = 1
    """Networks at a time, each in a process with one thread."""
    data_dir: str | None = None
    """The folder of the data sets' files."""
    device: str = "cpu"
    """cpu or cuda."""


def reproduce(argv: Sequence[str]) -> None:
    """Run what is missing, print each table and write its page."""
    from awnet.recipes.scale import SCALES
    from awnet.reproduce import ALL, Bench, produce

    options = parse(Reproduce, argv, "awnet reproduce")
    check_device(options.device)
    for name in options.what:
        if name not in ALL:
            raise unknown("table or figure", name, ALL)
    if options.jobs < 1:
        raise Mistake(f"--jobs counts networks at a time, 1 or more, got {options.jobs}")
    if options.seeds is not None and options.seeds < 1:
        raise Mistake(f"--seeds counts trainings of a system, 1 or more, got {options.seeds}")
    scale = SCALES[options.scale]
    scale = replace(scale, seeds=min(options.seeds or scale.seeds, scale.seeds))
    bench = Bench(out=options.out, scale=scale, data_dir=options.data_dir, device=options.device)
    produce(
        bench, options.what or tuple(ALL), console=Console(), only=options.only, run=not options.show, jobs=options.jobs
    )
