"""Which records may be compared: measured on the same images, in the same threat model, by the same attacks; and which of
them differ by the seed of their training alone, so that their mean and deviation say something.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from awnet.evaluation.kinds import knows_the_router
from awnet.evaluation.record import Record

# What two trainings may differ in and still be the same training with another seed: teachers have seeds of their own.
OF_A_SEED = {"seed", "data_dir", "clean_teacher", "robust_teacher"}


def threat_text(record: Record) -> str:
    """The threat model in words, "" where the record does not say."""
    return str(record.threat.get("text") or "")


def seed(record: Record) -> Any:
    """The seed of the training where the record knows it, of the run otherwise; None where neither is known."""
    experiment = record.model.get("experiment")
    trained = experiment.get("seed") if isinstance(experiment, dict) else None
    return record.run.get("seed") if trained is None else trained


def attack_names(records: Sequence[Record]) -> list[str]:
    """Every attack that was run on any record, in order of first appearance."""
    return list(dict.fromkeys(name for record in records for name in record.attacks))


def missing_attacks(record: Record, records: Sequence[Record]) -> list[str]:
    """Attacks that others met and this one did not, though they apply: without a router there is none to know."""
    others = {name: one.attacks[name].settings for one in records for name in one.attacks if name not in record.attacks}
    return [name for name, how in others.items() if record.tells_type or not knows_the_router(name, how)]


def same_images(a: Record, b: Record) -> bool:
    """Whether two records judge the same images in the same order."""
    same_set = all(a.data.get(key) == b.data.get(key) for key in ("name", "split", "fingerprint"))
    return same_set and torch.equal(a.ids, b.ids) and torch.equal(a.labels, b.labels)


def same_settings(a: Record, b: Record, attack: str) -> bool:
    """Whether an attack that both met was the same one; True where a record does not say."""
    ours, theirs = (record.attacks[attack].settings for record in (a, b))
    return ours is None or theirs is None or ours == theirs


def same_attacks(a: Record, b: Record) -> bool:
    """Whether two records met the same attacks, as far as those apply to both, with the same settings."""
    both = [name for name in a.attacks if name in b.attacks]
    complete = not missing_attacks(a, [a, b]) and not missing_attacks(b, [a, b])
    return complete and all(same_settings(a, b, name) for name in both)


def alike(a: Record, b: Record) -> bool:
    """Whether the worst cases of two records are the same measure."""
    return threat_text(a) == threat_text(b) and same_images(a, b) and same_attacks(a, b)


def namesakes(records: Sequence[Record]) -> list[list[int]]:
    """Records that share a label and were measured alike, two or more each."""
    groups: list[list[int]] = []
    for i, record in enumerate(records):
        for group in groups:
            if records[group[0]].label == record.label and alike(records[group[0]], record):
                group.append(i)
                break
        else:
            groups.append([i])
    return [group for group in groups if len(group) > 1]


def repeated(records: Sequence[Record]) -> bool:
    """Whether all of these trainings are one and the same but for their seed, and none of them comes twice."""
    recipes = [_recipe([record.model.get("experiment"), record.model.get("knob")]) for record in records]
    seeds = [seed(record) for record in records]
    return all(recipe == recipes[0] for recipe in recipes) and len(set(map(str, seeds))) == len(seeds)


def seed_groups(records: Sequence[Record]) -> list[list[int]]:
    """Namesakes that differ by the seed of their training alone."""
    return [group for group in namesakes(records) if repeated([records[i] for i in group])]


def _recipe(value: Any) -> Any:
    """Settings without what belongs to a seed."""
    if isinstance(value, dict):
        return {key: _recipe(item) for key, item in value.items() if key not in OF_A_SEED}
    return [_recipe(item) for item in value] if isinstance(value, (list, tuple)) else value
