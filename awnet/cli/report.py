"""awnet report: from records to a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from awnet.cli.arguments import parse
from awnet.cli.records import read_records
from awnet.errors import Mistake


@dataclass(frozen=True, kw_only=True)
class Report:
    """Turn records into one self-contained page, and print their table."""

    records: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of records, or folders that hold several."""
    out: Path = Path("report.html")
    """The page."""
    table: Path | None = None
    """Write the table too: .md, .tex (for booktabs) or .csv."""
    title: str = "How accurate, and how robust"
    """Its title."""
    gamma_nat: float = 0.5
    """The weight of clean accuracy in A_w (Eq. 23)."""
    gamma_adv: float = 0.5
    """The weight of robust accuracy in A_w."""
    no_images: bool = False
    """Leave the sample images out."""


def report(argv: Sequence[str]) -> None:
    """Turn records into a page."""
    from awnet.report.page import write_page
    from awnet.report.tables import WRITERS, check_ending, rich_table, write_table

    options = parse(Report, argv, "awnet report")
    if options.out.suffix in WRITERS:
        raise Mistake(f"the page is HTML, and --out is {options.out}; for a table give --table {options.out}")
    if options.table is not None:
        check_ending(options.table)
    records = read_records(options.records)
    weights = {"gamma_nat": options.gamma_nat, "gamma_adv": options.gamma_adv}
    page = write_page(records, options.out, title=options.title, images=not options.no_images, **weights)
    Console().print(rich_table(records, **weights))
    if options.table is not None:
        print(f"table: {write_table(records, options.table, **weights)}")
    print(f"report: {page}")
