"""The paper's own adaptive attack against its equation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from attacks.nets import lively
from awnet.attacks.adaptive.paper import PaperAdaptive, adaptive_paper
from awnet.attacks.attack import evaluate
from awnet.attacks.pgd import pgd_trades
from awnet.attacks.second_network import second_network
from awnet.checkpoint import save_model
from awnet.errors import Mistake
from awnet.models import AWNet, AWNetConfig, ResNetConfig, create
from awnet.noise import Noise
from awnet.threat_model import L2

BALL = L2(1.0)  # whose steps follow the gradient itself


@pytest.fixture
def teacher(tmp_path):
    config = ResNetConfig(depth=10, width=4)
    folder = tmp_path / "teacher"
    folder.mkdir()
    x = torch.rand(4, 3, 8, 8)
    save_model(folder, lively(create(config, classes=5), x), config, {"classes": list("abcde"), "shape": [3, 8, 8]})
    return str(folder)


@pytest.mark.parametrize("through_teacher", [False, True])
@pytest.mark.parametrize("taught", [False, True])
def test_a_step_follows_the_gradient_of_eq_22(teacher, taught, through_teacher):
    x, y = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    model = lively(create(AWNetConfig().narrow(), classes=5), x)
    attack = PaperAdaptive(
        threat=BALL, teacher=teacher if taught else "", tau=2.0, type_weight=3.0, through_teacher=through_teacher
    )
    noise = Noise(0, torch.arange(4))
    assert isinstance(model, AWNet)
    model.requires_grad_(False)
    model.router.type_head.weight *= 10  # a router that is sure of something
    model.router.type_head.bias.copy_(torch.tensor([0.0, 2.0]))
    with torch.no_grad():
        state = attack.start(x, y, noise)
        moved = attack.update(state, evaluate(model, attack.query(state)), noise).x_adv

    at = state.x_adv.clone().requires_grad_()
    output = model.run(at)
    loss = F.cross_entropy(output.logits, y, reduction="sum")
    loss = loss + 3.0 * F.cross_entropy(output.routing.type_logits, torch.zeros(4, dtype=torch.int64), reduction="sum")
    if taught:
        log_t = F.log_softmax(second_network(teacher, at.device)(at) / 2, dim=1)
        log_t = log_t if through_teacher else log_t.detach()
        log_s = F.log_softmax(output.logits / 2, dim=1)
        loss = loss + 0.5 * 4 * (log_t.exp() * (log_t - log_s)).sum()
    (gradient,) = torch.autograd.grad(loss, at)
    expected = BALL.project(state.x_adv + attack.step_size * BALL.eps * BALL.ascend(gradient), x)
    torch.testing.assert_close(moved, expected)


def test_of_a_model_that_does_not_decide_it_is_pgd_trades():
    x, y = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    model = lively(create(ResNetConfig(depth=10, width=4), classes=5), x)
    ours, plain = (make(BALL)(model, x, y, seed=3) for make in (adaptive_paper, pgd_trades))
    assert torch.equal(ours, plain)


@pytest.mark.parametrize("changes", [{"type_weight": -1.0}, {"alpha": float("inf")}, {"tau": 0.0}])
def test_settings_out_of_range(changes):
    with pytest.raises(Mistake, match="needs type_weight and alpha"):
        replace(adaptive_paper(BALL), **changes)


def test_settings_of_the_steps_are_those_of_pgd():
    with pytest.raises(Mistake, match="PGD needs at least one step"):
        replace(adaptive_paper(BALL), steps=0)
