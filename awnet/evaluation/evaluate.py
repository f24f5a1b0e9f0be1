"""From a model, examples and attacks to a record."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from awnet.attacks.attack import Attack
from awnet.attacks.engine import Engine, Outcome
from awnet.config import to_json
from awnet.data.dataset import Dataset
from awnet.evaluation.record import Record, Result, Samples
from awnet.models.model import parameter_count
from awnet.provenance import provenance
from awnet.threat_model import ThreatModel


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    attacks: Mapping[str, Attack],
    *,
    threat: ThreatModel,
    engine: Engine | None = None,
    seed: int = 0,
    limit: int | None = None,
    label: str = "",
    front: str = "",
    about: Mapping[str, Any] | None = None,
    samples: int = 8,
    progress: Callable[[str, int], None] = lambda attack, finished: None,
    keep: Callable[[Record], None] = lambda record: None,
    known: Record | None = None,
) -> Record:
    """Attack every example with every attack.

    Args:
        model: maps [0, 1] images to logits; left as it was.
        dataset: the examples.
        attacks: by name.
        threat: the threat model that the attacks share, for the record.
        engine: how they are run.
        seed: of their random numbers, and of the subset.
        limit: at most so many examples, chosen by the seed and stated in the record.
        label, front: the record's row and group.
        about: what to say of the model: checkpoint, selection, knob, history.
        samples: how many images to keep with what the strongest attack made of them.
        progress: told the attack and how many examples it has finished.
        keep: given the record after each attack, to save it.
        known: an earlier record of the same evaluation, whose attacks are not run again; that of another is passed over.
    """
    engine = engine or Engine()
    limit = limit if limit is not None and limit < len(dataset) else None
    if limit is not None:
        dataset = dataset.sample(limit, seed=seed)
    began = time.perf_counter()
    clean = _result(engine.predict(model, dataset), None, began)
    record = Record(
        label=label or type(model).__name__,
        front=front,
        model={"parameters": parameter_count(model), "class": type(model).__name__, **(about or {})},
        data={
            "name": dataset.name,
            "split": dataset.split,
            "n": len(dataset),
            "limit": limit,
            "shape": list(dataset.shape),
            "fingerprint": dataset.fingerprint,
        },
        classes=tuple(dataset.classes),
        threat={**to_json(threat), "text": str(threat)},
        run={"seed": seed, "engine": to_json(engine)},
        provenance=provenance(),
        ids=dataset.ids.clone(),
        labels=dataset.labels.clone(),
        clean=clean,
    )
    strongest = 1.0
    if known and not _repeats(record, known):
        known = None
    for name, attack in attacks.items():
        if known and name in known.attacks and known.attacks[name].settings == to_json(attack):
            result, chosen = (
                known.attacks[name],
                known.samples if known.samples and known.samples.attack == name else None,
            )
        else:
            began = time.perf_counter()
            outcome = engine.run(attack, model, dataset, seed=seed, progress=lambda n, name=name: progress(name, n))
            result = _result(outcome, to_json(attack), began)
            chosen = _samples(name, dataset, outcome, clean, samples)
        record = replace(record, attacks={**record.attacks, name: result})
        if chosen and record.robust_accuracy(name).value <= strongest:
            strongest = record.robust_accuracy(name).value
            record = replace(record, samples=chosen)
        keep(record)
    return record


def _repeats(record: Record, known: Record) -> bool:
    """Whether an earlier record is of the same examples, seed and model, as far as its answers to clean images tell."""
    same = record.data == known.data and record.run == known.run
    return same and torch.equal(record.clean.prediction, known.clean.prediction)


def _result(outcome: Outcome, settings: dict[str, Any] | None, began: float) -> Result:
    return Result(
        settings=settings,
        correct=outcome.correct,
        prediction=outcome.prediction,
        p_clean=outcome.p_clean,
        forwards=outcome.forwards,
        backwards=outcome.backwards,
        seconds=round(time.perf_counter() - began, 3),
    )


def _samples(attack: str, dataset: Dataset, outcome: Outcome, clean: Result, count: int) -> Samples | None:
    """The first examples of as many classes as can be, broken ones before others."""
    broken = clean.correct & ~outcome.correct
    order = torch.cat([broken.nonzero()[:, 0], (clean.correct & outcome.correct).nonzero()[:, 0]])
    chosen: dict[int, int] = {}
    for position in order.tolist():
        chosen.setdefault(int(dataset.labels[position]), position)
    positions = torch.tensor(list(chosen.values())[:count], dtype=torch.int64)
    if len(positions) == 0:
        return None
    x, _ = dataset.batch(positions)
    return Samples(attack=attack, positions=positions, x=x, x_adv=outcome.x_adv[positions])
