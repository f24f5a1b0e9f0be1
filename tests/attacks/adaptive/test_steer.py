"""Steer as a state machine, on models that decide; `tests/attacks/test_contracts.py` has what every attack must do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attacks.nets import lively
from attacks.test_contracts import agree, rows
from awnet.attacks import APGD, Engine, Steer, TensorExamples
from awnet.attacks.adaptive import expert_only, joint, orthogonal, router_only, selective, small, stay, warm
from awnet.attacks.attack import evaluate
from awnet.conformance.planted import BALL, Planted, planted_sample
from awnet.errors import Mistake
from awnet.losses import TargetedMargin
from awnet.models import AWNetConfig, ResNetConfig, RouterConfig, create
from awnet.noise import Noise
from awnet.threat_model import L1, L2, Linf

ALL = {
    "joint": joint(BALL, "clean"),
    "joint away": joint(BALL, "adversarial"),
    "stay": stay(BALL, "clean"),
    "selective": selective(BALL, "clean"),
    "orthogonal": orthogonal(BALL, "clean"),
    "warm": warm(BALL, "adversarial"),
    "small": small(BALL, 1 / 4),
    "router": router_only(BALL, "adversarial"),
    "expert": expert_only(BALL),
}
each = pytest.mark.parametrize("name", ALL)


def short(name: str, **changes) -> Steer:
    return replace(ALL[name], **{"steps": 4, "then": 4, "targets": 2, **changes})


def small_awnet(x: torch.Tensor) -> torch.nn.Module:
    """As if trained, for images like x of five classes."""
    narrow = ResNetConfig(depth=10, width=4)
    return lively(create(AWNetConfig(base=narrow, router=RouterConfig(backbone=narrow)), classes=5), x)


def same_in_any_batch(attack: Steer, model: torch.nn.Module, x: torch.Tensor) -> None:
    """The engine comes to what the definition says, and neighbours change no bit."""
    with torch.no_grad():
        y = model(x).argmax(1)
    ids = torch.arange(len(x)) + 40
    lockstep = attack(model, x, y, seed=2, ids=ids)
    outcome = Engine(batch_size=6, channels_last=False).run(attack, model, TensorExamples(x, y, ids), seed=2)
    assert torch.equal(outcome.x_adv, lockstep) and not torch.equal(lockstep, x)

    engine, kept = Engine(batch_size=4), torch.tensor([5, 2, 3])
    outcome = engine.run(attack, model, TensorExamples(x, y, ids), seed=1)
    agree(engine.run(attack, model, TensorExamples(x[kept], y[kept], ids[kept]), seed=1), rows(outcome, kept))


@each
def test_the_same_in_any_batch(name):
    same_in_any_batch(short(name), Planted("detached"), planted_sample(Planted("detached"), 6).x)


def test_the_same_in_any_batch_of_an_awnet():
    x = torch.rand(6, 3, 8, 8)
    same_in_any_batch(short("orthogonal", threat=Linf(1 / 255)), small_awnet(x), x)


@each
def test_is_done_when_it_has_had_its_queries(name):
    model, attack = Planted("detached"), short(name)
    given, noise = planted_sample(model, 5), Noise(0, torch.arange(5))
    forms = set()
    with torch.no_grad():
        state = attack.start(given.x, given.y, noise)
        for _ in range(attack.queries):
            assert not attack.done(state).any()
            query = attack.query(state)
            forms.add(tuple(query.forced.tolist()))
            assert BALL.contains(given.x, query.x).all() and BALL.contains(given.x, attack.adversarial(state)).all()
            state = attack.update(state, evaluate(model, query), noise)
        assert attack.done(state).all()
    assert forms == {(False,) * 5, (True,) * 5}, "the first leg, and the rest"


def test_the_first_leg_keeps_to_its_reach():
    model, attack = Planted("detached"), short("small")
    given, noise = planted_sample(model, 5), Noise(0, torch.arange(5))
    near, furthest = replace(BALL, eps=BALL.eps / 4), {True: 0.0, False: 0.0}
    with torch.no_grad():
        state = attack.start(given.x, given.y, noise)
        for _ in range(attack.queries):
            query = attack.query(state)
            first = bool(query.forced[0])
            furthest[first] = max(furthest[first], float(BALL.distance(given.x, query.x).max()))
            state = attack.update(state, evaluate(model, query), noise)
    assert abs(furthest[True] - near.eps) < 1e-6 and abs(furthest[False] - BALL.eps) < 1e-6


def test_the_second_leg_starts_where_the_first_was_best():
    """In a network whose loss is no plane, so that the point after the best is another."""
    x, y, noise = torch.rand(6, 3, 8, 8), torch.zeros(6, dtype=torch.int64), Noise(0, torch.arange(6))
    model, attack = small_awnet(x), warm(Linf(0.1), "adversarial")
    attack = replace(attack, steps=6, then=1, targets=1)
    asked, merits = [], []
    with torch.no_grad():
        state = attack.start(x, y, noise)
        for _ in range(1 + 7 + 1):
            query = attack.query(state)
            answer = evaluate(model, query)
            asked.append(query.x)
            merits.append(answer.loss)
            state = attack.update(state, answer, noise)
    best = torch.stack(merits[1:-1]).argmax(0)
    assert torch.equal(asked[-1], torch.stack(asked[1:-1])[best, torch.arange(6)])


def test_the_weight_of_the_push_is_searched():
    """Doubled where the decision has not been made by the end of a first leg, halved where it has."""
    model, attack = Planted("hard"), replace(joint(BALL, "clean"), steps=4, then=1, targets=1, stop_on_success=False)
    cleanest = (model.router.w > 0).float().view(1, 1, 6, 6)
    x = torch.cat([cleanest, cleanest, 1 - cleanest, 1 - cleanest])  # the last two are beyond repair
    noise = Noise(0, torch.arange(4))
    with torch.no_grad():
        state = attack.start(x, torch.zeros(4, dtype=torch.int64), noise)
        for _ in range(attack.queries):
            state = attack.update(state, evaluate(model, attack.query(state)), noise)
    assert state.weight.tolist() == [0.5, 0.5, 2.0, 2.0]


def test_a_model_that_does_not_decide_is_left_after_one_look():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3))
    x = torch.rand(4, 1, 6, 6)
    with torch.no_grad():
        y = model(x).argmax(1)
    outcome = Engine(batch_size=4).run(ALL["joint"], model, TensorExamples(x, y, torch.arange(4)))
    assert (
        torch.equal(outcome.x_adv, x) and outcome.forwards.tolist() == [2] * 4 and outcome.backwards.tolist() == [1] * 4
    )


@pytest.mark.parametrize("threat", [Linf(0.03), L2(0.4), L1(3.0)], ids=str)
def test_without_a_push_it_is_as_strong_as_targeted_apgd(threat):
    """In L1 too, where a step has to move many pixels at once."""
    x = torch.rand(48, 3, 8, 8)
    model = small_awnet(x)
    with torch.no_grad():
        y = model(x).argmax(1)
    given = TensorExamples(x, y, torch.arange(48))
    left = []
    for attack in (
        Steer(threat=threat, steps=20, then=20, targets=1),
        APGD(threat=threat, loss=TargetedMargin(), targets=1, steps=40),
    ):
        left.append(int(Engine(batch_size=48).run(attack, model, given).correct.sum()))
    assert left[0] <= left[1] + 3 and left[1] < 40, left


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5), L1(2.0)], ids=str)
def test_stays_in_the_threat_model(threat):
    model = Planted("honest")
    given = planted_sample(model, 20)
    for name in ("joint", "orthogonal", "small"):
        assert threat.contains(given.x, short(name, threat=threat)(model, given.x, given.y)).all()


@pytest.mark.parametrize("changes", [{"steps": 0}, {"then": 0}, {"targets": 0}, {"restarts": 0}, {"reach": 0.0}])
def test_settings_out_of_range(changes):
    with pytest.raises(Mistake, match="steering needs at least one step"):
        replace(ALL["joint"], **changes)


def test_the_end_of_each_leg_is_asked_in_float32():
    model, attack = Planted("detached"), replace(ALL["joint"], steps=8, then=4, targets=1)
    given, noise = planted_sample(model, 3), Noise(0, torch.arange(3))
    late = []
    with torch.no_grad():
        state = attack.start(given.x, given.y, noise)
        for _ in range(attack.queries):
            late.append(bool(attack.delicate(state).all()))
            state = attack.update(state, evaluate(model, attack.query(state)), noise)
    # the look at the image; of steps 0 to 8 and of steps 0 to 4 those beyond three quarters
    assert late == [False] + 7 * [False] + 2 * [True] + 4 * [False] + [True]
