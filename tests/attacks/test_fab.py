"""FAB-T against closed forms: on a linear network the nearest misclassified image is known in every norm."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attacks.conftest import Trained
from attacks.nets import Linear, lively, small_net
from awnet.attacks import FAB, Engine, TensorExamples
from awnet.attacks.attack import Answer, evaluate
from awnet.errors import Mistake
from awnet.noise import Noise
from awnet.threat_model import L1, L2, Linf, ThreatModel


@pytest.mark.parametrize("threat", [Linf(0.5), L2(3.0), L1(8.0)], ids=str)
def test_it_finds_the_boundary_of_a_linear_network(threat: ThreatModel):
    """It is |w · x + b| / |w|_q away, q the dual norm, where the box is not in the way."""
    model = Linear(0.1 * torch.randn(2, 3, 8, 8))
    x = 0.4 + 0.2 * torch.rand(6, 3, 8, 8)
    with torch.no_grad():
        model.b = -model(x).mean(0)  # near enough that the box is far
        model.b = model.b + 0.01 * torch.randn(2)
        logits = model(x)
        y, w = logits.argmax(1), (model.w[1] - model.w[0]).flatten()
        dual = {Linf: w.abs().sum(), L2: w.norm(), L1: w.abs().max()}[type(threat)]
        nearest = (logits[:, 1] - logits[:, 0]).abs() / dual
        steepest_pixel = 0.4 if isinstance(threat, L1) else 1.0
        assert (nearest < steepest_pixel).any()
        attack = FAB(threat=threat, targets=1, steps=30, stop_on_success=False)
        distance = threat.distance(x, attack(model, x, y))
    inside = nearest < steepest_pixel
    torch.testing.assert_close(distance[inside], nearest[inside], rtol=0.01, atol=1e-4)
    assert (distance >= nearest - 1e-5).all()


@pytest.mark.parametrize("threat", [Linf(0.05), L2(0.4), L1(1.5)], ids=str)
def test_it_walks_outside_the_ball_and_answers_from_within(threat: ThreatModel, digits: Trained):
    """Its queries are further than eps from x; only an answer within eps counts, and x is the answer otherwise."""
    attack = FAB(threat=threat, targets=2, steps=15)
    x, y, noise = digits.x[:24], digits.y[:24], Noise(0, torch.arange(24))
    distances: list[Tensor] = []
    with torch.no_grad():
        state = attack.start(x, y, noise)
        for _ in range(attack.queries):
            distances.append(threat.distance(x, state.now))
            state = attack.update(state, evaluate(digits.model, attack.query(state)), noise)
    assert torch.stack(distances).amax(0).median() > threat.eps
    outcome = Engine(batch_size=8).run(attack, digits.model, TensorExamples(x, y, torch.arange(24)))
    moved = threat.distance(x, outcome.x_adv)
    assert threat.contains(x, outcome.x_adv).all() and torch.equal(moved == 0, outcome.correct)
    assert 0 < outcome.correct.sum() < 24


def by_hand(model: nn.Module, x: Tensor, y: int, target: int, threat: ThreatModel, steps: int) -> float:
    """Algorithm 1 of the paper with one target, for one image, in plain steps; the nearest misclassified image's distance."""
    best, now = float("inf"), x.clone()
    alpha_max, eta, beta = 0.1, 1.05, 0.9
    for _ in range(steps):
        probe = now.clone().requires_grad_()
        z = model(probe)[0]
        f = z[target] - z[y]
        (w,) = torch.autograd.grad(f, probe)
        f = f.detach()
        from_now = threat.to_plane(now, w, f[None])
        from_x = threat.to_plane(x, w, (f + (w * (x - now)).sum())[None])
        d_now, d_x = (float(threat.distance(t, 0 * t)) for t in (from_now, from_x))
        alpha = min(max(d_now, 1e-8) / (max(d_now, 1e-8) + max(d_x, 1e-8)), alpha_max)
        now = ((1 - alpha) * (now + eta * from_now) + alpha * (x + eta * from_x)).clamp(0, 1)
        with torch.no_grad():
            if int(model(now).argmax()) != y:
                best = min(best, float(threat.distance(x, now)))
                now = x + beta * (now - x)
                if int(model(now).argmax()) != y:  # we have a look there too
                    best = min(best, float(threat.distance(x, now)))
    return best


