"""The adaptive suite, gone on with until it has settled: until twice as much of everything finds next to nothing more.

A number that more of the same lowers is not yet one. After the suite comes the same with twice the steps and twice the runs,
on who still stands. Where that finds something, whatever found it is given four times its runs, and again, until that finds no
more; then all of it doubled, with other random numbers, has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from awnet.attacks.adaptive.suite import doubled, insisting
from awnet.attacks.engine import Engine
from awnet.attacks.suite import Suite
from awnet.attacks.sweep import Outcome, Sweep
from awnet.config import to_json
from awnet.data.dataset import Dataset
from awnet.errors import Mistake
from awnet.evaluation.keeping import Keeping
from awnet.evaluation.metrics import Accuracy, accuracy
from awnet.evaluation.preflight import Cleared
from awnet.evaluation.record import Record
from awnet.evaluation.remembering import kept, remembering
from awnet.evaluation.shared import Share
from awnet.evaluation.unattacked import attacked_once
from awnet.noise import fold
from awnet.threat_model import ThreatModel

FINISHED = 0.002  # a suite is, where doubling it takes fewer points (0.2)
GROWTH = 4  # of the runs of what still finds something, from one round to the next
NAME = "adaptive, settled"


class Round(NamedTuple):
    """What one round did.

    Attributes:
        name: of it.
        left: the robust accuracy after it.
        broken_by: how many images each of its attacks broke, those that broke any.
    """

    name: str
    left: Accuracy
    broken_by: dict[str, int]


def rounds(suite: Suite, gained: Callable[[], tuple[float, set[str]]]) -> Iterator[tuple[str, Suite, bool]]:
    """The rounds, each chosen by what the one before it found; without end.

    Args:
        suite: the first of them.
        gained: asked after each, by how much it lowered the accuracy, and the attacks of the suite that did.

    Yields:
        A round's name, its attacks, and whether the whole suite is doubled: such a round that gains nothing is the last word.
    """
    yield "suite", suite, False
    times = 0
    yield "twice", doubled(suite), True
    while True:
        gain, fruitful = gained()
        if gain >= FINISHED and fruitful:
            times = GROWTH * max(times, 1)
            yield f"{times} times", insisting(suite, fruitful, times), False
        else:
            times = 0
            yield "twice again", doubled(suite), True


class Settled(NamedTuple):
    """Where it ended.

    Attributes:
        rounds: one after the other.
        outcome: of all images, as of one suite of all that was run.
        names: of its attacks.
        suites: the attacks of each round.
        done: whether the last word was that there is nothing more to be found.
    """

    rounds: tuple[Round, ...]
    outcome: Outcome
    names: tuple[str, ...]
    suites: tuple[Suite, ...]
    done: bool


def settle(
    model: nn.Module,
    dataset: Dataset,
    suite: Suite,
    *,
    engine: Engine,
    seed: int = 0,
    most: int = 12,
    watch: Callable[[Round], None] = lambda round: None,
    turn: Callable[[Sweep], None] = lambda sweep: None,
) -> Settled:
    """Attack until it has settled.

    Args:
        model: maps [0, 1] images to logits; left as it was.
        dataset: the examples.
        suite: of attacks that can be doubled (`awnet.attacks.adaptive.suite.doubled`).
        engine: how they are run.
        seed: of the random numbers; each round has others.
        most: the number of rounds after which it ends in any case.
        watch: told of each round.
        turn: shown the sweep after each turn of the engine.

    Raises:
        Mistake: there is no image, or there are fewer than 2 rounds.
    """
    if len(dataset) == 0:
        raise Mistake("there are no images to attack")
    if most < 2:
        raise Mistake(f"whether it has settled shows in 2 or more rounds, got {most}")
    found: Outcome | None = None
    told: list[Round] = []
    suites: list[Suite] = []
    gain, done = 0.0, False
    plan = rounds(suite, lambda: (gain, {name.split(" ")[0] for name in told[-1].broken_by}))
    for place, (name, attacks, whole) in enumerate(plan):
        stands = torch.arange(len(dataset)) if found is None else found.correct.nonzero()[:, 0]
        before = len(stands)
        outcome = engine.run(attacks, model, dataset.subset(stands), seed=fold(seed, place), watch=turn)
        offset = sum(len(earlier.members) for earlier in suites)
        broken = {member: int((outcome.broken_by == i).sum()) for i, member in enumerate(attacks.names)}
        found = outcome if found is None else _joined(found, outcome, stands, offset)
        suites.append(attacks)
        told.append(Round(name, accuracy(found.correct), {member: n for member, n in broken.items() if n}))
        watch(told[-1])
        gain = (before - int(found.correct.sum())) / len(dataset)
        done = not found.correct.any() or (place > 0 and whole and gain < FINISHED)
        if done or place + 1 == most:
            break
    assert found is not None
    names = tuple(name for attacks in suites for name in attacks.names)
    return Settled(tuple(told), found, _distinct(names), tuple(suites), bool(done))


def _joined(found: Outcome, more: Outcome, at: torch.Tensor, offset: int) -> Outcome:
    """What is known of all after one more round on some."""
    spent = torch.zeros(len(found.correct), more.spent.shape[1], 2, dtype=found.spent.dtype)
    spent[at] = more.spent
    joined = {"spent": torch.cat([found.spent, spent], dim=1)}
    for name in ("x_adv", "prediction", "correct", "p_clean"):
        joined[name] = getattr(found, name).index_copy(0, at, getattr(more, name))
    for name in ("forwards", "backwards"):
        joined[name] = getattr(found, name).index_add(0, at, getattr(more, name))
    broken_by = torch.where(more.broken_by >= 0, more.broken_by + offset, more.broken_by)
    return Outcome(**joined, broken_by=found.broken_by.index_copy(0, at, broken_by))


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, those that come again with a number."""
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
    again = dict.fromkeys(seen, 0)
    told = []
    for name in names:
        again[name] += 1
        told.append(name if again[name] == 1 else f"{name}, {again[name]}")
    return tuple(told)


