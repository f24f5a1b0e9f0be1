"""What the records say, in plain sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan

import torch

from awnet.evaluation.metrics import Difference, paired_difference
from awnet.evaluation.record import Record
from awnet.report.checks import missing_attacks
from awnet.report.tables import CLEAN, Row, Table


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The row with the best worst case, and what to say of it.

    Attributes:
        row: the row; the mean of its seeds where it has several.
        first: the sentence on its worst case.
        then: sentences on the trade-off, and on the lead over the best of the others.
    """

    row: Row
    first: str
    then: tuple[str, ...]


def points(difference: float) -> str:
    """A difference of shares in points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "\u2212")


def same_examples(a: Record, b: Record) -> bool:
    """Whether two records judge the same images in the same order."""
    same_set = all(a.data.get(key) == b.data.get(key) for key in ("name", "split"))
    return same_set and torch.equal(a.ids, b.ids)


def same_attacks(a: Record, b: Record) -> bool:
    """Whether two records met the same attacks, as far as those apply to both."""
    return not missing_attacks(a, [a, b]) and not missing_attacks(b, [a, b])


def differences(records: Sequence[Record], other: int) -> dict[str, Difference] | None:
    """What a record has over the first one, on each column that both have; None where their images differ."""
    a, b = records[other], records[0]
    if not same_examples(a, b) or not len(a):
        return None
    both = [name for name in b.attacks if name in a.attacks]
    alike = same_attacks(a, b)
    return {
        "clean": paired_difference(a.clean.correct, b.clean.correct),
        # a worst case over different attacks is not the same measure
        **({"worst case": paired_difference(a.worst, b.worst)} if alike else {}),
        **{name: paired_difference(a.attacks[name].correct, b.attacks[name].correct) for name in both},
    }


def headline(records: Sequence[Record], found: Table) -> Headline:
    """The best of the rows that share the first row's threat model; a label with several seeds counts by its mean."""
    averaged = {i for row in found.rows if row.record is None for i in row.of}
    rows = [row for row in found.rows if row.threat == found.rows[0].threat and row.record not in averaged]
    clean, worst, weighed = (
        next(k for k, column in enumerate(found.columns) if test(column))
        for test in (lambda c: c == CLEAN, lambda c: c.headline, lambda c: c.weighed)
    )

    def percent(row: Row, k: int) -> str:
        return found.number(row.cells[k].value) + "\u00a0%"

    def of(k: int) -> Callable[[Row], float]:
        return lambda row: -1.0 if isnan(row.cells[k].value) else row.cells[k].value

    best = max(rows, key=of(worst))
    record = records[best.of[0]]
    n, attacks = len(record), len(record.attacks)
    where = f" ({best.threat})" if best.threat else ""
    every = (
        "the one attack that was run"
        if attacks == 1
        else f"each of {attacks} attacks"
        if attacks
        else "no attack at all"
    )
    if len(rows) == 1:
        first = f"{best.name} is right on {percent(best, clean)} of {n:,} images as they are, and on {percent(best, worst)} "
        first += f"of them after {every}{where}."
    else:
        first = f"{best.name} holds best: {percent(best, worst)} of {n:,} images stay right under {every}{where}, "
        first += f"{percent(best, clean)} are right as they are."
    then = []
    if rivals := [row for row in rows if row.series != best.series]:
        rival = max(rivals, key=of(worst))
        then.append(_lead(records, found, best, rival, worst))
    if len(rows) > 1:
        balance = max(rows, key=of(weighed))
        a_w = found.number(balance.cells[weighed].value)
        if balance is best:
            then.append(f"Its trade-off is the best, too: A_w = {a_w}.")
        else:
            then.append(
                f"The best trade-off is that of {balance.name}: A_w = {a_w} at {percent(balance, clean)} clean and "
                f"{percent(balance, worst)} in the worst case."
            )
    return Headline(row=best, first=first, then=tuple(then))


def _lead(records: Sequence[Record], found: Table, best: Row, rival: Row, worst: int) -> str:
    lead = best.cells[worst].value - rival.cells[worst].value
    said = f"Its worst case is {100 * lead:.1f} points above that of {rival.name}, the best of the others"
    if best.record is None or rival.record is None:
        means = " and ".join(found.cell(row.cells[worst]) for row in (best, rival))
        return f"{said} ({means})."
    a, b = records[best.record], records[rival.record]
    if not same_examples(a, b) or not same_attacks(a, b):
        return f"{said}, though they were not measured alike."
    gap = paired_difference(a.worst, b.worst)
    verdict = "more than chance explains" if gap.distinguishable else "not distinguishable on these images"
    return f"{said} (95\u00a0% interval {points(gap.low)} to {points(gap.high)}): {verdict}."
