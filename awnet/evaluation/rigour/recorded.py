"""The attacks of a record as a trial can use them: as settings, and by what they did to the images that both have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from awnet.attacks.attack import Attack
from awnet.attacks.suite import Suite
from awnet.config import from_json
from awnet.errors import Mistake
from awnet.evaluation.rigour.check import Trial
from awnet.types import Hits


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
    return Shared(*matched(ids, record.ids))


def matched(ids: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Which of these ids are among those, by their places, and where; both of shape (k,)."""
    order = among.argsort(stable=True)
    place = torch.searchsorted(among[order], ids).clamp(max=len(order) - 1)
    rows = (among[order][place] == ids).nonzero()[:, 0]
    return rows, order[place[rows]]


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


def strongest(trial: Trial) -> Iterator[tuple[str, Attack, Hits]]:
    """The record's attacks and what withstood them, the strongest first; among those of a suite, whoever broke the most."""
    if trial.record is None:
        return
    results = trial.record.attacks
    found = sorted(reversed([*attacks_of(trial)]), key=lambda of: int(results[of[0]].correct.sum()))
    for result, attacks in found:  # among equals the last, as the weak ones are mostly named first
        members, broken = results[result].members, dict.fromkeys(attacks, 0)
        if members:
            broken |= {name: int((members.broken_by == place).sum()) for place, name in enumerate(members.names)}
        for member in sorted(attacks, key=lambda name: -broken[name]):
            attack = attacks[member]
            if isinstance(attack, Attack) and attack.threat == trial.threat and not attack.asks_another:
                yield named(result, member), attack, results[result].correct
