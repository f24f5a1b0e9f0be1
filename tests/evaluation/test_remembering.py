"""A job of many attacks goes on where it was interrupted, to the very same results, and runs nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from awnet.attacks import PGD, Engine, Suite, fgsm
from awnet.attacks.sweep import Outcome, Sweep
from awnet.errors import Mistake
from awnet.evaluation.remembering import Memory, Remembering, remembering
from awnet.models.model import fingerprint
from evaluation.test_evaluate import DATA, THREAT
from evaluation.test_evaluate import model as model  # the fixture
from training.tiny import own

ENGINE = Engine(batch_size=8)
PGD_6 = PGD(threat=THREAT, steps=6, stop_on_success=True)
JOB = (fgsm(THREAT), Suite(members=(("few", PGD(threat=THREAT, steps=2)), ("more", PGD_6))), PGD_6)


class Crash(Exception):
    """What ends a process in the middle of its work."""


def job(engine: Engine, model: nn.Module, watch: Callable[[Sweep], None] = lambda sweep: None) -> list[Outcome]:
    return [engine.run(attack, model, DATA, seed=place, watch=watch) for place, attack in enumerate(JOB)]


def crash_at(turn: int) -> Callable[[Sweep], None]:
    turns = iter(range(10**6))

    def watch(sweep: Sweep) -> None:
        if next(turns) == turn:
            raise Crash

    return watch


def same(ours: list[Outcome], theirs: list[Outcome]) -> bool:
    pairs = [pair for one, other in zip(ours, theirs, strict=True) for pair in zip(one, other, strict=True)]
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)


def turns_of(model: nn.Module) -> int:
    turns: list[Sweep] = []
    job(ENGINE, model, turns.append)
    return len(turns)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_what_was_interrupted_ends_as_what_was_not(part: float, model: nn.Module, tmp_path: Path):
    whole, turns = job(ENGINE, model), turns_of(model)
    with pytest.raises(Crash), remembering(ENGINE, tmp_path / "memory", resume=False, seconds=0) as engine:
        job(engine, model, crash_at(int(part * turns)))
    assert [*(tmp_path / "memory").iterdir()]
    asked: list[Sweep] = []
    with remembering(ENGINE, tmp_path / "memory", resume=True, seconds=0) as engine:
        assert same(job(engine, model, asked.append), whole)
    assert len(asked) <= turns - int(part * turns), "no turn is taken twice"
    assert not (tmp_path / "memory").exists(), "the job has its result"


def test_a_finished_run_is_not_made_again(model: nn.Module, tmp_path: Path):
    memory = Memory(tmp_path)
    engine = Remembering(batch_size=8, memory=memory)
    first = job(engine, model)
    again = Remembering(batch_size=8, memory=Memory(tmp_path))
    asked: list[Sweep] = []
    assert same(job(again, model, asked.append), first) and not asked
    assert again.memory.clock() > memory.clock() - 1, "what they took counts"


OTHERS: dict[str, Callable[[nn.Module], tuple[Any, ...]]] = {
    "network": lambda model: (PGD_6, own(5), DATA, 0),
    "attack": lambda model: (PGD(threat=THREAT, steps=5, stop_on_success=True), model, DATA, 0),
    "images": lambda model: (PGD_6, model, DATA.subset(torch.arange(len(DATA)).flip(0)), 0),
    "seed": lambda model: (PGD_6, model, DATA, 1),
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_is_kept_of_another_run_is_passed_over(other: str, model: nn.Module, tmp_path: Path):
    Remembering(batch_size=8, memory=Memory(tmp_path)).run(PGD_6, model, DATA)
    attack, network, images, seed = OTHERS[other](model)
    asked: list[Sweep] = []
    engine = Remembering(batch_size=8, memory=Memory(tmp_path))
    found = engine.run(attack, network, images, seed=seed, watch=asked.append)
    assert asked and same([found], [ENGINE.run(attack, network, images, seed=seed)])


def test_a_memory_is_not_begun_anew_without_a_word(model: nn.Module, tmp_path: Path):
    with pytest.raises(Crash), remembering(ENGINE, tmp_path / "memory", resume=False, seconds=0) as engine:
        job(engine, model, crash_at(3))
    before = fingerprint(model)
    with pytest.raises(Mistake, match="--resume goes on"), remembering(ENGINE, tmp_path / "memory", resume=False):
        pass
    assert [*(tmp_path / "memory").iterdir()] and fingerprint(model) == before


def test_a_mistake_before_the_first_run_leaves_nothing(tmp_path: Path):
    with pytest.raises(Mistake), remembering(ENGINE, tmp_path / "memory", resume=False):
        raise Mistake("no such attack")
    assert not (tmp_path / "memory").exists()


def test_a_damaged_memory_says_what_to_do(model: nn.Module, tmp_path: Path):
    Remembering(batch_size=8, memory=Memory(tmp_path)).run(PGD_6, model, DATA)
    (tmp_path / "0000" / "training.json").write_text("{")
    with pytest.raises(Mistake, match="0000"):
        Remembering(batch_size=8, memory=Memory(tmp_path)).run(PGD_6, model, DATA)
