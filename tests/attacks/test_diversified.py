"""Diversified starts: where they lead in closed form, what follows them, and a network on which nothing else starts well."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attacks.nets import Linear, lively, small_net
from awnet.attacks import APGD, Attack, Diversified, Engine, Gradient, TensorExamples
from awnet.attacks.apgd import Climb
from awnet.attacks.attack import evaluate
from awnet.attacks.diversified import DiversifiedState
from awnet.errors import Mistake
from awnet.losses import Margin
from awnet.noise import Noise
from awnet.threat_model import L1, L2, Linf

BALL = Linf(0.05)
ATTACK = Diversified(threat=BALL, start_steps=3, steps=8, restarts=4, stop_on_success=False)


def trace(attack: Diversified, model: nn.Module, x: Tensor, y: Tensor) -> list[tuple[DiversifiedState, Tensor, Tensor]]:
    """Every state of all runs, what is asked in it, and the gradient that is answered."""
    noise, seen = Noise(0, torch.arange(len(x))), []
    state = attack.start(x, y, noise)
    while not attack.done(state).all():
        query = attack.query(state)
        answer = evaluate(model, query)
        assert answer.gradient is not None
        seen.append((state, query.x, answer.gradient))
        state = attack.update(state, answer, noise)
    return seen


def combination(model: Linear, gradient: Tensor) -> Tensor:
    """The w of a gradient W^T w, shape (b, k)."""
    return torch.linalg.lstsq(model.w.detach().flatten(1).T, gradient.flatten(1).T).solution.T


def test_a_start_is_the_corner_that_a_random_combination_of_logits_points_to():
    model, x = Linear(torch.randn(3, 1, 5, 5)), 0.3 + 0.4 * torch.rand(6, 1, 5, 5)
    attack = replace(ATTACK, start_steps=3, restarts=30)
    seen = trace(attack, model, x, torch.zeros(6, dtype=torch.int64))
    each = attack.start_steps + attack.steps + 1
    assert len(seen) == attack.queries == 30 * each
    drawn = []
    for run in range(30):
        starts = seen[run * each : run * each + 3]
        w = combination(model, starts[0][2])
        assert all(torch.allclose(combination(model, gradient), w, atol=1e-4) for _, _, gradient in starts)
        _, first, _ = seen[run * each + 3]  # two steps of eps reach the corner from anywhere, and a third stays there
        toward = (w @ model.w.detach().flatten(1)).view_as(x).sign()
        assert torch.allclose(first, x + BALL.eps * toward, atol=1e-6)
        drawn.append(w)
    every = torch.cat(drawn)
    assert len(every.unique(dim=0)) == 180, "each run of each image has its own"
    assert every.abs().max() <= 1.0001 and every.abs().max() > 0.95
    assert every.mean().abs() < 0.1 and abs(float(every.var()) - 1 / 3) < 0.05  # uniform in [-1, 1]


def test_from_there_it_climbs_the_margin_as_apgd_does():
    x = torch.rand(5, 3, 8, 8)
    model = lively(small_net(), x)
    with torch.no_grad():
        y = model(x).argmax(1)
    seen = trace(ATTACK, model, x, y)
    each = ATTACK.start_steps + ATTACK.steps + 1
    climb = Climb(BALL, ATTACK.steps, 0.75)
    for run in range(ATTACK.restarts):
        asked = [x for _, x, _ in seen[run * each + ATTACK.start_steps : (run + 1) * each]]
        state = climb.go_on(x, asked[0], 2 * BALL.eps)
        for point in asked:
            assert torch.equal(state.now, point)
            answer = evaluate(model, Gradient(point, lambda logits: Margin()(logits, y)))
            assert answer.loss is not None and answer.gradient is not None
            state = climb.move(state, x, answer.loss, answer.gradient)


@pytest.mark.parametrize("threat", [Linf(0.05), L2(0.7), L1(5.0)], ids=str)
def test_the_answer_is_the_worst_of_all_that_was_asked(threat):
    x = torch.rand(5, 3, 8, 8)
    model = lively(small_net(), x)
    with torch.no_grad():
        y = model(x).argmax(1)
    attack = replace(ATTACK, threat=threat)
    asked = torch.stack([x for _, x, _ in trace(attack, model, x, y)])
    with torch.no_grad():
        margins = torch.stack([Margin()(model(one), y) for one in asked])
        allowed = torch.stack([threat.contains(x, one) for one in asked])
        worst = margins.where(allowed, -torch.inf).max(0).values
        found = Engine(batch_size=5).run(attack, model, TensorExamples(x, y, torch.arange(5))).x_adv
        assert torch.allclose(Margin()(model(found), y), worst, atol=1e-5)
    assert len(asked) == attack.queries and threat.contains(x, found).all()


class Decoy(nn.Module):
    """Near the image another class is the runner-up and never wins; far off in the other direction a third one does."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.ones(pixels))

    def forward(self, x: Tensor) -> Tensor:
        along = ((x.flatten(1) - 0.5) @ self.direction)[:, None] / (BALL.eps * len(self.direction))  # in [-1, 1]
        return torch.cat([0 * along, 0.5 * along - 1, -3 * along - 2.5], dim=1)


def test_it_finds_what_random_pixels_never_begin_near():
    x, y = torch.full((40, 1, 8, 8), 0.5), torch.zeros(40, dtype=torch.int64)
    examples, engine = TensorExamples(x, y, torch.arange(40)), Engine(batch_size=40)

    def left(attack: Attack) -> int:
        return int(engine.run(attack, Decoy(64), examples).correct.sum())

    attack = Diversified(threat=BALL, steps=10, restarts=8)
    assert left(attack) == 0
    plain = APGD(threat=BALL, loss=Margin(), steps=10, restarts=12)
    assert left(plain) >= 30, "who climbs the margin from random pixels is held up"


@pytest.mark.parametrize("name", ["start_steps", "steps", "restarts"])
def test_nothing_to_do_is_a_mistake(name):
    with pytest.raises(Mistake, match=f"at least 1, got .*{name}=0"):
        replace(ATTACK, **{name: 0})
