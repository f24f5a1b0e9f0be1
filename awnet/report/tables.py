"""Records as a table: a row each, with the worst case as the headline and the trade-off of Eq. 23 beside it.

`table` computes every number once; the page, Markdown, LaTeX and the terminal only write them down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import isfinite, isnan
from pathlib import PurePath
from statistics import mean, stdev
from typing import TYPE_CHECKING

from awnet.errors import Mistake
from awnet.evaluation.metrics import Accuracy, w_robust
from awnet.evaluation.record import Record

if TYPE_CHECKING:
    import rich.table

MISSING = "–"
MANY = 5000  # examples from which a second decimal means something


@dataclass(frozen=True, kw_only=True)
class Column:
    """What a column holds: "clean", "worst", or an attack's accuracy; `weighed` with the clean one to A_w."""

    title: str
    attack: str = ""
    weighed: bool = False

    @property
    def headline(self) -> bool:
        """Whether this is the worst case itself."""
        return self.title == WORST.title and not self.attack and not self.weighed


CLEAN = Column(title="clean")
WORST = Column(title="worst case")


@dataclass(frozen=True)
class Cell:
    """A share, or A_w, in [0, 1]; NaN where it was not measured.

    Attributes:
        low, high: of its 95 % interval, where it is the share of one record.
        deviation: between seeds, where it is the mean of several records.
        best: whether no other row of the same threat model has a higher one.
    """

    value: float
    low: float | None = None
    high: float | None = None
    deviation: float | None = None
    best: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """A record, or the mean over the seeds of a label.

    Attributes:
        name: unlike the label, different for each row.
        series: rows of one front or label share this number, which gives their colour in figures.
        record: which record it is; None for a mean.
        of: the records that it is computed from.
        parameters: how many; None where nobody said.
        cells: one for each column.
    """

    name: str
    series: int
    record: int | None
    of: tuple[int, ...]
    threat: str
    parameters: int | None
    cells: tuple[Cell, ...]

    @property
    def short(self) -> str:
        """The name without the threat model, for tables that have a column for it."""
        return self.name.replace(f", {self.threat}", "", 1) if self.threat else self.name


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows in the records' order, each mean after the last of its seeds."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    digits: int
    gamma_nat: float
    gamma_adv: float

    def number(self, value: float, digits: int | None = None) -> str:
        """A share in percent, or a dash where there is none."""
        return MISSING if isnan(value) else f"{100 * value:.{self.digits if digits is None else digits}f}"

    def cell(self, cell: Cell) -> str:
        """In one line, without interval."""
        spread = "" if cell.deviation is None else f" ± {self.number(cell.deviation)}"
        return self.number(cell.value) + spread

    @property
    def threats(self) -> tuple[str, ...]:
        """The different threat models, in the rows' order."""
        return tuple(dict.fromkeys(row.threat for row in self.rows))


def threat_text(record: Record) -> str:
    """The threat model in words, "" where the record does not say."""
    return str(record.threat.get("text") or "")


def seed_text(record: Record) -> str:
    """The seed of the training where the record knows it, of the run otherwise."""
    experiment = record.model.get("experiment")
    trained = experiment.get("seed") if isinstance(experiment, dict) else None
    seed = record.run.get("seed") if trained is None else trained
    return "" if seed is None else f"seed {seed}"


def names(records: Sequence[Record]) -> list[str]:
    """The labels; where several records share one, with what tells them apart: threat model, seed, or a number."""
    found = [record.label for record in records]
    for describe in (threat_text, seed_text):
        for name in {name for name in found if found.count(name) > 1}:
            places = [i for i, other in enumerate(found) if other == name]
            parts = [describe(records[i]) for i in places]
            if len(set(parts)) > 1:
                for i, part in zip(places, parts, strict=True):
                    found[i] = f"{name}, {part}" if part else name
    seen: dict[str, int] = {}
    for i, name in enumerate(found):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            found[i] = f"{name} #{seen[name]}"
    return found


def series(records: Sequence[Record]) -> list[int]:
    """Which colour each record has in every figure: records of one front, or of one label, share theirs."""
    found: list[int] = []
    for i, record in enumerate(records):
        like = (j for j in range(i) if records[j].label == record.label or records[j].front == record.front != "")
        found.append(next((found[j] for j in like), len(set(found))))
    return found


