"""What the records say, in plain sentences that claim no more than the numbers bear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from torch import Tensor

from awnet.evaluation.metrics import Difference
from awnet.evaluation.record import Record
from awnet.report.alike import alike
from awnet.report.differences import difference, points
from awnet.report.tables import CLEAN, Cell, Row, Table


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The row with the highest worst case, and what to say of it.

    Attributes:
        row: the row; the mean of its seeds where it has several.
        first: the sentence on its worst case.
        then: sentences on its lead over the best of the others, on the trade-off, and on what is not compared.
    """

    row: Row
    first: str
    then: tuple[str, ...]


def headline(records: Sequence[Record], found: Table) -> Headline:
    """The best of the rows that were measured alike; where rows were not, of the largest such group (the first of equals).

    A label with several seeds counts by its mean.
    """
    rows = max(_groups(records, found), key=len)
    clean, worst, weighed = (
        next(k for k, column in enumerate(found.columns) if test(column))
        for test in (lambda c: c == CLEAN, lambda c: c.headline, lambda c: c.weighed)
    )

    def value(row: Row, k: int) -> float:
        return -1.0 if isnan(row.cells[k].value) else row.cells[k].value

    best = max(rows, key=lambda row: (value(row, worst), value(row, weighed)))
    then = []
    if len(rows) == 1:
        first = (
            f"{best.name} is right on {_percent(found, best.cells[clean])} of {_images(records, best)} as they are, and on "
            f"{_percent(found, best.cells[worst])}{_interval(best.cells[worst])} of them {_after(records, best)}."
        )
    elif value(best, worst) == 0:
        first = (
            f"Nothing holds: in no row is one of {_images(records, best)} right {_after(records, best)}. As they are, "
            f"{best.name} is right on {_percent(found, best.cells[clean])}."
        )
    else:
        ranked = sorted((row for row in rows if row is not best), key=lambda row: -value(row, worst))
        gaps = {row.name: difference(records, best, row, lambda r: r.worst) for row in ranked}
        tied = [row for row in ranked if not gaps[row.name].distinguishable]
        first = (
            f"{best.name} {'has the highest worst case' if tied else 'holds best'}: {_percent(found, best.cells[worst])}"
            f"{_interval(best.cells[worst])} of {_images(records, best)} are right {_after(records, best)}, "
            f"{_percent(found, best.cells[clean])} as they are."
        )
        then.append(_lead(best, ranked, tied, gaps))
        then.append(_trade_off(records, found, rows, best, clean, worst, weighed))
    left = len(found.main) - len(rows)
    if left:
        said = "1 row was" if left == 1 else f"{left} rows were"
        then.append(
            f"{said} measured on other images, in another threat model or by other attacks and cannot be compared."
        )
    return Headline(row=best, first=first, then=tuple(then))


def _groups(records: Sequence[Record], found: Table) -> list[list[Row]]:
    groups: list[list[Row]] = []
    for row in found.main:
        home = next((g for g in groups if alike(records[g[0].of[0]], records[row.of[0]])), None)
        if home is None:
            groups.append([row])
        else:
            home.append(row)
    judged = [group for group in groups if len(records[group[0].of[0]])]
    return judged or groups


def _percent(found: Table, cell: Cell) -> str:
    spread = "" if cell.deviation is None else f" ± {found.number(cell.deviation)}"
    return f"{found.number(cell.value)}{spread}\u00a0%"


def _interval(cell: Cell) -> str:
    return "" if cell.low is None or cell.high is None else f" [{100 * cell.low:.1f}, {100 * cell.high:.1f}]"


def _images(records: Sequence[Record], row: Row) -> str:
    return f"{len(records[row.of[0]]):,} images"


def _after(records: Sequence[Record], row: Row) -> str:
    attacks = len(records[row.of[0]].attacks)
    every = f"after each of {attacks} attacks" if attacks > 1 else "after the one attack that was run"
    return (every if attacks else "after no attack at all") + (f" ({row.threat})" if row.threat else "")


def _over(*rows: Row) -> str:
    """What an interval covers, where it is more than the images."""
    return ", over images and seeds" if any(len(row.of) > 1 for row in rows) else ""


def _lead(best: Row, ranked: Sequence[Row], tied: Sequence[Row], gaps: dict[str, Difference]) -> str:
    """On the worst case of the next rows."""
    if len(tied) > 1:
        gap = gaps[tied[0].name]
        said = f"{tied[0].name} and {len(tied) - 1} more are not distinguishable from it on these images"
        return f"{said}: the nearest is {_by(gap)} points lower{_within(gap, best, tied[0])}."
    gap = gaps[ranked[0].name]
    verdict = "not distinguishable on these images" if tied else "more than chance explains"
    return f"The next, {ranked[0].name}, is {_by(gap)} points lower{_within(gap, best, ranked[0])}: {verdict}."


def _by(gap: Difference) -> str:
    return f"{100 * gap.value:.1f}"


def _within(gap: Difference, *rows: Row) -> str:
    return f" (95\u00a0% interval of the difference {points(gap.low)} to {points(gap.high)}{_over(*rows)})"


def _trade_off(
    records: Sequence[Record], found: Table, rows: Sequence[Row], best: Row, clean: int, worst: int, weighed: int
) -> str:
    """On the highest A_w."""

    def score(record: Record) -> Tensor:  # A_w of each image, scaled to [0, 1]
        weighed = found.gamma_nat * record.clean.correct.double() + found.gamma_adv * record.worst.double()
        return weighed / (found.gamma_nat + found.gamma_adv)

    ranked = sorted(rows, key=lambda row: -row.cells[weighed].value)
    balance, gaps = ranked[0], [difference(records, ranked[0], row, score) for row in ranked[1:]]
    tied = sum(not gap.distinguishable for gap in gaps)
    a_w = f"A_w = {found.cell(balance.cells[weighed])}"
    if balance is best:
        said = f"Its trade-off is the highest, too ({a_w})"
    else:
        said = (
            f"The highest trade-off is that of {balance.name} ({a_w}, of {_percent(found, balance.cells[clean])} clean and "
            f"{_percent(found, balance.cells[worst])} in the worst case)"
        )
    if not tied:
        return f"{said}, ahead of every other by more than chance explains."
    others = f"that of {ranked[1].name}" if tied == 1 else f"those of {tied} others"
    return f"{said}, not distinguishable from {others}."
