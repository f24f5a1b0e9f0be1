"""APGD: its schedule against the rules of the paper in plain loops, its targets, and the worst case on linear networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attacks.conftest import Trained
from attacks.nets import Linear, lively, small_net
from awnet.attacks import APGD, PGD, Attack, Engine, TensorExamples
from awnet.attacks.apgd import APGDState
from awnet.attacks.attack import evaluate
from awnet.attacks.sparse_climb import SparseClimb
from awnet.errors import Mistake
from awnet.losses import DLR, CrossEntropy, Margin, TargetedDLR, TargetedMargin
from awnet.noise import Noise
from awnet.threat_model import L1, L2, Linf, ThreatModel

EPS = Linf(0.12)  # PGD-20 finds about 60 % of the digits


def trace(attack: APGD, model: nn.Module, x: Tensor, y: Tensor) -> list[tuple[APGDState, Tensor]]:
    """Every state of a run with the losses of its answer."""
    noise = Noise(0, torch.arange(len(x)))
    states = []
    with torch.no_grad():
        state = attack.start(x, y, noise)
        while not attack.done(state).all():
            answer = evaluate(model, attack.query(state))
            assert answer.loss is not None
            states.append((state, answer.loss))
            state = attack.update(state, answer, noise)
    return states


def checkpoints(steps: int) -> list[int]:
    """Where the state machine has them, read from a run on a linear network."""
    model, x = Linear(torch.randn(2, 1, 4, 4)), torch.rand(1, 1, 4, 4)
    states = trace(APGD(threat=EPS, steps=steps, stop_on_success=False), model, x, torch.tensor([0]))
    return sorted({int(state.climb.next) for state, _ in states})


def test_the_checkpoints_are_those_of_the_paper():
    assert checkpoints(100)[:8] == [22, 41, 57, 70, 80, 87, 93, 99]  # 22 %, then 3 % less each, at least 6 %
    assert checkpoints(30)[:4] == [6, 11, 15, 18]  # 22 % of 30 is 6.6, 6 % are 1.8 and 3 % are 0.9, which counts as 1


def test_the_step_is_halved_example_by_example(digits: Trained):
    attack = APGD(threat=EPS, loss=Margin(), steps=40, stop_on_success=False)
    states = trace(attack, digits.model, digits.x[:12], digits.y[:12])[1:]
    assert len(states) == 41
    sizes = torch.stack([state.climb.size for state, _ in states])
    losses = torch.stack([loss for _, loss in states])
    points = torch.stack([state.climb.now for state, _ in states])
    halved = sizes[1:] < sizes[:-1]
    assert (sizes[0] == torch.tensor(2 * EPS.eps)).all() and (sizes[1:][halved] == sizes[:-1][halved] / 2).all()
    assert sizes[-1].unique().numel() > 1, "all examples halved together"
    # conditions 1 and 2 of section 3.1, in plain loops
    for i in range(12):
        last, halved_last, best_last = 0, True, float(losses[0, i])
        for w in [w for w in checkpoints(40) if w < 40]:
            rises = sum(float(losses[k, i]) > float(losses[k - 1, i]) for k in range(last + 1, w + 1))
            best = float(losses[: w + 1, i].max())
            expected = rises <= 0.75 * (w - last) or (not halved_last and best == best_last)
            assert bool(halved[w, i]) == expected, (i, w)
            if expected:  # it goes on from the best point, with the last iterate in its momentum
                z = points[int(losses[: w + 1, i].argmax()), i]
                away = (points[w + 1, i] - z).abs().max()
                assert away <= 0.75 * float(sizes[w + 1, i]) + 0.25 * 2 * EPS.eps + 1e-6
            last, halved_last, best_last = w, expected, best


def test_a_step_has_momentum():
    """x <- P(x + a (z - x) + (1 - a) (x - x_before)) with z = P(x + size sign(g)), and a = 1 at first, then 3/4."""
    model = lively(small_net(classes=5), torch.rand(8, 3, 8, 8))
    x, y = 0.4 + 0.2 * torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
    attack = APGD(threat=Linf(0.05), steps=20, stop_on_success=False)
    states = [state.climb for state, _ in trace(attack, model, x, y)[1:4]]
    for k, a in ((0, 1.0), (1, 0.75)):
        now, size = states[k].now, 0.1
        probe = now.clone().requires_grad_()
        (g,) = torch.autograd.grad(CrossEntropy()(model(probe), y).sum(), probe)
        z = (now + size * g.sign()).clamp(x - 0.05, x + 0.05)
        expected = now + a * (z - now) + (1 - a) * (now - states[max(k - 1, 0)].now)
        torch.testing.assert_close(states[k + 1].now, expected.clamp(x - 0.05, x + 0.05), rtol=0, atol=1e-6)


def test_it_starts_at_distance_eps():
    x, y = 0.3 + 0.4 * torch.rand(50, 3, 8, 8), torch.zeros(50, dtype=torch.int64)
    for threat, radius in ((Linf(0.1), 0.1), (L2(0.5), 0.5), (L1(3.0), 9.0)):  # in L1 of the largest ball
        state = APGD(threat=threat).start(x, y, Noise(0, torch.arange(50)))
        length = threat.distance(x, state.climb.now)
        torch.testing.assert_close(length, torch.full((50,), radius), rtol=1e-4, atol=0)


def test_the_answer_is_the_best_point_of_all_runs(digits: Trained):
    attack = APGD(threat=EPS, loss=TargetedMargin(), targets=2, restarts=2, steps=10, stop_on_success=False)
    x, y = digits.x[:12], digits.y[:12]
    states = trace(attack, digits.model, x, y)
    with torch.no_grad():
        asked = [attack.query(state).x for state, _ in states]
        margins = torch.stack([Margin()(digits.model(point), y) for point in asked])
        answer = attack(digits.model, x, y)
        torch.testing.assert_close(Margin()(digits.model(answer), y), margins.amax(0), rtol=1e-4, atol=1e-4)
    # targets come one after another, the two runners-up of the clean image, each twice
    order = digits.model(x).detach().sort(dim=1, descending=True).indices
    assert torch.equal(asked[0], x)
    for state, loss in states[1:]:
        assert torch.equal(state.targets, order[:, 1:3])
        with torch.no_grad():
            z = digits.model(state.climb.now)
        aim = order[:, 1 + int(state.run[0]) // 2]
        torch.testing.assert_close(loss, z[torch.arange(12), aim] - z[torch.arange(12), y])
    assert [int(state.run[0]) for state, _ in states] == [-1] + [run for run in range(4) for _ in range(11)]
    assert len(states) == attack.queries == 45
    starts = [state.climb.now for state, _ in states[1:] if int(state.climb.step[0]) == 0]
    assert len(starts) == 4 and not any(torch.equal(starts[0], start) for start in starts[1:]), "each run its own start"


@pytest.mark.parametrize("threat", [Linf(0.05), L2(0.5)], ids=str)
@pytest.mark.parametrize("loss", [CrossEntropy(), DLR()], ids=str)
def test_the_worst_case_on_a_linear_network(threat: ThreatModel, loss: Any):
    model = Linear(0.1 * torch.randn(2, 3, 8, 8))
    x, y = 0.3 + 0.4 * torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])
    w = (model.w[1 - y] - model.w[y]).detach()
    attack = APGD(threat=threat, loss=loss, steps=60, stop_on_success=False)
    expected = x + threat.eps * threat.ascend(w)
    torch.testing.assert_close(attack(model, x, y), expected, rtol=0, atol=1e-4)


def test_the_worst_case_in_l1_on_a_linear_network():
    """The budget goes to the steepest pixels, each up to the edge of the box: a knapsack whose items may be cut."""
    model = Linear(0.1 * torch.randn(2, 3, 8, 8))
    x, y = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])
    w = (model.w[1 - y] - model.w[y]).detach().flatten(1)
    flat, eps = x.flatten(1), 6.0
    room = torch.where(w > 0, 1 - flat, flat)
    best = []
    for i in range(4):
        left, gain = eps, 0.0
        for k in w[i].abs().argsort(descending=True):
            used = min(left, float(room[i, k]))
            left, gain = left - used, gain + used * float(w[i, k].abs())
        best.append(gain)
    attack = APGD(threat=L1(eps), steps=100, restarts=2, stop_on_success=False)
    x_adv = attack(model, x, y)
    assert L1(eps).contains(x, x_adv).all()
    gained = (w * (x_adv - x).flatten(1)).sum(1)
    assert (gained <= torch.tensor(best) + 1e-3).all() and (gained > 0.98 * torch.tensor(best)).all()


def test_in_l1_the_ball_shrinks():
    climb = SparseClimb(L1(2.0), 100)
    assert climb._lengths == (30, 30, 40) and climb.queries == 103
    assert SparseClimb(L1(2.0), 6)._lengths == (2, 2, 2) and SparseClimb(L1(2.0), 1)._lengths == (0, 0, 1)
    model, x = lively(small_net(), torch.rand(8, 3, 8, 8)), torch.rand(3, 3, 8, 8)
    attack = APGD(threat=L1(2.0), steps=10, stop_on_success=False)
    states = trace(attack, model, x, torch.tensor([0, 1, 2]))
    assert len(states) == attack.queries == 14
    for state, _ in states[1:]:
        radius = 2.0 * (3 - state.climb.stage)
        assert (attack.threat.distance(x, state.climb.now) <= radius + 1e-3).all()
    assert [int(state.climb.stage[0]) for state, _ in states[1:]] == [0] * 4 + [1] * 4 + [2] * 5
    assert all(attack.threat.contains(x, state.answer).all() for state, _ in states)


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
@pytest.mark.parametrize("threat", [Linf(0.03), L1(3.0)], ids=str)
def test_any_number_of_classes(classes: int, threat: ThreatModel):
    """Each of the other classes is aimed at once, where there are fewer than targets."""
    x = torch.rand(6, 3, 8, 8)
    model = lively(small_net(classes=classes), x)
    with torch.no_grad():
        y = model(x).argmax(1)
    examples = TensorExamples(x, y, torch.arange(6))
    attack = APGD(threat=threat, loss=TargetedDLR(), targets=9, steps=4, stop_on_success=False)
    outcome = Engine(batch_size=3).run(attack, model, examples)
    run = attack._climb.queries
    assert (outcome.backwards == 1 + min(9, classes - 1) * run).all()
    untargeted = APGD(threat=threat, loss=DLR(), steps=4, stop_on_success=False)
    assert (Engine(batch_size=3).run(untargeted, model, examples).backwards == 1 + run).all()
    if classes == 2:  # both are the margin then
        assert torch.equal(outcome.x_adv, Engine(batch_size=3).run(untargeted, model, examples).x_adv)


@pytest.mark.parametrize("threat", [Linf(0.05), L2(0.5), L1(3.0)], ids=str)
def test_what_is_misclassified_already_costs_one_query(threat: ThreatModel):
    x = torch.rand(5, 3, 8, 8)
    model = lively(small_net(), x)
    with torch.no_grad():
        y = (model(x).argmax(1) + 1) % 10
    outcome = Engine(batch_size=2).run(APGD(threat=threat), model, TensorExamples(x, y, torch.arange(5)))
    assert torch.equal(outcome.x_adv, x) and not outcome.correct.any() and (outcome.backwards == 1).all()


def found(digits: Trained, attack: Attack, n: int = 60, model: nn.Module | None = None) -> int:
    examples = TensorExamples(digits.x[:n], digits.y[:n], torch.arange(n))
    return int((~Engine(batch_size=30).run(attack, model or digits.model, examples).correct).sum())


def test_it_is_strong(digits: Trained):
    noise, pgd = (found(digits, PGD(threat=EPS, steps=k, step_size=s)) for k, s in ((1, 1e-6), (20, 1 / 4)))
    assert noise < 6 and 20 < pgd < 55, (noise, pgd)
    assert found(digits, APGD(threat=EPS, steps=40)) >= pgd - 1
    many = APGD(threat=EPS, loss=TargetedDLR(), targets=3, steps=30)
    assert found(digits, many) >= max(pgd, found(digits, replace(many, targets=1)))


def test_dlr_sees_through_a_network_that_is_too_confident(digits: Trained):
    """At 1000 times the logits cross-entropy has no gradient left in float32; DLR does not notice the scale."""

    class Confident(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 1000 * digits.model(x)

    ce, dlr = APGD(threat=EPS, steps=15), APGD(threat=EPS, loss=DLR(), steps=15)
    assert found(digits, dlr, model=Confident()) == pytest.approx(found(digits, dlr), abs=2)
    assert found(digits, dlr, model=Confident()) > found(digits, ce, model=Confident()) + 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"restarts": 0},
        {"rho": 1.5},
        {"targets": 3},
        {"loss": TargetedDLR()},
        {"loss": DLR(), "targets": 1},
    ],
    ids=str,
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]):
    with pytest.raises(Mistake, match=r"APGD"):
        APGD(threat=EPS, **wrong)
