"""An engine that remembers: a job of many attacks, interrupted, finds those that it has run and goes on in the one under way.

Some figures take many attacks: a rigour report, a detector's curves, a bound within a time. Such a job asks for the same runs
in the same order whenever it is begun, so that the n-th run can be known again by its place; that it is of the same network,
attack, seed and images is compared all the same. What is kept is dropped once the job has its result, unless it may be gone on
with.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from awnet.attacks.attack import Attack
from awnet.attacks.engine import Engine
from awnet.attacks.network import Warn, warn
from awnet.attacks.suite import Suite
from awnet.attacks.sweep import Examples, Outcome, Sweep
from awnet.checkpoint import read_state, save_state
from awnet.config import to_json
from awnet.errors import Mistake
from awnet.evaluation.journal import Journal
from awnet.evaluation.likeness import alike, likeness
from awnet.folders import alone, remove_folder, replace_folder, whole_folder
from awnet.interrupt import CtrlC, Interrupt
from awnet.models.model import fingerprint


class Memory:
    """The runs of one job, in the order in which it asks for them.

    Args:
        folder: where they are kept, each in a folder of its own.
        seconds: how much work a crash may cost.
        ctrl_c: stops the run under way once it is pressed.
        goes_on: whether the job had a result before, which no other job may take the place of.
    """

    def __init__(
        self, folder: Path, seconds: float = 60.0, ctrl_c: CtrlC | None = None, *, goes_on: bool = False
    ) -> None:
        self.folder, self._seconds, self._ctrl_c, self._goes_on = folder, seconds, ctrl_c, goes_on
        self.lasts = False  # beyond the result of the job, which may then be gone on with
        self._runs, self._earlier = 0, 0.0

    def clock(self) -> float:
        """Seconds that go on from where an interrupted job was: what its runs took then counts."""
        return time.monotonic() + self._earlier

    def run(self, of: dict[str, Any], begin: Callable[[int], Sweep], go: _Go) -> Outcome:
        """The next run: what came out of it before, or what comes out now.

        Args:
            of: what it is; what is kept of something else is passed over.
            begin: `Engine.begin` for a member of its suite.
            go: runs it, from a sweep, shown to a watch after each turn.

        Raises:
            Interrupt: Ctrl-C was pressed, and the run's state has been saved.
            Mistake: the job is to go on from its result, and that was another job's.
        """
        place, self._runs = self.folder / f"{self._runs:04}", self._runs + 1
        if (found := _recalled(place, of)) is not None:
            outcome, seconds = found
            self._earlier += seconds
            return outcome
        if self._goes_on and self._runs == 1:
            raise Mistake(f"{self.folder.parent} holds another evaluation; choose another --out")
        journal = Journal(self.folder / "journal", of, self._seconds)
        journal.of = _as_known(journal.folder, of)
        sweep = journal.recall(begin)
        self._earlier += journal.spent

        def watch(sweep: Sweep) -> None:
            pressed = self._ctrl_c is not None and self._ctrl_c.pressed
            if pressed or journal.due:
                journal.write(sweep)
            if pressed:
                raise Interrupt(f"stopped; what was found is kept in {self.folder}; --resume goes on")

        outcome = go(sweep, watch)
        replace_folder(
            place, lambda part: save_state(part, {"of": of, "seconds": journal.spent, "outcome": list(outcome)})
        )
        journal.close()
        return outcome


_Go = Callable[[Sweep, Callable[[Sweep], None]], Outcome]


@dataclass(frozen=True, kw_only=True)
class Remembering(Engine):
    """An engine whose runs are kept.

    Args:
        memory: of the job that asks for them.
    """

    memory: Memory

    def run(
        self,
        attack: Attack | Suite,
        model: nn.Module,
        examples: Examples,
        *,
        seed: int = 0,
        sweep: Sweep | None = None,
        watch: Callable[[Sweep], None] = lambda sweep: None,
        warn: Warn = warn,
    ) -> Outcome:
        plain = Engine(**{field.name: getattr(self, field.name) for field in fields(Engine)})
        if sweep is not None or not len(examples):
            return plain.run(attack, model, examples, seed=seed, sweep=sweep, watch=watch, warn=warn)
        suited = plain.suited(model, examples, warn)
        begin = partial(_begin, suited, attack, model, examples, seed)

        def go(sweep: Sweep, keep: Callable[[Sweep], None]) -> Outcome:
            def both(sweep: Sweep) -> None:
                keep(sweep)
                watch(sweep)

            return suited.run(attack, model, examples, seed=seed, sweep=sweep, watch=both, warn=warn)

        return self.memory.run(_what(suited, attack, model, examples, seed), begin, go)


@contextmanager
def remembering(
    engine: Engine, folder: Path, *, resume: bool, goes_on: bool = False, seconds: float = 60.0
) -> Iterator[Remembering]:
    """While it lasts, the engine with a memory, which ends with the job; an error or Ctrl-C leaves it there to be gone on with.

    Args:
        engine: how attacks are run.
        folder: of the memory; made, and held against other processes.
        resume: go on with what is there.
        goes_on: as of `Memory`.
        seconds: how much work a crash may cost.

    Raises:
        Mistake: there is a memory without `resume`, another process works with it, or it cannot be written.
    """
    if not resume and kept(folder):
        raise Mistake(f"{folder} holds what an interrupted run has found; --resume goes on, or remove it to begin anew")
    done = False
    try:
        with alone(folder), CtrlC() as ctrl_c:
            told = {field.name: getattr(engine, field.name) for field in fields(Engine)}
            memory = Memory(folder, seconds, ctrl_c, goes_on=goes_on)
            yield Remembering(memory=memory, **told)
        done = not memory.lasts
    finally:
        if done or not kept(folder):
            remove_folder(folder)


def kept(folder: Path) -> bool:
    """Whether runs are kept there, or the journal of one."""
    return any(folder.glob("[0-9j]*"))


def _begin(engine: Engine, attack: Attack | Suite, model: nn.Module, examples: Examples, seed: int, at: int) -> Sweep:
    return engine.begin(attack, model, examples, seed=seed, member=at)


MARGINS = "margins"


def _what(engine: Engine, attack: Attack | Suite, model: nn.Module, examples: Examples, seed: int) -> dict[str, Any]:
    """What a run is, as JSON."""
    digest = hashlib.sha256()
    for part in torch.arange(len(examples)).split(1024):
        for t in (*examples.batch(part), examples.ids[part]):
            digest.update(t.cpu().contiguous().numpy().tobytes())
    return {
        "network": fingerprint(model),
        MARGINS: likeness(model, examples),
        "attack": to_json(attack),
        "engine": to_json(engine),
        "seed": seed,
        "images": digest.hexdigest(),
    }


def _recalled(place: Path, of: dict[str, Any]) -> tuple[Outcome, float] | None:
    """What came out of a run, and the seconds that it took; None where that is not known of this one."""
    if not (whole_folder(place) / "training.json").exists():
        return None
    state = read_state(place)
    try:
        return (Outcome(*state["outcome"]), float(state["seconds"])) if _same(state["of"], of) else None
    except (KeyError, TypeError, ValueError) as error:
        raise Mistake(f"{place} is damaged ({error}); remove it, and its run is made anew") from None


def _as_known(folder: Path, of: dict[str, Any]) -> dict[str, Any]:
    """What a journal says that it is of, where that is the same but for rounding."""
    if not (whole_folder(folder) / "training.json").exists():
        return of
    known = read_state(folder).get("of")
    return known if isinstance(known, dict) and _same(known, of) else of


def _same(known: dict[str, Any], of: dict[str, Any]) -> bool:
    ours, theirs = ({name: value for name, value in one.items() if name != MARGINS} for one in (of, known))
    return ours == theirs and alike(of[MARGINS], known.get(MARGINS, []))
