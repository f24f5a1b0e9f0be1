"""Our numbers beside the paper's, and its claims judged by paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import fmean, stdev

import torch
from torch import Tensor

from awnet.evaluation.metrics import Difference, mean_difference
from awnet.evaluation.record import Record
from awnet.reproduce.bench import Bench, battery
from awnet.reproduce.printed import Line, Table


@dataclass(frozen=True)
class Value:
    """A share in [0, 1] over one or several trainings."""

    mean: float
    deviation: float | None = None

    @staticmethod
    def of(values: Sequence[float]) -> Value:
        """The mean of several trainings, and how they scatter."""
        return Value(fmean(values), stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True, kw_only=True)
class Ours:
    """What was measured of one line.

    Attributes:
        line: the paper's.
        data: its data set.
        records: for each battery, those of the seeds that were run, from the first on.
    """

    line: Line
    data: str
    records: Mapping[str, Sequence[Record]]

    @property
    def parameters(self) -> int | None:
        """Of the network."""
        return next((records[0].model.get("parameters") for records in self.records.values()), None)

    def clean(self) -> Value | None:
        """A_nat, on the images of the battery that has most."""
        if not self.records:
            return None
        most = max(self.records.values(), key=lambda records: len(records[0]))
        return Value.of([record.clean_accuracy.value for record in most])

    def adversarial(self, attack: str) -> Value | None:
        """A_adv."""
        records = self.records.get(battery(attack))
        return Value.of([record.robust_accuracy(attack).value for record in records]) if records else None

    def weighed(self, attack: str) -> Value | None:
        """A_w (Eq. 23), of the clean and the attacked form of the same images."""
        each = self.each(attack)
        return Value.of([float(values.mean()) for values in each]) if each else None

    def each(self, attack: str) -> list[Tensor]:
        """A_w of every image, 0, 1/2 or 1, for each training."""
        records = self.records.get(battery(attack), ())
        return [(r.clean.correct.double() + r.attacks[attack].correct.double()) / 2 for r in records]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A table with our numbers, as far as they are there."""

    table: Table
    scale: str
    lines: Sequence[Ours]

    def of(self, system: str) -> Ours:
        """The line of a system."""
        return next(ours for ours in self.lines if ours.line.system == system)


def measured(bench: Bench, table: Table) -> Measured:
    """What is there of a table."""
    lines = []
    for line in table.lines:
        data = line.data or table.data
        found: dict[str, Sequence[Record]] = {}
        for name in dict.fromkeys(map(battery, table.attacks)):
            records = (bench.record(data, line.system, seed, name) for seed in bench.seeds(data, line.system))
            first = list(takewhile(lambda record: record is not None, records))
            if first:
                found[name] = [record for record in first if record is not None]
        lines.append(Ours(line=line, data=data, records=found))
    return Measured(table=table, scale=bench.scale.name, lines=lines)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A system is said to have a higher A_w than others under an attack.

    Attributes:
        system: its label.
        attack: under which.
        rival, printed: the best of the others in the paper, and by how many points the system is ahead there; None where it
            prints neither.
        our_rival, ours: the same here, paired by image; None where it was not run.
        waiting: how many of the others were not run here, any of which may turn out to be the best.
    """

    system: str
    attack: str
    rival: str
    printed: float | None
    our_rival: str
    ours: Difference | None
    waiting: int = 0

    @property
    def verdict(self) -> str:
        """Whether the claim holds here: whether A_w is distinguishably higher than that of all the others."""
        if self.ours is None:
            return "not run"
        if self.ours.distinguishable and self.ours.value < 0:
            return "does not hold"  # whoever else may be better still
        if self.waiting:
            return "not run"
        return "holds" if self.ours.distinguishable else "not distinguishable"


def claims(found: Measured) -> Iterator[Claim]:
    """The table's claims, attack by attack, each against the best of the rivals."""
    for system, rivals in found.table.claims:
        subject = found.of(system)
        others = [o for o in found.lines if o.line.system != system and (not rivals or o.line.system in rivals)]
        for attack in found.table.attacks:
            own = subject.line.a_w(attack)
            theirs = [(value, o.line.label) for o in others if (value := o.line.a_w(attack)) is not None]
            best = max(theirs, default=(float("nan"), ""))
            here = [(value.mean, k) for k, o in enumerate(others) if (value := o.weighed(attack)) is not None]
            gap, our_rival = None, ""
            if here and subject.each(attack):
                rival = others[max(here)[1]]
                _same_images(subject, rival, attack)
                gap, our_rival = mean_difference(subject.each(attack), rival.each(attack)), rival.line.label
            yield Claim(
                system=subject.line.label,
                attack=attack,
                rival=best[1],
                printed=None if own is None or not theirs else own - best[0],
                our_rival=our_rival,
                ours=gap,
                waiting=len(others) - len(here),
            )


def _same_images(a: Ours, b: Ours, attack: str) -> None:
    ids = [record.ids for ours in (a, b) for record in ours.records[battery(attack)]]
    assert all(torch.equal(ids[0], other) for other in ids), "rows of one table were attacked on different images"
