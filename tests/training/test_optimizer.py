"""SGD by hand, its groups, and every schedule at the places that matter."""

from __future__ import annotations

from itertools import pairwise
from math import cos, pi

import pytest
import torch
from torch import nn

from awnet.config import from_json, to_json
from awnet.errors import Mistake
from awnet.models import create
from awnet.training.optimizer import Constant, OneCycle, Schedule, SGDConfig, StepDecay
from training.tiny import CLASSES, DYNAMIC, NARROW, own


def test_awnet_has_two_groups():
    model = create(DYNAMIC, classes=CLASSES, channels=1)
    optimizer = SGDConfig().build(model)
    dynamic, router = ({id(p) for p in group["params"]} for group in optimizer.param_groups)
    for name, p in model.named_parameters():
        assert (id(p) in router) == name.startswith("router."), name
        assert (id(p) in dynamic) == (not name.startswith("router.")), name
    # 5.1 of the paper: 0.1 and 0.01, one momentum and weight decay
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.01]
    assert [group["base_lr"] for group in optimizer.param_groups] == [0.1, 0.01]
    assert {(g["momentum"], g["weight_decay"], g["nesterov"]) for g in optimizer.param_groups} == {(0.9, 2e-4, False)}


class Mixture(nn.Module):
    """Somebody's mixture of experts, whose own router is not AW-Net's."""

    def __init__(self) -> None:
        super().__init__()
        self.experts, self.router = nn.Linear(4, 4), nn.Linear(4, 2)


@pytest.mark.parametrize(
    "model", [create(NARROW, classes=CLASSES), own(), Mixture()], ids=["static", "own", "own with a router"]
)
def test_other_networks_have_one_group(model):
    (group,) = SGDConfig(lr=0.3).build(model).param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in model.parameters()}
    assert group["lr"] == group["base_lr"] == 0.3


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_by_hand(nesterov):
    """v <- m v + g + wd w;  w <- w - lr v, or w - lr (g + wd w + m v) with Nesterov's correction."""
    model = nn.Linear(2, 1, bias=False).double()
    optimizer = SGDConfig(lr=0.1, momentum=0.8, weight_decay=0.01, nesterov=nesterov).build(model)
    w, v = model.weight.detach().clone(), torch.zeros(1, 2, dtype=torch.float64)
    for step in range(3):
        g = torch.tensor([[1.0, -2.0 * step]], dtype=torch.float64)
        model.weight.grad = g.clone()
        optimizer.step()
        v = 0.8 * v + (g + 0.01 * w)
        w = w - 0.1 * ((g + 0.01 * w) + 0.8 * v if nesterov else v)
        torch.testing.assert_close(model.weight.detach(), w, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("lr", "router_lr"), [(0.0, 0.01), (0.1, -1.0), (float("nan"), 0.1)])
def test_rates_are_positive(lr, router_lr):
    with pytest.raises(Mistake, match="learning rates must be positive"):
        SGDConfig(lr=lr, router_lr=router_lr)


# --- schedules ---


def by_epoch(schedule: Schedule, epochs: int, steps: int = 4) -> dict[int, set[float]]:
    """The factors of each epoch, counted from 1, as the loop asks for them."""
    found: dict[int, set[float]] = {}
    for count in range(epochs * steps):
        epoch = count // steps
        found.setdefault(epoch + 1, set()).add(round(schedule.factor(count / (epochs * steps), epoch / epochs), 12))
    return found


@pytest.mark.parametrize(
    ("milestones", "epochs", "drops"),
    [
        ((0.74, 0.89), 100, (75, 90)),  # "at the 75-th, and 90-th epoch": 1-74, 75-89, 90-100
        ((0.48, 0.78), 50, (25, 40)),  # Tiny-ImageNet
        ((215 / 300, 260 / 300, 285 / 300), 300, (216, 261, 286)),  # MTARD drops after its epochs
        ((0.74, 0.89), 7, (7, 8)),
    ],
)
def test_step_decay_at_its_milestones(milestones, epochs, drops):
    for epoch, factors in by_epoch(StepDecay(milestones=milestones), epochs).items():
        assert factors == {round(0.1 ** sum(epoch >= drop for drop in drops), 12)}, epoch


def test_the_papers_schedule_is_the_default():
    factors = by_epoch(StepDecay(), 100)
    assert {min(factors[e]) for e in range(1, 75)} == {1.0}
    assert {min(factors[e]) for e in range(75, 90)} == {0.1}
    assert {min(factors[e]) for e in range(90, 101)} == {0.01}


def test_step_decay_by_another_factor():
    assert by_epoch(StepDecay(milestones=(0.5,), gamma=0.3), 2) == {1: {1.0}, 2: {0.3}}


def test_one_cycle_rises_and_falls_along_cosines():
    schedule = OneCycle(warm_up=0.25, start=0.04)
    assert schedule.factor(0, 0) == pytest.approx(0.04)
    assert schedule.factor(0.125, 0) == pytest.approx((0.04 + 1) / 2)  # half-way up
    assert schedule.factor(0.25, 0) == pytest.approx(1)
    assert schedule.factor(0.625, 0) == pytest.approx(0.5)  # half-way down
    assert schedule.factor(1 - 1e-9, 0) == pytest.approx(0, abs=1e-12)
    way = [schedule.factor(i / 1000, 0) for i in range(1000)]
    assert way[:251] == sorted(way[:251]) and way[250:] == sorted(way[250:], reverse=True)
    assert max(abs(a - b) for a, b in pairwise(way)) < 0.007, "no jumps"
    assert way[400] == pytest.approx((1 + cos(pi * 0.15 / 0.75)) / 2)


@pytest.mark.parametrize("warm_up", [0.0, 1.0])
def test_one_cycle_with_half_a_cycle(warm_up):
    factors = [OneCycle(warm_up=warm_up).factor(i / 10, 0) for i in range(10)]
    assert factors == sorted(factors, reverse=warm_up == 0)
    assert all(0 < f <= 1 for f in factors)


def test_constant():
    assert by_epoch(Constant(), 3) == {1: {1.0}, 2: {1.0}, 3: {1.0}}


@pytest.mark.parametrize("settings", [SGDConfig(lr=0.5), StepDecay(milestones=(0.1,)), OneCycle(), Constant()])
def test_settings_come_back_from_json(settings):
    assert from_json(to_json(settings)) == settings