def settled(
    model: nn.Module,
    dataset: Dataset,
    suite: Suite,
    *,
    threat: ThreatModel,
    out: Path,
    engine: Engine | None = None,
    seed: int = 0,
    most: int = 12,
    resume: bool = False,
    samples: int = 8,
    keep_adversarials: bool = True,
    cleared: Cleared | None = None,
    watch: Callable[[Round], None] = lambda round: None,
    turn: Callable[[Sweep], None] = lambda sweep: None,
    **said: Any,
) -> Record:
    """`settle`, and a record of it: one attack, whose settings tell what each round left and whether it has settled.

    Where it has not, `under-way` stays beside the record: it can be gone on with.

    Args:
        model, dataset, suite, seed, most, watch, turn: as of `settle`.
        threat: the threat model of the suite.
        out: the record's folder.
        engine: how attacks are run.
        resume: go on from where an interrupted run of the same in `out` was, or one of too few rounds.
        samples, keep_adversarials: as of `awnet.evaluation.evaluate`.
        cleared: what a look at the model found.
        said: label, front, about, limit and part, as of `unattacked`.

    Raises:
        Mistake: as `settle` does, or `out` holds a record or the beginning of one that is not to be gone on with.
    """
    memory, had = out / "under-way", (out / "record.json").exists()
    if had and not kept(memory):
        raise Mistake(f"{out} holds a record already; choose another --out")
    if had and not resume:
        raise Mistake(f"{out} holds a record that has not settled; --resume goes on, or choose another --out")
    asked, remarks = cleared or Cleared(model)
    engine = (engine or Engine()).suited(asked, dataset)
    keeping = Keeping(out, Share(), seconds=60.0, images=keep_adversarials)
    with keeping.alone(), remembering(engine, memory, resume=resume, goes_on=had) as remembers:
        began = remembers.memory.clock()  # to which what an interrupted run took is added
        found = settle(asked, dataset, suite, engine=remembers, seed=seed, most=most, watch=watch, turn=turn)
        remembers.memory.lasts = not found.done
        settings = {
            "kind": "Settled",
            "settled": found.done,
            "rounds": [
                {"name": one.name, "left": one.left.value, "broken by": one.broken_by, "attacks": to_json(attacks)}
                for one, attacks in zip(found.rounds, found.suites, strict=True)
            ],
        }
        record = attacked_once(
            model,
            asked,
            dataset,
            engine,
            name=NAME,
            outcome=found.outcome,
            settings=settings,
            seconds=remembers.memory.clock() - began,
            members=found.names,
            threat=threat,
            seed=seed,
            samples=samples,
            **said,
        )
        return keeping.save(record.remarked(remarks), NAME, found.outcome)
