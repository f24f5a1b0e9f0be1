"""A suite is gone on with until more of it finds nothing, and the record says whether that was so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from awnet.attacks import APGD, Engine, Suite
from awnet.attacks.adaptive.suite import doubled
from awnet.errors import Mistake
from awnet.evaluation import Record
from awnet.evaluation.metrics import accuracy
from awnet.evaluation.settled import NAME, Round, rounds, settle, settled
from awnet.evaluation.verify import verify
from awnet.noise import fold
from evaluation.test_evaluate import DATA, THREAT
from evaluation.test_evaluate import model as model  # the fixture

ENGINE = Engine(batch_size=8)
SUITE = Suite(members=(("one", APGD(threat=THREAT, steps=1)), ("two", APGD(threat=THREAT, steps=2))))


def plan(told: list[tuple[float, set[str]]], count: int) -> list[tuple[str, tuple[str, ...], bool]]:
    """The first rounds, if each after the suite gains what is told."""
    gains = iter(told)
    chosen = rounds(SUITE, lambda: next(gains))
    return [(name, suite.names, whole) for name, suite, whole in (next(chosen) for _ in range(count))]


def test_what_finds_something_gets_four_times_its_runs_until_nothing_is_found():
    found = plan([(0.1, {"two"}), (0.05, {"two"}), (0.001, {"two"}), (0.01, {"one"})], 6)
    assert found == [
        ("suite", ("one", "two"), False),
        ("twice", ("one twice", "two twice"), True),
        ("4 times", ("two x4",), False),
        ("16 times", ("two x16",), False),
        ("twice again", ("one twice", "two twice"), True),
        ("4 times", ("one x4",), False),
    ]


def test_it_ends_with_a_doubling_that_finds_nothing(model: nn.Module):
    told: list[Round] = []
    found = settle(model, DATA, SUITE, engine=ENGINE, watch=told.append)
    assert found.done and tuple(told) == found.rounds and found.rounds[-1].name.startswith("twice")
    assert not found.rounds[-1].broken_by, "of 21 images, 0.2 points is none"
    lefts = [one.left.value for one in found.rounds]
    assert lefts == sorted(lefts, reverse=True) and lefts[-1] < lefts[0], "the suite by itself was not enough"
    assert not (settle(model, DATA, SUITE, engine=ENGINE, most=2).done), "and that is told"


def test_each_image_is_of_the_attack_that_broke_it(model: nn.Module):
    found = settle(model, DATA, SUITE, engine=ENGINE)
    first = ENGINE.run(SUITE, model, DATA, seed=fold(0, 0))
    stands = first.correct.nonzero()[:, 0]
    second = ENGINE.run(doubled(SUITE), model, DATA.subset(stands), seed=fold(0, 1))
    assert torch.equal(found.outcome.broken_by[~first.correct], first.broken_by[~first.correct])
    broken = stands[~second.correct]
    assert len(broken) and torch.equal(found.outcome.broken_by[broken], 2 + second.broken_by[~second.correct])
    assert torch.equal(found.outcome.x_adv[broken], second.x_adv[~second.correct])
    assert len(set(found.names)) == len(found.names) == found.outcome.spent.shape[1]
    passes = found.outcome.forwards + found.outcome.backwards
    assert int(passes.sum()) >= int(found.outcome.spent.sum()), "each round looks at the images first"
    assert accuracy(found.outcome.correct) == found.rounds[-1].left


def test_the_record_says_what_each_round_left(model: nn.Module, tmp_path: Path):
    record = settled(model, DATA, SUITE, threat=THREAT, out=tmp_path / "record", engine=ENGINE)
    result = Record.load(tmp_path / "record").attacks[NAME]
    assert result.settings and result.settings["settled"] is True
    assert result.settings["rounds"][-1]["left"] == record.worst_accuracy.value
    assert all(check.passed for check in verify(tmp_path / "record", model, DATA).checks)
    with pytest.raises(Mistake, match="holds a record already"):
        settled(model, DATA, SUITE, threat=THREAT, out=tmp_path / "record", engine=ENGINE)


class Crash(Exception):
    """What ends a process in the middle of its work."""


def test_an_interrupted_one_goes_on(model: nn.Module, tmp_path: Path):
    def stop(one: Round) -> None:
        if one.name != "suite":
            raise Crash

    more = {"threat": THREAT, "engine": ENGINE}
    whole = settled(model, DATA, SUITE, out=tmp_path / "whole", **more)
    with pytest.raises(Crash):
        settled(model, DATA, SUITE, out=tmp_path / "record", watch=stop, **more)
    resumed = settled(model, DATA, SUITE, out=tmp_path / "record", resume=True, **more)
    ours, theirs = resumed.attacks[NAME], whole.attacks[NAME]
    assert ours.settings == theirs.settings and torch.equal(ours.forwards, theirs.forwards)
    assert resumed.adversarials == whole.adversarials


def test_one_of_too_few_rounds_goes_on(model: nn.Module, tmp_path: Path):
    more = {"threat": THREAT, "engine": ENGINE}
    whole = settled(model, DATA, SUITE, out=tmp_path / "whole", **more)
    out, told = tmp_path / "record", []
    few = settled(model, DATA, SUITE, out=out, most=2, **more)
    with pytest.raises(Mistake, match="has not settled; --resume goes on"):
        settled(model, DATA, SUITE, out=out, **more)
    for other, seed in ((model, 1), (torch.nn.Sequential(model, torch.nn.Softplus()), 0)):
        with pytest.raises(Mistake, match="holds another evaluation"):
            settled(other, DATA, SUITE, out=out, resume=True, seed=seed, **more)
    assert Record.load(out).attacks[NAME].settings == few.attacks[NAME].settings, "a refusal loses nothing"
    gone_on = settled(model, DATA, SUITE, out=out, resume=True, turn=lambda sweep: told.append(sweep), **more)
    ours, theirs = gone_on.attacks[NAME], whole.attacks[NAME]
    assert few.attacks[NAME].settings["settled"] is False and ours.settings == theirs.settings
    assert torch.equal(ours.forwards, theirs.forwards) and gone_on.adversarials == whole.adversarials
    assert all(check.passed for check in verify(out, model, DATA).checks)
    again: list[object] = []
    settled(model, DATA, SUITE, out=tmp_path / "again", turn=again.append, **more)
    assert 0 < len(told) < len(again), "the first two rounds are not run again"
    with pytest.raises(Mistake, match="holds a record already"):
        settled(model, DATA, SUITE, out=out, resume=True, **more)


def test_bad_input(model: nn.Module):
    with pytest.raises(Mistake, match="no images"):
        settle(model, DATA.subset(torch.arange(0)), SUITE, engine=ENGINE)
    with pytest.raises(Mistake, match="2 or more rounds, got 1"):
        settle(model, DATA, SUITE, engine=ENGINE, most=1)
