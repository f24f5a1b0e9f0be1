"""From a model, examples and attacks to a record."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import nn

from awnet.attacks.attack import Attack
from awnet.attacks.engine import Engine, Outcome, Sweep
from awnet.attacks.square import Square
from awnet.attacks.suite import Suite
from awnet.config import to_json
from awnet.data.dataset import Dataset
from awnet.errors import Mistake
from awnet.evaluation.adversarials import Adversarials, forget_previous, read_adversarials
from awnet.evaluation.journal import Journal
from awnet.evaluation.modulation import Omega, signals, summarise
from awnet.evaluation.preflight import preflight
from awnet.evaluation.record import Members, Record, Result, Samples
from awnet.folders import alone, whole_folder
from awnet.interrupt import CtrlC, Interrupt
from awnet.models.model import fingerprint, parameter_count
from awnet.provenance import provenance
from awnet.threat_model import ThreatModel

JOURNAL = "journal"  # the folder, inside the record's, of the attack under way


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    attacks: Mapping[str, Attack | Suite],
    *,
    threat: ThreatModel,
    engine: Engine | None = None,
    seed: int = 0,
    limit: int | None = None,
    label: str = "",
    front: str = "",
    about: Mapping[str, Any] | None = None,
    samples: int = 8,
    keep_adversarials: bool = True,
    progress: Callable[[str, int], None] = lambda attack, finished: None,
    out: Path | None = None,
    resume: bool = False,
    save_seconds: float = 60.0,
    checked: bool = False,
    trust_range: bool = False,
    remark: Callable[[str], None] = lambda sentence: None,
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
        keep_adversarials: whether `out` also gets, for each example that an attack broke, the image that did it.
        progress: told the attack, in a suite also which member is at work, and how many examples it has finished.
        out: a folder for the record, saved after each attack, and meanwhile for where the attack is.
        resume: go on from what `out` holds: what was found there of the same network, examples and engine is not run
            again, and the record is the one of the uninterrupted evaluation.
        save_seconds: how much work a crash may cost; saving changes no result.
        checked: whether the model is known to be fit, as a checkpoint of ours is; any other is looked at first
            (`awnet.evaluation.preflight`), and what is odd stands in the record as the model's "remarks".
        trust_range: whether that look lets a model pass that is more often right on images in another range than [0, 1].
        remark: told each of those sentences before the attacks begin.

    Raises:
        Mistake: `out` holds another evaluation, or this one without `resume`.
        Interrupt: after Ctrl-C, once the state is saved in `out`.
    """
    if samples < 0:
        raise Mistake(f"a record keeps 0 or more sample images, got {samples}")
    if len(dataset) == 0:
        raise Mistake(f"there are no {dataset.split} images of {dataset.name} to evaluate on; choose another split")
    engine = engine or Engine()
    limit = limit if limit is not None and limit < len(dataset) else None
    if limit is not None:
        dataset = dataset.sample(limit, seed=seed)
    given, remarks = model, ()
    if not checked:
        climbs = not all(isinstance(attack, Square) for attack in attacks.values())
        model, remarks = preflight(
            model, dataset, classes=len(dataset.classes), trust_range=trust_range, gradients=climbs
        )
    for sentence in remarks:
        remark(sentence)
    began = time.monotonic()
    outcome = engine.predict(model, dataset)
    before = signals(model, outcome.x_adv, engine.batch_size)
    clean = _result(outcome, None, time.monotonic() - began, summarise(before))
    record = Record(
        label=label or type(given).__name__,
        front=front,
        model={
            "parameters": parameter_count(given),
            "class": type(given).__name__,
            "fingerprint": fingerprint(given),
            **({"remarks": list(remarks)} if remarks else {}),
            **(about or {}),
        },
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
        planned=tuple(attacks),
    )
    with alone(out) if out else nullcontext(), CtrlC() if out else nullcontext() as ctrl_c:
        record = _with_known(out, record, attacks, resume=resume) if out else record
        strongest = record.robust_accuracy(record.samples.attack).value if record.samples else 1.0
        found = Adversarials.none(dataset.shape)
        if out and keep_adversarials and record.adversarials:
            found = read_adversarials(out, record.adversarials).of(set(record.attacks))
        for name, attack in attacks.items():
            if name in record.attacks:
                continue
            # without a folder nothing is ever due
            of = {**_identity(record), "attack": name, "settings": to_json(attack)}
            journal = Journal((out or Path()) / JOURNAL, of, save_seconds if out else inf)

            def begin(member: int, attack: Attack | Suite = attack) -> Sweep:
                return engine.begin(attack, model, dataset, seed=seed, member=member)

            def watch(
                sweep: Sweep, name: str = name, attack: Attack | Suite = attack, journal: Journal = journal
            ) -> None:
                at_work = f"{name}: {attack.names[int(sweep.member)]}" if isinstance(attack, Suite) else name
                progress(at_work, sweep.finished)
                if journal.due or (ctrl_c and ctrl_c.pressed):
                    journal.write(sweep)
                if ctrl_c and ctrl_c.pressed:
                    raise Interrupt(
                        f"stopped in {name} after {sweep.finished} images; saved in {out}; --resume goes on"
                    )

            sweep = journal.recall(begin) if out and resume else begin(0)
            if clean.correct.any():
                outcome = engine.run(attack, model, dataset, seed=seed, sweep=sweep, watch=watch)
            else:  # nothing is left to break
                many = len(attack.names) if isinstance(attack, Suite) else 1
                outcome = engine.predict(model, dataset, members=many)
            omega = summarise(signals(model, outcome.x_adv, engine.batch_size), before)
            members = attack.names if isinstance(attack, Suite) else ()
            result = _result(outcome, to_json(attack), journal.spent, omega, members)
            chosen = _samples(name, dataset, outcome, clean, samples)
            record = replace(record, attacks={**record.attacks, name: result})
            if chosen and record.robust_accuracy(name).value <= strongest:
                strongest = record.robust_accuracy(name).value
                record = replace(record, samples=chosen)
            if out:
                found = found.joined(name, record.ids, outcome.x_adv, clean.correct & ~outcome.correct)
                digest = found.save(out, before=record.adversarials) if keep_adversarials else ""
                record = replace(record, adversarials=digest)
                record.save(out)
                forget_previous(out)
                journal.close()
        if out and not attacks:
            record.save(out)
    return record