@pytest.mark.parametrize("threat", [Linf(0.5), L2(5.0), L1(30.0)], ids=str)
def test_equals_its_definition(threat: ThreatModel, digits: Trained):
    attack = FAB(threat=threat, targets=1, steps=6, stop_on_success=False)
    x, y = digits.x[:5], digits.y[:5]
    x_adv = attack(digits.model, x, y)
    with torch.no_grad():
        targets = digits.model(x).scatter(1, y[:, None], -torch.inf).argmax(1)
    for i in range(5):
        one = by_hand(digits.model, x[i : i + 1], int(y[i]), int(targets[i]), threat, 6)
        assert float(threat.distance(x[i : i + 1], x_adv[i : i + 1])) == pytest.approx(one, rel=1e-3), i


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_any_number_of_classes(classes: int):
    x = torch.rand(6, 3, 8, 8)
    model = lively(small_net(classes=classes), x)
    with torch.no_grad():
        y = model(x).argmax(1)
    attack = FAB(threat=Linf(0.2), steps=6, stop_on_success=False)
    outcome = Engine(batch_size=3).run(attack, model, TensorExamples(x, y, torch.arange(6)))
    runs = min(9, classes - 1)
    # a gradient where a step begins and a look where it has led; forward passes also for the verdict
    assert (outcome.backwards == runs * 6).all() and (outcome.forwards == runs * 12 + 1).all()
    assert not outcome.correct.all()


def test_a_second_start_is_a_random_one():
    x, noise = 0.3 + 0.4 * torch.rand(4, 3, 8, 8), Noise(0, torch.arange(4))
    for threat in (Linf(0.1), L2(0.5), L1(3.0)):
        attack = FAB(threat=threat, targets=2, restarts=3, steps=1)
        starts = [attack._beginning(x, torch.full((4,), run), noise) for run in range(6)]
        assert torch.equal(starts[0], x) and torch.equal(starts[3], x)
        for run in (1, 2, 4, 5):
            torch.testing.assert_close(
                threat.distance(x, starts[run]), torch.full((4,), threat.eps / 2), rtol=1e-4, atol=0
            )
        assert not torch.equal(starts[1], starts[2]) and not torch.equal(starts[1], starts[4])


def test_its_search_is_exact_whatever_the_engine_s_precision():
    x = torch.rand(4, 3, 8, 8)
    model = lively(small_net(), x)
    seen: list[torch.dtype] = []
    model[0].register_forward_hook(lambda _module, _args, out: seen.append(out.dtype))
    with torch.no_grad():
        y = model(x).argmax(1)
    examples = TensorExamples(x, y, torch.arange(4))
    fast, exact = (
        Engine(batch_size=4, precision=precision).run(FAB(threat=Linf(0.02), targets=1, steps=3), model, examples)
        for precision in ("bfloat16", "float32")
    )
    assert set(seen) == {torch.float32} and torch.equal(fast.x_adv, exact.x_adv)
    assert torch.equal(fast.forwards, exact.forwards), "nothing needed to be confirmed"


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"targets": 0}, {"alpha": 2.0}, {"eta": 0.5}, {"beta": 1.0}], ids=str)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]):
    with pytest.raises(Mistake, match="FAB needs"):
        FAB(threat=Linf(0.1), **wrong)


def test_an_answer_that_is_no_number_hides_nothing():
    """An image nearer than the best, which the model answers with NaN, is no adversarial image."""
    threat = Linf(0.05)
    attack = FAB(threat=threat, targets=1, steps=3, stop_on_success=False)
    x, y = torch.full((2, 1, 2, 2), 0.5), torch.zeros(2, dtype=torch.int64)
    state = attack.start(x, y, Noise(0, torch.arange(2)))
    state = state._replace(targets=y[:, None] + 1, best=x + 0.04, distance=torch.full((2,), 0.04), now=x + 0.02)
    state = state._replace(stepped=torch.ones(2, dtype=torch.bool))
    answer = Answer(torch.tensor([[0.0, 1.0], [0.0, torch.nan]]))
    after = attack.update(state, answer, Noise(0, torch.arange(2)))
    torch.testing.assert_close(after.distance, torch.tensor([0.02, 0.04]))
