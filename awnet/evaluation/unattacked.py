"""The parts that a record is made of: the model, the images and their clean verdicts first, then what an attack did."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from awnet.attacks.engine import Engine
from awnet.attacks.sweep import Outcome
from awnet.config import to_json
from awnet.data.dataset import Dataset
from awnet.evaluation.likeness import likeness
from awnet.evaluation.modulation import Omega, signals, summarise
from awnet.evaluation.record import Members, Record, Result, Samples
from awnet.evaluation.shared import Share
from awnet.models.model import fingerprint, parameter_count
from awnet.provenance import provenance
from awnet.threat_model import ThreatModel


def unattacked(
    model: nn.Module,
    dataset: Dataset,
    *,
    clean: Result,
    threat: ThreatModel,
    run: Mapping[str, Any],
    margins: list[float],
    label: str = "",
    front: str = "",
    about: Mapping[str, Any] | None = None,
    limit: int | None = None,
    part: str = "",
    planned: tuple[str, ...] = (),
    processes: int = 1,
) -> Record:
    """A record before its first attack.

    Args:
        model: what was given to be attacked.
        dataset: the examples that are attacked.
        clean: what the model says of them.
        threat: the threat model of all attacks.
        run: seed and engine.
        margins: by which the model is known again (`awnet.evaluation.likeness`).
        label, front: the record's row and group; the model's class by default.
        about: what to say of the model.
        limit: at most so many examples were asked for.
        part: how they were chosen from their split.
        planned: the names of the attacks to come.
        processes: how many evaluate.
    """
    return Record(
        label=label or type(model).__name__,
        front=front,
        model={
            "parameters": parameter_count(model),
            "class": type(model).__name__,
            "fingerprint": fingerprint(model),
            "margins": margins,
            **(about or {}),
        },
        data={
            "name": dataset.name,
            "split": dataset.split,
            "n": len(dataset),
            "limit": limit,
            "shape": list(dataset.shape),
            "fingerprint": dataset.fingerprint,
            **({"part": part} if part else {}),
        },
        classes=tuple(dataset.classes),
        threat={**to_json(threat), "text": str(threat)},
        run=dict(run),
        provenance={**provenance(), **({"processes": processes} if processes > 1 else {})},
        ids=dataset.ids.clone(),
        labels=dataset.labels.clone(),
        clean=clean,
        planned=planned,
    )


def whole(outcome: Outcome, model: nn.Module, engine: Engine, share: Share) -> tuple[Outcome, dict[str, Tensor]]:
    """The outcome of all examples, and a dynamic network's signals on what came out, from those of this process.

    The images are for the first process, which saves them.
    """
    seen = signals(model, outcome.x_adv, engine.batch_size)
    found = outcome._asdict()
    x_adv = share.at_first(found.pop("x_adv"))
    return Outcome(x_adv=x_adv, **share.joined(found)), share.joined(seen)


def result_of(
    outcome: Outcome,
    settings: dict[str, Any] | None,
    seconds: float,
    omega: dict[str, Omega],
    members: tuple[str, ...] = (),
) -> Result:
    """What a record keeps of an outcome.

    Args:
        outcome: of all examples.
        settings: the attack as JSON; None for the clean images.
        seconds: that it took.
        omega: what the model scaled its filters by.
        members: the names of a suite's attacks.
    """
    return Result(
        settings=settings,
        correct=outcome.correct,
        prediction=outcome.prediction,
        p_clean=outcome.p_clean,
        forwards=outcome.forwards,
        backwards=outcome.backwards,
        seconds=round(seconds, 3),
        omega=omega,
        members=Members(names=members, broken_by=outcome.broken_by, spent=outcome.spent) if members else None,
    )


def attacked_once(
    given: nn.Module,
    asked: nn.Module,
    dataset: Dataset,
    engine: Engine,
    *,
    name: str,
    outcome: Outcome,
    settings: dict[str, Any],
    seconds: float,
    members: tuple[str, ...],
    threat: ThreatModel,
    seed: int,
    samples: int,
    **said: Any,
) -> Record:
    """The record of one attack of many, as of a suite.

    Args:
        given, asked: the model, and what was attacked in its place.
        dataset: the examples.
        engine: that they were attacked by.
        name, outcome, settings, seconds, members: of the attack.
        threat, seed, said: as of `unattacked`.
        samples: how many images the record shows.
    """
    began = time.monotonic()
    unmoved, before = whole(engine.predict(asked, dataset), asked, engine, Share())
    clean = result_of(unmoved, None, time.monotonic() - began, summarise(before))
    run, margins = {"seed": seed, "engine": to_json(engine)}, likeness(asked, dataset)
    record = unattacked(given, dataset, clean=clean, threat=threat, run=run, margins=margins, planned=(name,), **said)
    outcome, after = whole(outcome, asked, engine, Share())
    result = result_of(outcome, settings, seconds, summarise(after, before), members)
    return sampled(replace(record, attacks={name: result}), name, dataset, outcome, samples)


def sampled(record: Record, name: str, dataset: Dataset, outcome: Outcome, count: int) -> Record:
    """The record with samples of an attack, unless those that it has are of a stronger one."""
    strongest = record.robust_accuracy(record.samples.attack).value if record.samples else 1.0
    chosen = _samples(name, dataset, outcome, record.clean, count)
    return replace(record, samples=chosen) if chosen and record.robust_accuracy(name).value <= strongest else record


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
