"""The bound falls as time goes by, counts what it costs, and with time enough is what the attacks leave."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from awnet.attacks import PGD, Engine, fgsm
from awnet.errors import Mistake
from awnet.evaluation.anytime import Anytime, anytime, ladder, seconds_of
from awnet.evaluation.metrics import accuracy
from awnet.noise import fold, permutation
from awnet.threat_model import Linf
from evaluation.test_evaluate import DATA, THREAT
from evaluation.test_evaluate import model as model  # the fixture

RUNGS = {"one step": fgsm(THREAT), "five": PGD(threat=THREAT, steps=5), "twenty": PGD(threat=THREAT, steps=20)}
ENGINE = Engine(batch_size=8)


def ticks() -> Callable[[], float]:
    """A clock that goes on by one whenever it is looked at."""
    now = iter(range(10**6))
    return lambda: float(next(now))


def bounded(model: nn.Module, seconds: float, **more: object) -> Anytime:
    return anytime(
        model, DATA, THREAT, **{"seconds": seconds, "attacks": RUNGS, "engine": ENGINE, "clock": ticks(), **more}
    )


def test_with_time_enough_it_is_the_worst_case(model: nn.Module):
    found = bounded(model, 1e5, seed=3)
    order = permutation(fold(3, 0), len(DATA))
    assert torch.equal(found.ids, DATA.ids[order]) and found.attacks == tuple(RUNGS)
    stands = ENGINE.predict(model, DATA).correct
    broken_by = torch.full((len(DATA),), -1)
    for rung, attack in enumerate(RUNGS.values()):
        outcome = ENGINE.run(attack, model, DATA, seed=fold(3, rung + 1))
        broken_by[stands & ~outcome.correct] = rung
        stands = stands & outcome.correct
    assert torch.equal(found.stands, stands[order]) and torch.equal(found.broken_by, broken_by[order])
    assert found.bound == accuracy(stands[order]) == found.curve[-1].accuracy
    assert set(broken_by.tolist()) >= {-1, 0} and 0 < found.bound.value < 1
    assert (found.met[found.stands] == 3).all()


def test_it_costs_what_it_says(model: nn.Module):
    found = bounded(model, 1e5)
    cost = {0: 3, 1: 3 + 11, 2: 3 + 11 + 41}  # steps forwards and backwards, and the verdict
    clean = ENGINE.predict(model, DATA.subset(permutation(fold(0, 0), len(DATA)))).correct
    expected = len(DATA) + sum(
        cost[2 if rung < 0 else rung] for rung, right in zip(found.broken_by.tolist(), clean, strict=True) if right
    )
    assert found.curve[-1].passes == expected


def test_it_falls_and_never_rises_once_all_images_are_there(model: nn.Module):
    found = bounded(model, 1e5)
    whole = [point.accuracy.value for point in found.curve if point.accuracy.n == len(DATA)]
    assert whole == sorted(whole, reverse=True) and whole[-1] < whole[0]
    assert [point.passes for point in found.curve] == sorted(point.passes for point in found.curve)


def test_less_time_is_a_part_of_more(model: nn.Module):
    whole = bounded(model, 1e5)
    for seconds in (0.5, 3, 7, 12, 20, 40, 80):
        part = bounded(model, seconds)
        m = len(part.ids)
        assert m >= 8 and torch.equal(part.ids, whole.ids[:m])
        assert not (whole.stands[:m] & ~part.stands).any(), "a bound from above"
        same = [(p.passes, p.accuracy) for p in part.curve]
        assert same == [(p.passes, p.accuracy) for p in whole.curve][: len(same)]
        assert part.curve[-2 if len(part.curve) > 1 else -1].seconds <= seconds + 1
    assert len(bounded(model, 0.5).ids) == 8, "the first images at any rate"


def test_images_and_seed_choose_the_sample(model: nn.Module):
    few = bounded(model, 1e5, images=5)
    assert len(few.ids) == 5 and torch.equal(few.ids, bounded(model, 1e5).ids[:5])
    assert not torch.equal(bounded(model, 1e5, seed=1).ids, bounded(model, 1e5).ids)


def test_every_point_is_told(model: nn.Module):
    told = []
    assert tuple(told) != bounded(model, 1e5, watch=told.append).curve == tuple(told)
    assert [point.attack for point in told][:3] == ["", "", ""] and told[-1].attack in RUNGS


def test_a_model_without_answers_has_no_bound(model: nn.Module):
    class Blank(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return model(x) * torch.nan

    with pytest.raises(Mistake, match="answers 8 of 8 images with NaN"):
        bounded(Blank(), 1e5)


def test_the_ladder_rises():
    rungs = list(ladder(Linf(0.1)).values())
    assert all(rung.threat == Linf(0.1) for rung in rungs)
    costs = [getattr(rung, "queries", 0) for rung in rungs]
    assert costs == sorted(costs)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), (" 2m ", 120)])
def test_a_time(text: str, seconds: float):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "-1m", "0s", "10 min", "1e3s", "infs"])
def test_no_time(text: str):
    with pytest.raises(Mistake, match="such as 90s, 10m"):
        seconds_of(text)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_no_time_at_all_is_a_mistake(seconds: float, model: nn.Module):
    with pytest.raises(Mistake, match="must be positive"):
        bounded(model, seconds)
    with pytest.raises(Mistake, match="at least one image"):
        bounded(model, 1, images=0)
