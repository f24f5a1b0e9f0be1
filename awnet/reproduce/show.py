"""A table with paper, ours and difference below one another, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from os.path import relpath
from pathlib import Path
from typing import TYPE_CHECKING

from awnet.reproduce.bench import Bench
from awnet.reproduce.measured import Claim, Measured, Ours, Value, claims
from awnet.reproduce.printed import TITLES

if TYPE_CHECKING:
    import rich.table

NOTHING = "–"


Cells = Callable[
    [Ours], tuple[float | None, Value | None]
]  # what the paper (in percent) and we (as a share) have of a line


def _blocks(found: Measured) -> list[tuple[str, dict[str, Cells]]]:
    """Two blocks of columns by title: accuracies, unless the paper prints none, and A_w, unless it cannot be computed."""
    attacks = found.table.attacks
    accuracies: dict[str, Cells] = {"clean": lambda ours: (ours.line.clean, ours.clean())}
    accuracies |= {TITLES[a]: lambda ours, a=a: (ours.line.attacked.get(a), ours.adversarial(a)) for a in attacks}
    weighed: dict[str, Cells] = {TITLES[a]: lambda ours, a=a: (ours.line.a_w(a), ours.weighed(a)) for a in attacks}
    lines = [ours.line for ours in found.lines]
    blocks = [] if any(line.weighed for line in lines) else [("accuracy", accuracies)]
    return blocks if any(line.attacked and line.clean is None for line in lines) else [*blocks, ("A_w", weighed)]


def _three(found: Measured, columns: dict[str, Cells]) -> Iterator[tuple[Ours, list[str], list[str], list[str]]]:
    """For each line its cells of the paper, ours, and the differences."""
    for ours in found.lines:
        pairs = [cells(ours) for cells in columns.values()]
        yield (
            ours,
            [NOTHING if theirs is None else f"{theirs + 1e-9:.2f}" for theirs, _ in pairs],
            [NOTHING if value is None else _said(value) for _, value in pairs],
            [NOTHING if a is None or b is None else points(100 * b.mean - a) for a, b in pairs],
        )


def _said(value: Value) -> str:
    spread = "" if value.deviation is None else f" ± {100 * value.deviation:.1f}"
    return f"{100 * value.mean:.1f}{spread}"


def points(difference: float) -> str:
    """A difference in points, with its sign."""
    return f"{difference:+.1f}".replace("-", "\u2212")


def _parameters(ours: Ours) -> str:
    return "" if ours.parameters is None else f"{ours.parameters / 1e6:.2f}M"


def rich_measured(found: Measured) -> list[rich.table.Table]:
    """For the terminal, a table a block."""
    from rich.table import Table

    tables = []
    for name, columns in _blocks(found):
        table = Table(name.replace("_", " "), "", box=None, header_style="bold")
        for column in columns:
            table.add_column(column.replace("_", " "), justify="right")
        rows = list(_three(found, columns))
        printed = any(cell != NOTHING for _, paper, _, _ in rows for cell in paper)
        for ours, paper, here, difference in rows:
            if printed:
                table.add_row(ours.line.label, "paper", *paper)
            first = _parameters(ours) if printed else ours.line.label
            if not ours.records:
                table.add_row(first, "not run", style="dim")
                continue
            table.add_row(first, "ours", *here)
            if printed:
                table.add_row("", "difference", *difference, style="dim")
        tables.append(table)
    return tables


def markdown(bench: Bench, found: Measured, beside: Path) -> str:
    """As Markdown, for a file in the folder `beside`; each of our rows links to its records."""
    parts = [f"## {found.table.name}: {found.table.title}"]
    for name, columns in _blocks(found):
        titles = [title.replace("_", "\\_") for title in columns]
        lines = [_row(name.replace("_", "\\_"), "", *titles), _row("---", "---", *["---:"] * len(titles))]
        rows = list(_three(found, columns))
        printed = any(cell != NOTHING for _, paper, _, _ in rows for cell in paper)
        for ours, paper, here, difference in rows:
            label = " ".join(filter(None, [ours.line.label, ours.line.parameters]))
            if printed:
                lines.append(_row(label, "paper", *paper))
            first = _parameters(ours) if printed else f"{label} {_parameters(ours)}".rstrip()
            if not ours.records:
                lines.append(_row(first, "not run", *[""] * len(titles)))
                continue
            lines.append(_row(first, f"ours ({_links(bench, ours, beside)})", *here))
            if printed:
                lines.append(_row("", "difference", *difference))
        parts.append("\n".join(lines))
    said = [sentence(claim) for claim in claims(found)]
    parts += ["\n".join(f"- {one}" for one in several) for several in (said, found.table.notes) if several]
    return "\n\n".join(parts) + "\n"


def _links(bench: Bench, ours: Ours, beside: Path) -> str:
    """To the records of the first seed, by battery; how many seeds there are of each."""
    folder = partial(bench.record_folder, ours.data, ours.line.system, 0)
    return ", ".join(
        f"[{name}]({relpath(folder(name) / 'record.json', beside)})"
        + (f" of {len(records)} seeds" if len(records) > 1 else "")
        for name, records in ours.records.items()
    )


def sentence(claim: Claim) -> str:
    """One claim, what the paper prints for it and what came out here."""
    printed = "" if claim.printed is None else f"paper {points(claim.printed)} ({claim.rival}); "
    if claim.ours is None:
        return f"{claim.system}, A_w under {TITLES[claim.attack]}: {printed}here not run."
    low, high = (points(100 * x) for x in (claim.ours.low, claim.ours.high))
    verdict = claim.verdict if claim.verdict != "not run" else f"{claim.waiting} of its rivals not run"
    return (
        f"{claim.system}, A_w under {TITLES[claim.attack]}: {printed}here {points(100 * claim.ours.value)} "
        f"[{low}, {high}] ({claim.our_rival}): {verdict}."
    )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