def front_names(records: Sequence[Record]) -> dict[str, str]:
    """What to call each front: itself where its labels begin with it, otherwise the words that they begin with."""
    found = {}
    for front in dict.fromkeys(record.front for record in records if record.front):
        labels = [record.label for record in records if record.front == front]
        columns = zip(*(label.split() for label in labels), strict=False)
        common = [words[0] for words in takewhile(lambda words: len(set(words)) == 1, columns)]
        usual = all(label.startswith(front) for label in labels)
        found[front] = front if usual else " ".join(common).rstrip(",;:") or PurePath(front).name
    return found


def attack_names(records: Sequence[Record]) -> list[str]:
    """Every attack that was run on any record, in order of first appearance."""
    return list(dict.fromkeys(name for record in records for name in record.attacks))


def seed_groups(records: Sequence[Record]) -> list[list[int]]:
    """Records of one label and one threat model, which differ by their seed only; labels that come once are left out."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i, record in enumerate(records):
        groups.setdefault((record.label, threat_text(record)), []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def table(
    records: Sequence[Record], *, gamma_nat: float = 0.5, gamma_adv: float = 0.5, per_attack: bool = False
) -> Table:
    """The numbers of all records.

    Args:
        records: at least one.
        gamma_nat, gamma_adv: the weights of clean and robust accuracy in A_w (Eq. 23).
        per_attack: whether to give A_w for each attack too, as the paper does, beside that of the worst case.

    Raises:
        Mistake: where there is no record, or a weight is negative.
    """
    if not records:
        raise Mistake("a table needs at least one record, got none; `awnet evaluate` makes them")
    if not (gamma_nat >= 0 and gamma_adv >= 0 and gamma_nat + gamma_adv > 0):
        raise Mistake(f"the weights of A_w must not be negative nor both zero, got {gamma_nat:g} and {gamma_adv:g}")
    columns = [CLEAN, WORST, Column(title="A_w", weighed=True)]
    for attack in attack_names(records):
        columns.append(Column(title=attack, attack=attack))
        if per_attack:
            columns.append(Column(title=f"A_w, {attack}", attack=attack, weighed=True))

    def measure(record: Record, column: Column) -> Cell:
        if column.attack and column.attack not in record.attacks:
            return Cell(float("nan"))
        found: Accuracy = record.clean_accuracy
        if column != CLEAN:
            found = record.robust_accuracy(column.attack) if column.attack else record.worst_accuracy
        if column.weighed:
            return Cell(w_robust(record.clean_accuracy.value, found.value, gamma_nat, gamma_adv))
        return Cell(found.value, found.low, found.high)

    last = {group[-1]: group for group in seed_groups(records)}
    rows: list[Row] = []
    cells = [tuple(measure(record, column) for column in columns) for record in records]
    for i, (name, number, record) in enumerate(zip(names(records), series(records), records, strict=True)):
        row = Row(
            name=name,
            series=number,
            record=i,
            of=(i,),
            threat=threat_text(record),
            parameters=record.model.get("parameters"),
            cells=cells[i],
        )
        rows.append(row)
        if i in last:
            group = last[i]
            over = tuple(_mean([cells[j][k].value for j in group]) for k in range(len(columns)))
            threats = {threat_text(other) for other in records if other.label == record.label}
            title = record.label if len(threats) == 1 else f"{record.label}, {row.threat}"
            rows.append(
                Row(
                    name=f"{title} (mean of {len(group)})",
                    series=number,
                    record=None,
                    of=tuple(group),
                    threat=row.threat,
                    parameters=row.parameters,
                    cells=over,
                )
            )
    return Table(
        columns=tuple(columns),
        rows=tuple(_mark_best(rows)),
        digits=2 if min(map(len, records)) >= MANY else 1,
        gamma_nat=gamma_nat,
        gamma_adv=gamma_adv,
    )


def _mean(values: list[float]) -> Cell:
    return Cell(mean(values), deviation=stdev(values)) if all(map(isfinite, values)) else Cell(float("nan"))


def _mark_best(rows: list[Row]) -> list[Row]:
    marked = []
    for row in rows:
        rivals = [other for other in rows if other.threat == row.threat and other.record is not None]
        cells = []
        for k, cell in enumerate(row.cells):
            measured = [other.cells[k].value for other in rivals if not isnan(other.cells[k].value)]
            best = row.record is not None and len(measured) > 1 and cell.value == max(measured)
            cells.append(Cell(cell.value, cell.low, cell.high, cell.deviation, best))
        marked.append(Row(**{**row.__dict__, "cells": tuple(cells)}))
    return marked


def millions(parameters: int | None) -> str:
    """A number of parameters in units of 10^6, with as many decimals as tell small networks apart."""
    if parameters is None:
        return MISSING
    return f"{parameters / 1e6:.{1 if parameters >= 1e7 else 2 if parameters >= 1e5 else 3}f}"


def _lines(
    records: Sequence[Record],
    gamma_nat: float,
    gamma_adv: float,
    per_attack: bool,
    escape: Callable[[str], str],
    bold: Callable[[str], str],
) -> tuple[list[str], list[list[str]], int]:
    """Header and body as strings, for the writers below, and how many columns are words: the first ones."""
    found = table(records, gamma_nat=gamma_nat, gamma_adv=gamma_adv, per_attack=per_attack)
    several = len(found.threats) > 1
    header = ["model", *(["threat"] if several else []), "10^6 param.", *(c.title for c in found.columns)]
    body = []
    for row in found.rows:
        words = [row.short, row.threat] if several else [row.name]
        cells = [bold(text) if cell.best else text for cell in row.cells for text in [found.cell(cell)]]
        body.append([*map(escape, words), millions(row.parameters), *cells])
    return [escape(title) for title in header], body, 1 + several


def markdown_table(
    records: Sequence[Record], *, gamma_nat: float = 0.5, gamma_adv: float = 0.5, per_attack: bool = False
) -> str:
    """The table in Markdown, in percent, with the best of each column in bold."""

    def escape(text: str) -> str:
        for character in "\\`*_{}[]<>#|":
            text = text.replace(character, "\\" + character)
        return " ".join(text.split())

    header, body, words = _lines(records, gamma_nat, gamma_adv, per_attack, escape, lambda text: f"**{text}**")
    rule = ["---"] * words + ["---:"] * (len(header) - words)
    return "".join(f"| {' | '.join(line)} |\n" for line in [header, rule, *body])


def latex_table(
    records: Sequence[Record], *, gamma_nat: float = 0.5, gamma_adv: float = 0.5, per_attack: bool = False
) -> str:
    """The table in LaTeX, for the package booktabs."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
    special |= {character: "\\" + character for character in "&%$#_{}"}
    written = {"A\\_w": "$A_w$", r"10\textasciicircum{}6": "$10^6$"}

    def escape(text: str) -> str:
        return "".join(special.get(character, character) for character in text)

    header, body, words = _lines(records, gamma_nat, gamma_adv, per_attack, escape, lambda text: rf"\textbf{{{text}}}")
    for plain, typeset in written.items():
        header = [title.replace(plain, typeset) for title in header]
    body = [[line[0], *(text.replace(" ± ", r" $\pm$ ").replace(MISSING, "--") for text in line[1:])] for line in body]
    lines = [" & ".join(line) + r" \\" for line in [header, *body]]
    columns = "l" * words + "r" * (len(header) - words)
    begin, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
    return "\n".join([begin, r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule", end]) + "\n"


def rich_table(
    records: Sequence[Record], *, gamma_nat: float = 0.5, gamma_adv: float = 0.5, per_attack: bool = False
) -> rich.table.Table:
    """The table for the terminal: `rich.print(rich_table(records))`."""
    import rich.box
    import rich.table
    from rich.markup import escape

    header, body, words = _lines(
        records, gamma_nat, gamma_adv, per_attack, escape, lambda text: f"[bold green]{text}[/]"
    )
    shown = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for i, title in enumerate(header):
        narrow = title.replace(" ", "\n").replace("-", "-\n")  # columns are many, and terminals 80 wide
        shown.add_column(
            narrow, justify="left" if i < words else "right", overflow="fold", min_width=14 if i == 0 else 4
        )
    for line in body:
        shown.add_row(*line)
    return shown
