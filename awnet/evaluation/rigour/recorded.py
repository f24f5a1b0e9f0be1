"""The attacks of a record as a trial can use them: as settings, and by what they did to the images that both have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from awnet.attacks.suite import Suite
from awnet.config import from_json
from awnet.errors import Mistake
from awnet.evaluation.rigour.check import Trial


class Shared(NamedTuple):
    """The images that a trial and its record have in common, by their places in each, both of shape (k,)."""

    trial: Tensor
    record: Tensor


def shared(trial: Trial) -> Shared:
    """Those of a trial's images that its record is of; none without a record."""
    none = torch.zeros(0, dtype=torch.int64)
    record, ids = trial.record, trial.examples.ids
    if record is None or not len(record):
        return Shared(none, none)
    order = record.ids.argsort(stable=True)
    place = torch.searchsorted(record.ids[order], ids).clamp(max=len(order) - 1)
    rows = (record.ids[order][place] == ids).nonzero()[:, 0]
    return Shared(rows, order[place[rows]])


def attacks_of(trial: Trial) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of each result of the record its name, and its attacks: the members of a suite by their names, any other by ""."""
    for name, result in trial.record.attacks.items() if trial.record else ():
        try:
            attack = from_json(result.settings)
        except Mistake:  # of a version to come
            continue
        yield name, dict(attack.members) if isinstance(attack, Suite) else {"": attack}


def named(result: str, member: str) -> str:
    """What an attack is called for people."""
    return f"{result}: {member}" if member else result