def _with_known(out: Path, record: Record, attacks: Mapping[str, Attack | Suite], *, resume: bool) -> Record:
    """The record with what the one in `out` holds already.

    Raises:
        Mistake: that is the record of another evaluation, or of this one without `resume`.
    """
    if not (out / "record.json").exists():
        if not resume and whole_folder(out / JOURNAL).exists():
            raise Mistake(f"{out} holds an evaluation under way; --resume goes on, or choose another --out")
        return record
    known = Record.load(out)
    ours, theirs = _identity(record), _identity(known)
    other = [name for name in ours if ours[name] != theirs[name]]
    if other:
        raise Mistake(f"{out} holds another evaluation ({' and '.join(other)} differ); choose another --out")
    if not resume:
        raise Mistake(f"{out} holds this evaluation already; --resume adds what is missing, or choose another --out")
    asked = {name: to_json(attack) for name, attack in attacks.items()}
    kept = {name: found for name, found in known.attacks.items() if asked.get(name, found.settings) == found.settings}
    samples = known.samples if known.samples and known.samples.attack in kept else None
    rigour = known.rigour if kept.keys() == known.attacks.keys() and asked.keys() <= kept.keys() else ()
    return replace(record, attacks=kept, samples=samples, adversarials=known.adversarials, rigour=rigour)


def _identity(record: Record) -> dict[str, Any]:
    """What has to be the same for results to stand in one record."""
    model = {name: record.model.get(name) for name in ("class", "fingerprint", "knob")}
    return {"network": model, "images": record.data, "threat model": record.threat, "seed or engine": record.run}


def _result(
    outcome: Outcome,
    settings: dict[str, Any] | None,
    seconds: float,
    omega: dict[str, Omega],
    members: tuple[str, ...] = (),
) -> Result:
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
