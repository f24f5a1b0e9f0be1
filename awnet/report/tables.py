"""Records as a table: a row each, with the worst case as the headline and the trade-off of Eq. 23 beside it.

`table` computes every number once; the page, Markdown, LaTeX, CSV and the terminal only write them down.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, takewhile
from math import isfinite, isnan
from pathlib import Path, PurePath
from statistics import mean, stdev
from typing import TYPE_CHECKING

from awnet.errors import Mistake
from awnet.evaluation.metrics import Accuracy, check_weights, w_robust
from awnet.evaluation.record import Record
from awnet.folders import replace_file
from awnet.report.alike import (
    attack_names,
    same_attacks,
    same_images,
    same_settings,
    seed,
    seed_groups,
    threat_text,
)

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
        best: whether no other row that was measured alike has a higher one.
    """

    value: float
    low: float | None = None
    high: float | None = None
    deviation: float | None = None
    best: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """A record, or the mean over the trainings of a label with several seeds.

    Attributes:
        name: unlike the label, different for each row.
        series: rows of one front or label share this number, which gives their colour in figures.
        record: which record it is; None for a mean.
        of: the records that it is computed from.
        merged: whether it is part of a mean, which stands in its place.
        parameters: how many; None where nobody said.
        cells: one for each column.
    """

    name: str
    series: int
    record: int | None
    of: tuple[int, ...]
    merged: bool = False
    threat: str
    parameters: int | None
    cells: tuple[Cell, ...]

    @property
    def short(self) -> str:
        """The name without the threat model, for tables that have a column for it."""
        return self.name.replace(f", {self.threat}", "", 1) if self.threat else self.name


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows in the records' order; a mean takes the place of the first of its seeds, which follow it."""

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
    def main(self) -> tuple[Row, ...]:
        """The rows to show: means in place of their seeds."""
        return tuple(row for row in self.rows if not row.merged)

    @property
    def threats(self) -> tuple[str, ...]:
        """The different threat models, in the rows' order."""
        return tuple(dict.fromkeys(row.threat for row in self.rows))


def seed_text(record: Record) -> str:
    """What tells seeds of one label apart."""
    return "" if seed(record) is None else f"seed {seed(record)}"


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
    check_weights(gamma_nat, gamma_adv)
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

    group_of = {i: group for group in seed_groups(records) for i in group}
    titles, colours = names(records), series(records)
    rows: list[Row] = []

    def add(name: str, of: Sequence[int], *, merged: bool = False) -> None:
        each = [[measure(records[i], column) for column in columns] for i in of]
        cells = each[0] if len(of) == 1 else [_mean([one[k].value for one in each]) for k in range(len(columns))]
        taken = {row.name for row in rows}
        first = records[of[0]]
        row = Row(
            name=next(free for free in chain([name], (f"{name} #{k}" for k in count(2))) if free not in taken),
            series=colours[of[0]],
            record=of[0] if len(of) == 1 else None,
            of=tuple(of),
            merged=merged,
            threat=threat_text(first),
            parameters=first.model.get("parameters"),
            cells=tuple(cells),
        )
        rows.append(row)

    for i, record in enumerate(records):
        group = group_of.get(i, [i])
        if len(group) == 1:
            add(titles[i], group)
        elif i == group[0]:
            several = len({threat_text(other) for other in records if other.label == record.label}) > 1
            label = f"{record.label}, {threat_text(record)}" if several else record.label
            add(f"{label} (mean of {len(group)})", group)
            for member in group:
                add(titles[member], [member], merged=True)
    return Table(
        columns=tuple(columns),
        rows=tuple(_mark_best(records, rows, columns)),
        digits=2 if min(map(len, records)) >= MANY else 1,
        gamma_nat=gamma_nat,
        gamma_adv=gamma_adv,
    )


def _mean(values: list[float]) -> Cell:
    return Cell(mean(values), deviation=stdev(values)) if all(map(isfinite, values)) else Cell(float("nan"))


def _mark_best(records: Sequence[Record], rows: list[Row], columns: Sequence[Column]) -> list[Row]:
    """Marks the best of each column among the rows that were measured alike, where there is more than one."""
    marked = []
    for row in rows:
        cells = []
        for k, (column, cell) in enumerate(zip(columns, row.cells, strict=True)):
            rivals = [
                other.cells[k].value for other in rows if not other.merged and _rivals(records, row, other, column)
            ]
            measured = [value for value in rivals if not isnan(value)]
            best = not row.merged and len(measured) > 1 and cell.value == max(measured)
            cells.append(replace(cell, best=best))
        marked.append(replace(row, cells=tuple(cells)))
    return marked


def _rivals(records: Sequence[Record], row: Row, other: Row, column: Column) -> bool:
    """Whether a column's numbers of two rows are the same measure."""
    a, b = records[row.of[0]], records[other.of[0]]
    if row.threat != other.threat or not same_images(a, b):
        return False
    if column == CLEAN:
        return True
    if column.attack:
        return column.attack not in a.attacks or column.attack not in b.attacks or same_settings(a, b, column.attack)
    return same_attacks(a, b)


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
    for row in found.main:
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
    special |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}  # other signs in TeX's first fonts
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


def csv_table(
    records: Sequence[Record], *, gamma_nat: float = 0.5, gamma_adv: float = 0.5, per_attack: bool = False
) -> str:
    """The table for other programs: every row, seeds and their means, in percent, with intervals and unrounded enough.

    Beside each share stand the ends of its 95 % interval, and where there are means the deviation between seeds; a field
    is empty where it was not measured.
    """
    found = table(records, gamma_nat=gamma_nat, gamma_adv=gamma_adv, per_attack=per_attack)
    several = any(len(row.of) > 1 for row in found.rows)
    header, body = ["model", "threat", "parameters"], [[row.short, row.threat, row.parameters] for row in found.rows]
    for k, column in enumerate(found.columns):
        parts = {"": "value"} | ({} if column.weighed else {" low": "low", " high": "high"})
        parts |= {" deviation": "deviation"} if several else {}
        for suffix, part in parts.items():
            header.append(column.title + suffix)
            for line, row in zip(body, found.rows, strict=True):
                value = getattr(row.cells[k], part)
                line.append(None if value is None or isnan(value) else f"{100 * value:.4f}")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *body])
    return text.getvalue()


WRITERS: dict[str, Callable[..., str]] = {".md": markdown_table, ".tex": latex_table, ".csv": csv_table}


def check_ending(path: Path) -> None:
    """Refuse a name for a table that does not say which kind it is to be.

    Raises:
        Mistake: where it ends in none of .md, .tex and .csv.
    """
    if path.suffix not in WRITERS:
        raise Mistake(f"expected the name of a table to end in .md, .tex or .csv, got {path.name!r}")


def write_table(
    records: Sequence[Record],
    path: Path,
    *,
    gamma_nat: float = 0.5,
    gamma_adv: float = 0.5,
    per_attack: bool = False,
) -> Path:
    """The table as a file: Markdown, LaTeX or CSV, by how its name ends.

    Raises:
        Mistake: where it ends otherwise, there is no record, or the file cannot be written.
    """
    check_ending(path)
    text = WRITERS[path.suffix](records, gamma_nat=gamma_nat, gamma_adv=gamma_adv, per_attack=per_attack)
    replace_file(path, text)
    return path


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
        shown.add_row(*line[:words], *(text.replace(" ± ", "\n± ") for text in line[words:]))
    return shown
