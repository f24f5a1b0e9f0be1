"""RSLAD, ARD and B-MTARD against their papers' formulas, in numpy and in plain loops."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from awnet.errors import Mistake
from awnet.losses import CrossEntropy
from awnet.training import (
    ARDConfig,
    AWPConfig,
    GATConfig,
    JointConfig,
    MARTConfig,
    MTARDConfig,
    RSLADConfig,
    TRADESConfig,
)
from awnet.training.entropy_balance import EntropyBalance, entropy
from awnet.training.objective import OBJECTIVES
from awnet.training.teacher import Teacher
from training.test_objectives import EXACT, NOW, SINGLE, THREAT, Says, ce, gaussian, in_order, kl, pgd, uniform
from training.tiny import CLASSES, awnet, batch, own, teachers


@pytest.mark.parametrize(("alpha", "kd_scale"), [(5 / 6, 0.1), (0.3, 1.0)])
def test_rslad_by_hand(alpha, kd_scale):
    """The teacher is asked about the clean images alone, and its answers are what the attack moves away from."""
    x, y, ids = batch()
    model, robust = own().double().train(), teachers(x)["robust"].eval()
    config = RSLADConfig(steps=3, alpha=alpha, kd_scale=kd_scale)
    taught = robust(x).detach()
    p = taught.softmax(1)
    attacked = copy.deepcopy(model).eval()
    x_adv = pgd(attacked, x, lambda z: (p * (p.log() - z.log_softmax(1))).sum(1), config, gaussian(x, ids))
    adversarial, clean = in_order(model, x_adv, x)

    losses = config.build(THREAT, {"robust": robust.train()})(model, x, y, ids, NOW)
    by_hand = {name: kd_scale * kl(taught.numpy(), z) for name, z in (("adversarial", adversarial), ("clean", clean))}
    for name, term in by_hand.items():
        np.testing.assert_allclose(losses.terms[name].detach().numpy(), term, **EXACT)
    total = alpha * by_hand["adversarial"].mean() + (1 - alpha) * by_hand["clean"].mean()
    np.testing.assert_allclose(losses.total.item(), total, **EXACT)


@pytest.mark.parametrize(("alpha", "tau"), [(1.0, 30.0), (0.6, 2.0)])
def test_ard_by_hand(alpha, tau):
    x, y, ids = batch()
    model, robust = own().double().train(), teachers(x)["robust"].eval()
    config = ARDConfig(steps=3, alpha=alpha, tau=tau)
    taught = robust(x).detach().numpy()
    x_adv = pgd(copy.deepcopy(model).eval(), x, lambda z: CrossEntropy()(z, y), config, uniform(x, ids))
    adversarial, clean = in_order(model, x_adv, x)

    passed = copy.deepcopy(model)
    for images in (x_adv, x):  # the clean images too, whatever alpha is
        passed(images)

    losses = config.build(THREAT, {"robust": robust})(model, x, y, ids, NOW)
    for name, value in passed.named_buffers():
        torch.testing.assert_close(dict(model.named_buffers())[name], value, **EXACT)
    distilled = 0.1 * tau**2 * kl(taught / tau, adversarial / tau)
    np.testing.assert_allclose(losses.terms["adversarial"].detach().numpy(), distilled, rtol=1e-8, atol=1e-12)
    total = alpha * distilled.mean() + (1 - alpha) * ce(clean, y.numpy()).mean()
    np.testing.assert_allclose(losses.total.item(), total, rtol=1e-8)


def test_rslad_goes_under_awp_and_awnet():
    x, y, ids = batch()
    AWPConfig(over=RSLADConfig(steps=1)).build(THREAT, teachers(x))(own().double().train(), x, y, ids, NOW)
    losses = JointConfig(over=RSLADConfig(steps=1)).build(THREAT, teachers(x))(awnet(x), x, y, ids, NOW)
    assert losses.terms.keys() == {"adversarial", "clean", "type"}


def test_awnet_is_not_trained_without_the_clean_part_of_mart():
    with pytest.raises(Mistake, match="BN_nat"):
        JointConfig(over=MARTConfig(steps=1, beta=0.0)).build(THREAT, {})


@pytest.mark.parametrize("config", [ARDConfig(steps=1), RSLADConfig(steps=1, alpha=1.0)], ids=["ard", "rslad"])
def test_awnet_is_not_trained_without_clean_images(config):
    """With alpha = 1 nothing would train BN_nat, which clean images go through at test time."""
    x, y, ids = batch()
    with pytest.raises(Mistake, match="BN_nat"):
        JointConfig(over=config).build(THREAT, teachers(x))
    model = awnet(x)
    JointConfig(over=replace(config, alpha=0.5)).build(THREAT, teachers(x))(model, x, y, ids, NOW).total.backward()
    assert model.stem.bn.nat.weight.grad is not None and model.stem.bn.nat.weight.grad.any()


@pytest.mark.parametrize(
    "config", [RSLADConfig(alpha=0.0), TRADESConfig(beta=0.0), GATConfig(weight=0.0)], ids=["rslad", "trades", "gat"]
)
def test_nor_without_attacked_ones(config):
    """Nothing would train BN_adv, which the mixture weighs at test time."""
    x, _, _ = batch()
    with pytest.raises(Mistake, match=r"gives adversarial images no weight, so that AW-Net's BN_adv"):
        JointConfig(over=config).build(THREAT, teachers(x))


# --- B-MTARD ---


def shannon(z):
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    return -(p * np.log(p)).sum(1)


def test_b_mtard_over_several_steps():
    """As the published code does it: temperatures and weights each on their own, clipped, and divided by their sum."""
    x, y, _ = batch()
    generator = torch.Generator().manual_seed(3)
    nat, adv, *looks = (torch.randn(6, CLASSES, dtype=torch.float64, generator=generator) for _ in range(14))
    nat = 4 * nat  # the clean teacher is sure of itself
    config = MTARDConfig(weight_lr=0.2, temperature_lr=0.3)
    objective = config.build(THREAT, {"clean": Says(nat), "robust": Says(adv)})
    t_nat = t_adv = 1.0
    a_nat = a_adv = 0.5
    first = None
    for step, lr_factor in enumerate([1.0, 1.0, 1.0, 0.5, 0.5, 0.0]):
        clean, adversarial = looks[2 * step], looks[2 * step + 1]
        losses = objective.compare(clean, adversarial, x, x, y, NOW._replace(lr_factor=lr_factor))
        assert losses.watched["tau_nat"].item() == pytest.approx(t_nat, rel=1e-12)  # those of this step
        assert losses.watched["tau_adv"].item() == pytest.approx(t_adv, rel=1e-12)
        of_nat, of_adv = nat.numpy() / t_nat, adv.numpy() / t_adv
        now = 0.1 * kl(of_nat, clean.numpy()), 0.1 * kl(of_adv, adversarial.numpy())
        np.testing.assert_allclose(losses.terms["clean"].numpy(), now[0], **EXACT)
        np.testing.assert_allclose(losses.terms["adversarial"].numpy(), now[1], **EXACT)

        first = first or (now[0].mean(), now[1].mean())
        r_nat, r_adv = now[0].mean() / first[0], now[1].mean() / first[1]
        a_nat = max(0.0, a_nat - 0.2 * lr_factor * (a_nat - r_nat / (r_nat + r_adv)))
        a_adv = max(0.0, a_adv - 0.2 * lr_factor * (a_adv - r_adv / (r_nat + r_adv)))
        a_nat, a_adv = a_nat / (a_nat + a_adv), a_adv / (a_nat + a_adv)
        np.testing.assert_allclose(losses.total.item(), a_nat * now[0].mean() + a_adv * now[1].mean(), **SINGLE)

        h_nat, h_adv = shannon(of_nat).mean(), shannon(of_adv).mean()
        t_adv = min(10.0, max(1.0, t_adv - 0.3 * lr_factor * np.sign(h_adv / h_nat - 1)))
        t_nat = min(10.0, max(1.0, t_nat - 0.3 * lr_factor * np.sign(h_nat / h_adv - 1)))
    assert t_nat > 1.5 and t_adv == 1.0, "the surer teacher is made less sure, the other one no surer than it is"


def test_temperatures_bring_the_entropies_together():
    generator = torch.Generator().manual_seed(0)
    nat, adv = (scale * torch.randn(50, 10, generator=generator) for scale in (8.0, 2.0))
    balance = EntropyBalance(0.05)
    apart = abs(entropy(nat).mean() - entropy(adv).mean())
    for _ in range(200):
        tempered = balance(nat, adv, 1.0)
    assert abs(entropy(tempered[0]).mean() - entropy(tempered[1]).mean()) < 0.05 * apart
    balance.eval()
    before = copy.deepcopy(balance.state_dict())
    balance(nat, 3 * adv, 1.0)
    assert all(torch.equal(value, before[name]) for name, value in balance.state_dict().items())


def test_temperatures_stay_in_their_range():
    balance = EntropyBalance(4.0)
    for expected in (5.0, 9.0, 10.0, 10.0):
        balance(torch.tensor([[90.0, 0.0]]), torch.tensor([[0.1, 0.0]]), 1.0)
        assert (balance.tau_nat.item(), balance.tau_adv.item()) == (expected, 1.0)


def test_temperatures_return_from_a_state():
    x, y, _ = batch()
    pair = {"clean": Says(5 * torch.randn(6, CLASSES)), "robust": Says(torch.randn(6, CLASSES))}
    objective, other = (MTARDConfig(temperature_lr=0.1).build(THREAT, pair) for _ in range(2))
    look = torch.randn(6, CLASSES)
    objective.compare(look, look, x, x, y, NOW)
    other.load_state_dict(objective.state_dict())
    losses = [each.compare(look, look, x, x, y, NOW) for each in (objective, other)]
    assert losses[0].total.item() == losses[1].total.item() and losses[0].watched["tau_nat"].item() == 1.1
    assert set(MTARDConfig().build(THREAT, pair).state_dict()) == {"a_nat", "first_nat", "first_adv"}  # as ever


# --- teachers ---


def test_a_teacher_is_asked_without_gradients():
    x, _, _ = batch()
    network = teachers(x)["robust"].train()
    teacher = Teacher(network)
    x.requires_grad_()
    assert not teacher.train()(x).requires_grad
    assert not network.training and teacher.network is network
    assert list(teacher.parameters()) == [] and teacher.state_dict() == {}


@pytest.mark.parametrize(
    "make",
    [
        lambda: RSLADConfig(alpha=1.5),
        lambda: RSLADConfig(kd_scale=0.0),
        lambda: ARDConfig(alpha=float("nan")),
        lambda: ARDConfig(tau=0.0),
        lambda: MTARDConfig(temperature_lr=-0.1),
        lambda: MTARDConfig(temperature_lr=0.1, tau=5.0),
    ],
)
def test_settings_out_of_range(make):
    with pytest.raises(Mistake):
        make()


def test_published_settings():
    assert OBJECTIVES["rslad"] == RSLADConfig(alpha=5 / 6)
    assert OBJECTIVES["ard"] == ARDConfig(alpha=1.0, tau=30.0)
    assert OBJECTIVES["b-mtard"] == MTARDConfig(temperature_lr=0.001)
