"""From a model, examples and attacks to a record."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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
from awnet.evaluation.shared import Share
from awnet.folders import alone, remove_folder
from awnet.interrupt import CtrlC, Interrupt
from awnet.json_file import read_json
from awnet.models.model import fingerprint, parameter_count
from awnet.provenance import provenance
from awnet.threat_model import ThreatModel

JOURNAL = "journal"  # the folder, inside the record's, of the attack under way; several processes have journal-0, ...


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    attacks: Mapping[str, Attack | Suite],
    *,
    threat: ThreatModel,
    engine: Engine | Callable[[nn.Module, Dataset], Engine] | None = None,
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

    Where torch.distributed connects several processes, all of which have to call this with the same arguments, each attacks
    its share of the examples (`awnet.evaluation.shared`), each returns the whole record, and the first one alone writes.

    Args:
        model: maps [0, 1] images to logits; left as it was.
        dataset: the examples.
        attacks: by name.
        threat: the threat model that the attacks share, for the record.
        engine: how they are run; or what chooses that, of the model as it is attacked and the examples of this process.
        seed: of their random numbers, and of the subset.
        limit: at most so many examples, chosen by the seed and stated in the record.
        label, front: the record's row and group.
        about: what to say of the model: checkpoint, selection, knob, history.
        samples: how many images to keep with what the strongest attack made of them.
        keep_adversarials: whether `out` also gets, for each example that an attack broke, the image that did it.
        progress: told the attack, in a suite also which member is at work, and how many examples it has finished, of
            those of this process.
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
    share = Share.here()
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
    part = share.of(dataset)
    engine = engine if isinstance(engine, Engine) else share.first(partial(engine or _usual, model, part))
    heard: list[str] = []  # what went otherwise than it was asked to

    def warn(sentence: str) -> None:
        heard.append(sentence)
        warnings.warn(sentence, RuntimeWarning, stacklevel=3)

    began = time.monotonic()
    outcome, before = _whole(engine.predict(model, part, warn=warn), model, engine, share)
    clean = _result(outcome, None, time.monotonic() - began, summarise(before))
    record = Record(
        label=label or type(given).__name__,
        front=front,
        model={
            "parameters": parameter_count(given),
            "class": type(given).__name__,
            "fingerprint": fingerprint(given),
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
        provenance={**provenance(), **({"processes": share.world} if share.world > 1 else {})},
        ids=dataset.ids.clone(),
        labels=dataset.labels.clone(),
        clean=clean,
        planned=tuple(attacks),
    )
    record = _remarked(record, remarks)
    with ExitStack() as held:
        if out:
            share.first(lambda: held.enter_context(alone(out)))
            record = share.first(lambda: _with_known(out, record, attacks, resume=resume))
        ctrl_c = held.enter_context(CtrlC()) if out else None
        strongest = record.robust_accuracy(record.samples.attack).value if record.samples else 1.0
        found = Adversarials.none(dataset.shape)
        if out and share.leads and keep_adversarials and record.adversarials:
            found = read_adversarials(out, record.adversarials).of(set(record.attacks))

        def keep(out: Path, record: Record, name: str, outcome: Outcome) -> str:
            """Save the record and, unless they are not wanted, the adversarial images, whose digest is returned."""
            nonlocal found
            found = found.joined(name, record.ids, outcome.x_adv, clean.correct & ~outcome.correct)
            digest = found.save(out, before=record.adversarials) if keep_adversarials else ""
            replace(record, adversarials=digest).save(out)
            forget_previous(out)
            for journal in _journals(out):
                remove_folder(journal)
            return digest

        for name, attack in attacks.items():
            if name in record.attacks:
                continue
            of = {**_identity(record), "attack": name, "settings": to_json(attack)}
            # without a folder nothing is ever due
            journal = _journal(out or Path(), of, save_seconds if out else inf, share)
            last: list[Sweep] = []

            def begin(member: int, attack: Attack | Suite = attack) -> Sweep:
                return engine.begin(attack, model, part, seed=seed, member=member)

            def watch(
                sweep: Sweep,
                name: str = name,
                attack: Attack | Suite = attack,
                journal: Journal = journal,
                last: list[Sweep] = last,
            ) -> None:
                last[:] = [sweep]
                at_work = f"{name}: {attack.names[int(sweep.member)]}" if isinstance(attack, Suite) else name
                progress(at_work, sweep.finished)
                if journal.due or (ctrl_c and ctrl_c.pressed):
                    journal.write(sweep)
                if ctrl_c and ctrl_c.pressed:
                    raise Interrupt(
                        f"stopped in {name} after {sweep.finished} images; saved in {out}; --resume goes on"
                    )

            # of no example, as the last processes may have, there is nothing to begin
            sweep = None if not len(part) else journal.recall(begin) if out and resume else begin(0)
            if clean.correct.any():
                outcome = engine.run(attack, model, part, seed=seed, sweep=sweep, watch=watch, warn=warn)
            else:  # nothing is left to break
                many = len(attack.names) if isinstance(attack, Suite) else 1
                outcome = engine.predict(model, part, members=many, warn=warn)
            if out and share.world > 1 and last:
                journal.write(last[0])  # the others may take long, and may be killed
            outcome, after = _whole(outcome, model, engine, share)
            members = attack.names if isinstance(attack, Suite) else ()
            result = _result(outcome, to_json(attack), journal.spent, summarise(after, before), members)
            chosen = _samples(name, dataset, outcome, clean, samples)
            record = replace(record, attacks={**record.attacks, name: result})
            record = _remarked(record, (sentence for each in share.told(heard) for sentence in each))
            if chosen and record.robust_accuracy(name).value <= strongest:
                strongest = record.robust_accuracy(name).value
                record = replace(record, samples=chosen)
            if out:
                record = replace(record, adversarials=share.first(partial(keep, out, record, name, outcome)))
        if out and not attacks:
            share.first(partial(record.save, out))
    return record


def batch_size_in(out: Path) -> int | None:
    """The batch size of the evaluation that a folder holds, finished or under way; None where none can be read there."""
    try:
        if (out / "record.json").exists():
            run = read_json(out / "record.json")["run"]
        else:
            run = read_json(_journals(out)[0] / "training.json")["state"]["of"]["seed or engine"]
        size = run["engine"]["batch_size"]
    except (Mistake, LookupError, TypeError):
        return None
    return size if isinstance(size, int) and size > 0 else None


def _usual(model: nn.Module, dataset: Dataset) -> Engine:
    return Engine()


def _whole(outcome: Outcome, model: nn.Module, engine: Engine, share: Share) -> tuple[Outcome, dict[str, Tensor]]:
    """The outcome of all examples, and a dynamic network's signals on what came out, from those of this process."""
    seen = signals(model, outcome.x_adv, engine.batch_size)
    return Outcome(**share.joined(outcome._asdict())), share.joined(seen)


def _journal(out: Path, of: dict[str, Any], seconds: float, share: Share) -> Journal:
    """Of this process; another number of processes has other shares, and goes on from none of it."""
    if share.world == 1:
        return Journal(out / JOURNAL, of, seconds)
    return Journal(out / f"{JOURNAL}-{share.rank}", {**of, "process": [share.rank, share.world]}, seconds)


def _journals(out: Path) -> list[Path]:
    """Those of all processes, the ones before where a process died in writing included."""
    return sorted(path for path in out.glob(f"{JOURNAL}*") if path.suffix != ".part")


def _remarked(record: Record, sentences: Iterable[str]) -> Record:
    """The record with remarks on the model, each once."""
    remarks = list(dict.fromkeys([*record.model.get("remarks", ()), *sentences]))
    return replace(record, model={**record.model, "remarks": remarks}) if remarks else record


def _with_known(out: Path, record: Record, attacks: Mapping[str, Attack | Suite], *, resume: bool) -> Record:
    """The record with what the one in `out` holds already.

    Raises:
        Mistake: that is the record of another evaluation, or of this one without `resume`.
    """
    if not (out / "record.json").exists():
        if not resume and _journals(out):
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
    record = _remarked(record, known.model.get("remarks", ()))
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
