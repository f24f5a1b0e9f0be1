"""From a model, examples and attacks to a record."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from awnet.attacks.attack import Attack
from awnet.attacks.engine import Engine
from awnet.attacks.square import Square
from awnet.attacks.suite import Suite
from awnet.attacks.sweep import Sweep
from awnet.config import to_json
from awnet.data.dataset import Dataset
from awnet.errors import Mistake
from awnet.evaluation.journal import Journal
from awnet.evaluation.keeping import Keeping
from awnet.evaluation.likeness import likeness
from awnet.evaluation.modulation import summarise, with_means
from awnet.evaluation.preflight import Cleared, preflight
from awnet.evaluation.progress import Pace, Progress
from awnet.evaluation.record import Record
from awnet.evaluation.shared import Share
from awnet.evaluation.unattacked import result_of, sampled, unattacked, whole
from awnet.interrupt import CtrlC, Interrupt
from awnet.threat_model import ThreatModel


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    attacks: Mapping[str, Attack | Suite],
    *,
    threat: ThreatModel,
    engine: Engine | Callable[[nn.Module, Dataset], Engine] | None = None,
    seed: int = 0,
    limit: int | None = None,
    part: str = "",
    label: str = "",
    front: str = "",
    about: Mapping[str, Any] | None = None,
    samples: int = 8,
    keep_adversarials: bool = True,
    progress: Callable[[Progress], None] = lambda progress: None,
    out: Path | None = None,
    resume: bool = False,
    save_seconds: float = 60.0,
    cleared: Cleared | None = None,
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
        part: how the examples were chosen from their split, where the caller did; the record and its report say it.
        label, front: the record's row and group.
        about: what to say of the model: checkpoint, selection, knob, history.
        samples: how many images to keep with what the strongest attack made of them.
        keep_adversarials: whether `out` also gets, for each example that an attack broke, the image that did it.
        progress: told after each turn of the engine how far the evaluation is.
        out: a folder for the record, saved after each attack, and meanwhile for where the attack is.
        resume: go on from what `out` holds: what was found there of the same network, examples and engine is not run
            again, and the record is the one of the uninterrupted evaluation.
        save_seconds: how much work a crash may cost; saving changes no result.
        cleared: what a look at the model found (`clear`), or `Cleared(model)` where it is known to be fit, as a checkpoint of
            ours is; None: it is looked at first (`awnet.evaluation.preflight`), and what is odd stands in the record as the
            model's "remarks".
        trust_range: whether that look lets a model pass that is more often right on images in another range than [0, 1].
        remark: told each of those sentences before the attacks begin.

    Raises:
        Mistake: `out` holds another evaluation, or this one without `resume`; or the model is not fit, or answers images
            with NaN or infinity.
        Interrupt: after Ctrl-C, once the state is saved in `out`.
    """
    if samples < 0:
        raise Mistake(f"a record keeps 0 or more sample images, got {samples}")
    if len(dataset) == 0:
        raise Mistake(f"there are no {dataset.split} images of {dataset.name} to evaluate on; choose another split")
    share = Share.here()
    limit = limit if limit is not None and limit < len(dataset) else None
    split = dataset
    if limit is not None:
        dataset = dataset.sample(limit, seed=seed)
    given = model
    if cleared is None:
        cleared = clear(model, dataset, attacks, trust_range=trust_range)
    model, remarks = with_means(cleared.model, split), cleared.remarks
    for sentence in remarks:
        remark(sentence)
    mine = share.of(dataset)
    heard: list[str] = []  # what went otherwise than it was asked to

    def warn(sentence: str) -> None:
        heard.append(sentence)
        warnings.warn(sentence, RuntimeWarning, stacklevel=3)

    engine = engine if isinstance(engine, Engine) else share.first(partial(engine or _usual, model, mine))
    engine = engine.suited(model, dataset, warn)
    began = time.monotonic()
    outcome, before = whole(engine.predict(model, mine, warn=warn), model, engine, share)
    clean = result_of(outcome, None, time.monotonic() - began, summarise(before))
    del outcome  # and the images with it: no more than one attack's are held at a time
    record = unattacked(
        given,
        dataset,
        clean=clean,
        threat=threat,
        run={"seed": seed, "engine": to_json(engine)},
        margins=likeness(model, dataset),
        label=label,
        front=front,
        about=about,
        limit=limit,
        part=part,
        planned=tuple(attacks),
        processes=share.world,
    ).remarked(remarks)
    keeping = Keeping(out, share, seconds=save_seconds, images=keep_adversarials)

    def attacked(record: Record, name: str, attack: Attack | Suite) -> Record:
        members = attack.names if isinstance(attack, Suite) else ()
        journal = keeping.journal(record, name, attack)
        stands = share.mine(record.worst)
        watch = _Watch(name, journal, ctrl_c, lambda sweep: progress(pace.now(name, sweep, stands)))
        if clean.correct.any():
            sweep = None
            if len(mine):  # of no example, as the last processes may have, there is nothing to begin
                begin = partial(_begin, engine, attack, model, mine, seed)
                sweep = journal.recall(begin) if out and resume else begin(0)
            outcome = engine.run(attack, model, mine, seed=seed, sweep=sweep, watch=watch, warn=warn)
        else:  # nothing is left to break
            outcome = engine.predict(model, mine, members=len(members) or 1, warn=warn)
        if out and share.world > 1 and watch.last:
            journal.write(watch.last)  # the others may take long, and may be killed
        outcome, after = whole(outcome, model, engine, share)
        result = result_of(outcome, to_json(attack), journal.spent, summarise(after, before), members)
        record = replace(record, attacks={**record.attacks, name: result})
        record = record.remarked(sentence for each in share.told(heard) for sentence in each)
        record = share.first(partial(sampled, record, name, dataset, outcome, samples))
        return keeping.save(record, name, outcome)

    with keeping.alone(), CtrlC() if out else nullcontext() as ctrl_c:
        record = keeping.known(record, attacks, resume=resume)
        missing = {name: attack for name, attack in attacks.items() if name not in record.attacks}
        pace = Pace(missing)
        for name, attack in missing.items():  # in a function, so that it lets go of its images before the next begins
            record = attacked(record, name, attack)
        if not attacks:
            keeping.save_unattacked(record)
    return record


