"""Plain functions on models that route: the very results of the engine, no trace, and no silence where nothing routes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from attacks.adaptive.test_steer import small_awnet
from attacks.nets import small_net
from attacks.test_contracts import Mixed
from awnet.attacks import ATTACKS, Engine, Steer, TensorExamples, functions
from awnet.attacks import adaptive as of
from awnet.attacks.adaptive.paper import PaperAdaptive
from awnet.attacks.functions import (
    adaptive_paper,
    evade,
    expert_only,
    joint,
    orthogonal,
    router_only,
    selective,
    small,
    stay,
    warm,
)
from awnet.conformance.traces import traces
from awnet.errors import Mistake
from awnet.threat_model import L2, Linf

BALL = Linf(8 / 255)
SHORT = {"steps": 3, "then": 2, "targets": 2, "restarts": 2}
Function = Callable[..., Tensor]

WAYS: list[tuple[Function, dict[str, Any], Steer]] = [
    (joint, {}, of.joint(BALL, "clean")),
    (joint, {"side": "adversarial", "eps": 0.5, "norm": "L2"}, of.joint(L2(0.5), "adversarial")),
    (orthogonal, {}, of.orthogonal(BALL, "clean")),
    (orthogonal, {"side": "adversarial"}, of.orthogonal(BALL, "adversarial")),
    (selective, {}, of.selective(BALL, "clean")),
    (selective, {"side": "adversarial"}, of.selective(BALL, "adversarial")),
    (stay, {}, of.stay(BALL, "clean")),
    (stay, {"side": "adversarial"}, of.stay(BALL, "adversarial")),
    (warm, {"form": "half"}, of.warm(BALL, "half")),
    (warm, {"form": "still"}, of.warm(BALL, "still")),
    (small, {}, of.small(BALL, 1 / 2)),
    (small, {"reach": 1 / 4}, of.small(BALL, 1 / 4)),
    (expert_only, {}, of.expert_only(BALL)),
    (router_only, {}, of.router_only(BALL, "clean")),
    (router_only, {"side": "adversarial"}, of.router_only(BALL, "adversarial")),
    (evade, {}, of.evasions(BALL, 0.0)["evade-sum"]),
    (evade, {"way": "stay", "caught": -1.0}, of.evasions(BALL, -1.0)["evade-stay"]),
]
each = pytest.mark.parametrize(("function", "given", "attack"), WAYS, ids=[f"{f.__name__} {g}" for f, g, _ in WAYS])


@pytest.fixture
def x() -> Tensor:
    return torch.rand(5, 3, 8, 8)


@pytest.fixture
def model(x: Tensor) -> nn.Module:
    return small_awnet(x)


@pytest.fixture
def y(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1)


def engine(attack: Any, model: nn.Module, x: Tensor, y: Tensor, seed: int = 0) -> Tensor:
    return Engine(batch_size=len(x)).run(attack, model, TensorExamples(x, y, torch.arange(len(x))), seed=seed).x_adv


@each
def test_it_is_the_attack_and_every_setting_arrives(
    function: Function, given: dict[str, Any], attack: Steer, model: nn.Module, x: Tensor, y: Tensor
):
    short = replace(attack, **SHORT)
    x_adv = function(model, x, y, **given, **SHORT, seed=5)
    assert torch.equal(x_adv, engine(short, model, x, y, seed=5)) and not torch.equal(x_adv, x)


@each
def test_with_nothing_said_the_legs_are_the_attacks(
    function: Function,
    given: dict[str, Any],
    attack: Steer,
    monkeypatch: pytest.MonkeyPatch,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
):
    asked = []
    monkeypatch.setattr(functions.deciding, "run", lambda attack, *_, **more: asked.append((attack, more)) or x)
    function(model, x, y, **given, batch_size=3)
    assert asked == [(attack, {"seed": 0, "batch_size": 3})]


@pytest.mark.parametrize(
    ("given", "attack"),
    [
        ({}, ATTACKS["adaptive-paper"](BALL)),
        (
            {"steps": 3, "step_size": 0.3, "type_weight": 2.0, "eps": 0.5, "norm": "L2"},
            PaperAdaptive(threat=L2(0.5), steps=3, step_size=0.3, type_weight=2.0),
        ),
    ],
)
def test_the_papers_own_without_a_teacher(
    given: dict[str, Any], attack: PaperAdaptive, model: nn.Module, x: Tensor, y: Tensor
):
    assert torch.equal(adaptive_paper(model, x, y, **given, seed=3), engine(attack, model, x, y, seed=3))


@pytest.mark.parametrize(
    ("function", "given"),
    [
        *((function, SHORT) for function in (joint, orthogonal, selective, stay, small, expert_only, router_only, evade)),
        (warm, {**SHORT, "form": "clean"}),
        (adaptive_paper, {"steps": 2}),
    ],
)  # fmt: skip
def test_leaves_no_trace(function: Function, given: dict[str, Any]):
    torch.manual_seed(0)
    model, x, y = Mixed().train(), torch.rand(4, 3, 8, 8, requires_grad=True), torch.tensor([0, 1, 2, 3])
    model.body.eval()
    before, images = traces(model), x.detach().clone()
    x_adv = function(model, x, y, **given)
    assert traces(model) == before and torch.equal(x, images) and x.requires_grad and x.grad is None
    assert not x_adv.requires_grad and x_adv.data_ptr() != x.data_ptr()
    assert BALL.contains(images, x_adv).all()


def test_what_cannot_be_steered_is_told(monkeypatch: pytest.MonkeyPatch, model: nn.Module, x: Tensor, y: Tensor):
    """The images would come back as they are, and the model would look robust."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # types are checked in these tests, and by no user
    with pytest.raises(Mistake, match=r"a model that decides .*got Sequential, which cannot be steered; .*apgd"):
        joint(small_net(classes=5), x, y)
    with pytest.raises(Mistake, match=r"no form of this model is named 'haf'; did you mean half"):
        warm(model, x, y, form="haf")
    with pytest.raises(Mistake, match=r"expects push to be .*'clean'.*got 'left'"):
        joint(model, x, y, side="left")  # pyright: ignore[reportArgumentType]
    with pytest.raises(Mistake, match="no way to evade is named 'evade-sums'; did you mean evade-sum"):
        evade(model, x, y, way="sums")  # pyright: ignore[reportArgumentType]
