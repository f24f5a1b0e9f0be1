"""The rigour report of a record on the page and in the terminal: what each check found (`awnet.evaluation.rigour`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from awnet.evaluation.finding import STATUSES, Finding
from awnet.evaluation.record import Record
from awnet.report.tables import names

if TYPE_CHECKING:
    import rich.table

SHOWN = 6  # figures of a check that are not folded away
STYLES = {"pass": "green", "warn": "yellow", "fail": "red", "skipped": "dim"}


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The checks of one record.

    Attributes:
        name: of the record.
        place: of the record among all of them.
        summary: how many passed, and how many did not.
        worst: the worst status.
        rows: a finding each, with its figures as text.
    """

    name: str
    place: int
    summary: str
    worst: str
    rows: tuple[tuple[Finding, tuple[tuple[str, str], ...]], ...]


def checked(records: Sequence[Record]) -> Iterator[Checked]:
    """What the page shows, of the records that were put to the checks."""
    for place, (name, record) in enumerate(zip(names(records), records, strict=True)):
        if record.rigour:
            yield Checked(
                name=name,
                place=place,
                summary=summary(record.rigour),
                worst=max((finding.status for finding in record.rigour), key=STATUSES.index),
                rows=tuple((finding, tuple(figures(finding))) for finding in record.rigour),
            )


def summary(findings: Sequence[Finding]) -> str:
    """Such as "7 pass, 2 warn, 1 fail"; the failing ones by their codes."""
    parts = []
    for status in ("pass", "warn", "fail", "skipped"):
        of = [finding.code for finding in findings if finding.status == status]
        if of:
            named = f" ({', '.join(of)})" if status in ("warn", "fail") else ""
            parts.append(f"{len(of)} {status}{named}")
    return ", ".join(parts)


def figures(finding: Finding) -> Iterator[tuple[str, str]]:
    """What was measured, and the number with its unit, which a figure's name ends with: "images, %" and 12.5: 12.5 %."""
    for name, value in finding.figures.items():
        what, percent = name.removesuffix(", %"), name.endswith(", %")
        yield what, f"{value:.1f}\u00a0%" if percent else f"{value:.3g}"


def rich_rigour(findings: Sequence[Finding]) -> rich.table.Table:
    """The findings for a terminal."""
    import rich.box
    import rich.table
    from rich.markup import escape

    title = f"Can these numbers be believed? {summary(findings)}"
    found = rich.table.Table(box=rich.box.SIMPLE_HEAD, title=title, title_justify="left")
    for title in ("", "check", "", "what it means"):
        found.add_column(title, overflow="fold")
    for finding in findings:
        status = f"[{STYLES[finding.status]}]{finding.status}[/]"
        found.add_row(finding.code, finding.name, status, escape(f"{finding.meaning} {finding.advice}".strip()))
    return found