def clear(
    model: nn.Module, dataset: Dataset, attacks: Mapping[str, Attack | Suite], *, trust_range: bool = False
) -> Cleared:
    """What a look at the model finds before these attacks on these images (`awnet.evaluation.preflight`)."""
    climbs = not all(isinstance(attack, Square) for attack in attacks.values())
    return preflight(model, dataset, classes=len(dataset.classes), trust_range=trust_range, gradients=climbs)


@dataclass
class _Watch:
    """Looks on at an attack: tells how far it is, writes the journal when that is due, and ends it after Ctrl-C."""

    name: str
    journal: Journal
    ctrl_c: CtrlC | None
    told: Callable[[Sweep], None]
    last: Sweep | None = None

    def __call__(self, sweep: Sweep) -> None:
        self.last = sweep
        self.told(sweep)
        pressed = self.ctrl_c is not None and self.ctrl_c.pressed
        if pressed or self.journal.due:
            self.journal.write(sweep)
        if pressed:
            where = self.journal.folder.parent
            raise Interrupt(f"stopped in {self.name} after {sweep.finished} images; saved in {where}; --resume goes on")


def _begin(engine: Engine, attack: Attack | Suite, model: nn.Module, part: Dataset, seed: int, member: int) -> Sweep:
    return engine.begin(attack, model, part, seed=seed, member=member)


def _usual(model: nn.Module, dataset: Dataset) -> Engine:
    return Engine()
