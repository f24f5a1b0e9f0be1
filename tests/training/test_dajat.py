"""DAJAT against its paper's formulas, in numpy; its second set of batch norms."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from awnet.errors import Mistake
from awnet.noise import Noise, fold
from awnet.training import DAJATConfig
from awnet.training.dajat import augmented, jensen_shannon
from awnet.training.ema import fit_statistics
from awnet.training.objective import OBJECTIVES
from awnet.training.optimizer import SGDConfig
from training.test_more_objectives import softmax
from training.test_objectives import EXACT, NOW, THREAT, ce, kl, pgd
from training.test_train import SHORT, go
from training.tiny import batch, own


def apart(bn: nn.BatchNorm2d, seed: int = 0) -> nn.BatchNorm2d:
    """As if trained on other images."""
    generator = torch.Generator().manual_seed(seed)
    for t in (bn.weight.data, bn.bias.data, bn.running_mean, bn.running_var):
        assert t is not None
        t.copy_(torch.rand(t.shape, generator=generator) + 0.5)
    return bn


def trades(model, x, ids, seed, config):
    attacked = copy.deepcopy(model).eval()
    p = attacked(x).softmax(1).detach()
    start = 0.001 * Noise(seed, ids).normal(0, tuple(x.shape[1:]))
    return pgd(attacked, x, lambda z: (p * (p.log() - z.log_softmax(1))).sum(1), config, start)


@pytest.mark.parametrize("views", [1, 2])
def test_dajat_by_hand(views):
    """Two networks with the same weights but for their batch norms, each seeing its own views."""
    x, y, ids = batch()
    x = (x * 255).round() / 255
    model = own().double().train()
    config = DAJATConfig(views=views, beta=4.0, js=1.5, steps=2, step_size=0.5)
    objective = config.build(THREAT, {})
    objective.prepare(model)
    apart(objective.second[0])
    simple, other = copy.deepcopy(model), copy.deepcopy(model)
    other.bn = copy.deepcopy(objective.second[0])

    seeds = [NOW.seed, *(fold(NOW.seed, 1, number) for number in range(views))]
    networks, logits, clean, stable = [simple] + [other] * views, [], [], []
    for network, seed in zip(networks, seeds, strict=True):
        shown = x if network is simple else augmented(x, Noise(seed, ids))
        x_adv = trades(network, shown, ids, seed, config)
        adversarial, natural = network(x_adv).detach().numpy(), network(shown).detach().numpy()
        logits.append(natural)
        clean.append(ce(natural, y.numpy()))
        stable.append(kl(natural, adversarial))
    p = np.stack([softmax(z) for z in logits])
    js = (p * (np.log(p) - np.log(p.mean(0)))).sum(2).mean(0)

    losses = objective(model, x, y, ids, NOW)
    np.testing.assert_allclose(losses.terms["clean"].detach().numpy(), np.mean(clean, 0), **EXACT)
    np.testing.assert_allclose(losses.terms["stability"].detach().numpy(), np.mean(stable, 0), **EXACT)
    np.testing.assert_allclose(losses.terms["agreement"].detach().numpy(), js, **EXACT)
    total = np.mean(clean) + 4 * np.mean(stable) + 1.5 * js.mean()
    np.testing.assert_allclose(losses.total.item(), total, **EXACT)

    for mine, by_hand in ((model.bn, simple.bn), (objective.second[0], other.bn)):
        for name, t in mine.named_buffers():
            torch.testing.assert_close(t, by_hand.get_buffer(name), **EXACT)
    losses.total.backward()
    for p in (*model.parameters(), *objective.parameters()):
        assert p.grad is not None and p.grad.isfinite().all()
    assert objective.second[0].weight.grad.any()


def test_agreement_by_hand():
    same = torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(jensen_shannon([same, same + 1]), torch.zeros(5, dtype=torch.float64), **EXACT)
    sure = [torch.tensor([[50.0, 0, 0]]).double(), torch.tensor([[0, 50.0, 0]]).double()]
    assert jensen_shannon(sure).item() == pytest.approx(np.log(2))
    assert jensen_shannon(sure[:1]).item() == 0


def test_the_views_are_autoaugments():
    x, _, ids = batch(200)
    x = (x * 255).round() / 255
    view = augmented(x, Noise(3, ids))
    assert view.dtype == x.dtype and view.min() >= 0 and view.max() <= 1
    changed = (view != x).flatten(1).any(1).double().mean()
    assert 0.5 < changed < 1  # a grey image has no colour to change


def test_the_second_set_is_trained_beside_the_network(tmp_path):
    model, objective = own(), DAJATConfig(steps=1).build(THREAT, {})
    names = set(model.state_dict())
    go(tmp_path, SHORT, model=model, objective=objective)
    assert set(model.state_dict()) == names, "it is no part of the network"
    second = objective.second[0]
    assert second.num_batches_tracked.item() == model.bn.num_batches_tracked.item() == 2 * 9
    for name in ("weight", "bias", "running_mean", "running_var"):
        begun, mine, other = own().bn, model.bn, second
        values = [getattr(bn, name) for bn in (begun, mine, other)]
        assert not torch.allclose(values[0], values[2]) and not torch.allclose(values[1], values[2]), name


def test_the_optimizer_knows_the_networks_parameters_first():
    model = own()
    (group,) = SGDConfig().build(nn.ModuleList([model, nn.Linear(2, 2)])).param_groups
    assert all(a is b for a, b in zip(model.parameters(), group["params"], strict=False))


def test_measuring_statistics_leaves_the_second_set_alone():
    x, y, ids = batch()
    model, objective = own().double().train(), DAJATConfig(steps=1).build(THREAT, {})
    objective.prepare(model)
    apart(objective.second[0])
    before = copy.deepcopy(objective.state_dict())
    fit_statistics(model, objective, [batch()], 0)
    assert all(torch.equal(t, before[name]) for name, t in objective.state_dict().items())
    assert set(objective.eval()(model, x, y, ids, NOW).terms) == {"clean", "stability", "agreement"}


def test_published_settings():
    config = OBJECTIVES["dajat"]
    assert config == DAJATConfig(views=1, beta=11.0, js=2.0, steps=2, step_size=1.0)


@pytest.mark.parametrize("wrong", [{"views": 0}, {"beta": -1.0}, {"js": float("inf")}], ids=str)
def test_settings_out_of_range(wrong):
    with pytest.raises(Mistake, match="DAJAT needs"):
        DAJATConfig(**wrong)
