"""GAT against its paper's formulas, in numpy and in a plain loop."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from awnet.errors import Mistake
from awnet.losses import CrossEntropy
from awnet.noise import Noise
from awnet.training import AWPConfig, GATConfig, JointConfig
from awnet.training.gat import apart
from awnet.training.objective import OBJECTIVES
from training.test_more_objectives import softmax
from training.test_objectives import EXACT, NOW, THREAT, ce, in_order
from training.tiny import awnet, batch, own

LAST = 0.9  # of the training, where lambda has grown


@pytest.mark.parametrize("step", [4, 5])
@pytest.mark.parametrize("done", [0.2, LAST])
def test_gat_by_hand(step, done):
    x, y, ids = batch()
    model = own().double().train()
    config = GATConfig(weight=3.0)
    moment = NOW._replace(step=step, done=done)
    weight = 12.0 if done == LAST else 3.0

    attacked = copy.deepcopy(model).eval()
    coin = Noise(NOW.seed, ids).uniform(0, tuple(x.shape[1:])) < 0.5
    start = (x + THREAT.eps / 2 * torch.where(coin, -1.0, 1.0).double()).clamp(0, 1).requires_grad_()
    p, q = attacked(x).softmax(1).detach(), attacked(start).softmax(1)
    guided = weight * (step % 2) * ((p - q) ** 2).sum(1)
    (gradient,) = torch.autograd.grad((CrossEntropy()(attacked(start), y) + guided).sum(), start)
    low, high = (x - THREAT.eps).clamp(min=0), (x + THREAT.eps).clamp(max=1)
    x_adv = (start + THREAT.eps * gradient.sign()).clamp(low, high).detach()
    adversarial, clean = in_order(model, x_adv, x)

    losses = config.build(THREAT, {})(model, x, y, ids, moment)
    moved = ((softmax(adversarial) - softmax(clean)) ** 2).sum(1)
    np.testing.assert_allclose(losses.terms["clean"].detach().numpy(), ce(clean, y.numpy()), **EXACT)
    np.testing.assert_allclose(losses.terms["stability"].detach().numpy(), moved, **EXACT)
    np.testing.assert_allclose(losses.total.item(), ce(clean, y.numpy()).mean() + weight * moved.mean(), **EXACT)


def test_every_other_attack_is_guided():
    x, y, ids = batch()
    model, objective = own().double().train(), GATConfig(weight=100.0).build(THREAT, {})
    found = [objective.adversarial(model, x, y, ids, NOW._replace(step=step)) for step in range(4)]
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3]) and not torch.equal(found[0], found[1])


def test_both_predictions_are_pulled():
    p, q = (torch.randn(5, 3, dtype=torch.float64).softmax(1).requires_grad_() for _ in range(2))
    to_p, to_q = torch.autograd.grad(apart(p, q).sum(), (p, q))
    torch.testing.assert_close(to_p, 2 * (p - q).detach(), **EXACT)
    torch.testing.assert_close(to_q, -to_p, **EXACT)


def test_gat_goes_under_awp_and_awnet():
    x, y, ids = batch()
    AWPConfig(over=GATConfig()).build(THREAT, {})(own().double().train(), x, y, ids, NOW)
    losses = JointConfig(over=GATConfig()).build(THREAT, {})(awnet(x), x, y, ids, NOW)
    assert losses.terms.keys() == {"stability", "clean", "type"}


def test_published_settings():
    config = OBJECTIVES["gat"]
    assert config == GATConfig(weight=10.0, growth=4.0, grown_from=0.86, start=0.5)


@pytest.mark.parametrize(("epoch", "weight"), [(0, 10.0), (85, 10.0), (86, 40.0), (99, 40.0)])
def test_lambda_grows_behind_epoch_85(epoch, weight):
    """Published: `range(100)`, and lambda times 4 at the end of the epoch of index 85."""
    logits, (x, y, _) = torch.zeros(6, 3), batch()
    losses = GATConfig().build(THREAT, {}).compare(logits, logits, x, x, y, NOW._replace(done=epoch / 100))
    assert losses.weights["stability"] == weight


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"growth": 0.0}, {"grown_from": 1.1}, {"start": 2.0}], ids=str)
def test_settings_out_of_range(wrong):
    with pytest.raises(Mistake, match="GAT needs"):
        replace(GATConfig(), **wrong)
