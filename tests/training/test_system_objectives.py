"""The training of RDI, Separate-Net, ADVMOE and Table 3's ablations against plain formulas, and through an experiment."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from awnet.checkpoint import load
from awnet.data import DataConfig
from awnet.data import load as load_data
from awnet.errors import Mistake
from awnet.experiment import Experiment, Selection, run
from awnet.losses import CrossEntropy
from awnet.models import (
    MODELS,
    AdvMoEResNet,
    AdvMoEResNetConfig,
    Knob,
    RDIResNetConfig,
    ResNetConfig,
    SeparateNetConfig,
    create,
)
from awnet.models.rdi import EXITS, RDIResNet, entropy
from awnet.models.separate_net import SeparateNet
from awnet.noise import Noise, fold
from awnet.threat_model import Linf
from awnet.training import AdvMoEConfig, JointConfig, RDIConfig, TRADESConfig, TrainingConfig, TypeDetectorConfig
from awnet.training.objective import Objective
from awnet.training.optimizer import Constant, SGDConfig
from models.randomised import unsettle
from training.test_objectives import EXACT, NOW, THREAT, ce, gaussian, kl, pgd, uniform
from training.tiny import CLASSES, DYNAMIC, NARROW, batch

TINY = Experiment(
    name="tiny",
    data=DataConfig(name="digits", validation=0.95),  # 72 images to train on
    model=NARROW,
    threat=Linf(0.2),
    training=TrainingConfig(epochs=2, batch_size=32, optimizer=SGDConfig(lr=0.05), schedule=Constant()),
    selection=Selection(attack="fgsm", limit=70),
)
PAIR = SeparateNetConfig(clean=NARROW, robust=replace(NARROW, depth=18), detector=NARROW)


def trained(config, x: Tensor) -> nn.Module:
    return unsettle(create(config, classes=CLASSES, channels=1).double(), x).train()


def stopped_and_resumed(experiment: Experiment, objective: type[Objective], monkeypatch, out, **more) -> None:
    """Stop an experiment in its fourth step and go on; the weights are those of one that was never stopped."""
    whole = run(experiment, out / "whole", quiet=True, **more)
    forward, calls = objective.forward, []

    def break_off(self, model, *args):
        calls.append(model)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(self, model, *args)

    monkeypatch.setattr(objective, "forward", break_off)
    with pytest.raises(KeyboardInterrupt):
        run(experiment, out / "stopped", quiet=True, **more)
    monkeypatch.setattr(objective, "forward", forward)
    again = run(experiment, out / "stopped", quiet=True, resume=True, **more)
    first, second = (load(folder / "last").state_dict() for folder in (whole, again))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


# --- RDI ---


def all_exits(exits: Tensor, y: Tensor) -> np.ndarray:
    return np.sum([ce(logits.detach().numpy(), y.numpy()) for logits in exits], axis=0)


@pytest.mark.parametrize("inner", ["max-average", "average"])
def test_rdi_by_hand(inner):
    x, y, ids = batch()
    model = trained(RDIResNetConfig().narrow(), x)
    config = RDIConfig(inner=inner, steps=3)
    attacked = copy.deepcopy(model).eval()
    if inner == "average":

        def through(images):
            return torch.cat(list(attacked.exits(images)), dim=1)

        def summed(logits):
            return sum(CrossEntropy()(part, y) for part in logits.chunk(EXITS, dim=1))

        x_adv = pgd(through, x, summed, config, uniform(x, ids))
    else:
        found = []
        for k in range(EXITS):
            start = THREAT.eps * (2 * Noise(fold(NOW.seed, k), ids).uniform(0, tuple(x.shape[1:])) - 1)
            found.append(pgd(lambda z, k=k: attacked.exits(z)[k], x, lambda z: CrossEntropy()(z, y), config, start))
        losses = np.stack([all_exits(attacked.exits(images), y) for images in found])
        worst = losses.argmax(0)
        assert len(set(worst)) > 1, "one exit's attack is not always the worst"
        x_adv = torch.stack([found[k][i] for i, k in enumerate(worst)])
    plain = copy.deepcopy(model)  # in training mode, the adversarial images first
    adversarial, clean = (all_exits(plain.exits(images), y) for images in (x_adv, x))

    losses = config.build(THREAT, {})(model, x, y, ids, NOW)
    np.testing.assert_allclose(losses.terms["adversarial"].detach().numpy(), adversarial, **EXACT)
    np.testing.assert_allclose(losses.terms["clean"].detach().numpy(), clean, **EXACT)
    np.testing.assert_allclose(losses.total.item(), (clean.mean() + adversarial.mean()) / 2, **EXACT)


def test_one_exit_is_that_of_all():
    x = batch().x
    model = trained(RDIResNetConfig().narrow(), x).eval()
    for k, logits in enumerate(model.exits(x)):
        assert torch.equal(model.exit(x, k), logits)


def test_a_trained_rdi_network_leaves_at_its_exits(tmp_path, monkeypatch):
    """The images that choose the best checkpoint set its thresholds, an equal share of them for every exit."""
    experiment = replace(
        TINY, model=replace(RDIResNetConfig().narrow(), width=8), objective=RDIConfig(inner="average", steps=1)
    )
    stopped_and_resumed(experiment, type(experiment.objective.build(THREAT, {})), monkeypatch, tmp_path)
    model = load(tmp_path / "whole")
    assert isinstance(model, RDIResNet)
    thresholds = model.get_buffer("thresholds")
    assert (thresholds > 0).all() and len(thresholds.unique()) == EXITS - 1
    chosen_on = load_data(experiment.data).validation.sample(70, seed=experiment.seed)
    x, _ = chosen_on.batch(torch.arange(70))
    exits = model.exits(x)
    assert model.leaves(exits).bincount().tolist() == [10] * EXITS
    assert (entropy(exits[0]) < thresholds[0]).sum() == 10


# --- Separate-Net's detector ---


def test_detector_by_hand():
    """Half of the batch is attacked on each network, and both types pass in one batch."""
    x, y, ids = batch()
    model = trained(PAIR, x)
    config = TypeDetectorConfig(steps=3)
    attacked, half = copy.deepcopy(model).eval(), len(x) // 2
    start, found = uniform(x, ids), []
    for network, rows in ((attacked.clean, slice(half)), (attacked.robust, slice(half, None))):
        found.append(pgd(network, x[rows], lambda z, y=y[rows]: CrossEntropy()(z, y), config, start[rows]))
    both = torch.cat([x, *found])
    of_type = copy.deepcopy(model.detector)(both).detach().numpy()
    by_hand = ce(of_type, np.array([1] * len(x) + [0] * len(x)))

    objective = config.build(THREAT, {"clean": nn.Identity(), "robust": nn.Identity()})
    losses = objective(model, x, y, ids, NOW)
    np.testing.assert_allclose(losses.terms["type"].detach().numpy(), (by_hand[:6] + by_hand[6:]) / 2, **EXACT)
    np.testing.assert_allclose(losses.total.item(), by_hand.mean(), **EXACT)
    losses.total.backward()
    with_gradient = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {"detector"}


def test_a_trained_separate_net_holds_its_networks_as_they_were(tmp_path, monkeypatch):
    """One checkpoint of three networks, two of which have not moved; also where weights are averaged, and after a stop."""
    parts = {
        role: create(getattr(PAIR, role), classes=10, channels=1, seed=i) for i, role in enumerate(["clean", "robust"])
    }
    experiment = replace(
        TINY, model=PAIR, objective=TypeDetectorConfig(steps=1), training=replace(TINY.training, ema=0.5)
    )
    before = {role: copy.deepcopy(network.state_dict()) for role, network in parts.items()}
    kind = type(experiment.objective.build(THREAT, parts))
    stopped_and_resumed(experiment, kind, monkeypatch, tmp_path, teachers=parts)
    for place in ("whole/best", "whole/last", "stopped/last"):
        model = load(tmp_path / place)
        assert isinstance(model, SeparateNet)
        for role, weights in before.items():
            found = getattr(model, role).state_dict()
            assert all(torch.equal(found[name], value) for name, value in weights.items() if "tracked" not in name)
    fresh = create(PAIR, classes=10, channels=1, seed=experiment.seed)
    assert not torch.equal(model.detector.head.weight, fresh.detector.head.weight)


def test_a_teacher_that_normalises_is_another_one_inside():
    """Mean and deviation are in no state dict: the weights fit, and the answers do not."""
    x, y, ids = batch()
    parts = {role: create(getattr(PAIR, role), classes=CLASSES, channels=1).double() for role in ("clean", "robust")}
    unsettle(parts["clean"], x)
    model = create(PAIR, classes=CLASSES, channels=1).double()
    objective = TypeDetectorConfig(steps=1).build(THREAT, parts)
    objective.prepare(model)
    objective(model, x, y, ids, NOW)
    normalising = create(replace(PAIR.clean, mean=(0.3,), std=(0.35,)), classes=CLASSES, channels=1).double()
    normalising.load_state_dict(parts["clean"].state_dict())
    objective = TypeDetectorConfig(steps=1).build(THREAT, {**parts, "clean": normalising})
    objective.prepare(model)
    with pytest.raises(Mistake, match="the clean teacher says something else inside of the SeparateNet than by itself"):
        objective(model, x, y, ids, NOW)


def test_networks_of_another_kind_are_refused():
    model = create(PAIR, classes=3, channels=1)
    other = create(ResNetConfig(depth=10, width=8), classes=3, channels=1)
    objective = TypeDetectorConfig().build(THREAT, {"clean": other, "robust": other})
    with pytest.raises(Mistake, match="weights in the clean teacher are those of another network"):
        objective.prepare(model)


# --- ADVMOE ---


def of_experts(x: Tensor) -> AdvMoEResNet:
    """As if trained, with both experts in use."""
    model = trained(AdvMoEResNetConfig().narrow(), x)
    assert isinstance(model, AdvMoEResNet)
    with torch.no_grad():
        model.router.head.bias.sub_(model.eval().router(x).mean(0))
    assert len(model.router(x).argmax(1).unique()) == 2
    return model.train()


def test_advmoe_by_hand():
    x, y, ids = batch()
    model = of_experts(x)
    config = AdvMoEConfig(steps=3, beta=2.0, alpha=0.7)
    attacked = copy.deepcopy(model).eval()
    p, r = (t.softmax(1).detach() for t in attacked.run(x))

    def both(output):
        return sum((q * (q.log() - z.log_softmax(1))).sum(1) for q, z in zip((p, r), output, strict=True))

    x_adv = pgd(attacked.run, x, both, config, gaussian(x, ids))
    assert (x_adv - x).abs().max() > 0.1
    plain = copy.deepcopy(model)  # in training mode, the adversarial images first
    (adversarial, s_adv), (clean, s_clean) = ([t.detach().numpy() for t in plain.run(z)] for z in (x_adv, x))

    losses = config.build(THREAT, {})(model, x, y, ids, NOW)
    by_hand = {
        "clean": ce(clean, y.numpy()),
        "stability": kl(clean, adversarial),
        "route": ce(s_clean, y.numpy() % 2),
        "route_stability": kl(s_clean, s_adv),
    }
    for name, value in by_hand.items():
        np.testing.assert_allclose(losses.terms[name].detach().numpy(), value, **EXACT)
    total = [by_hand[name].mean() for name in ("clean", "stability", "route", "route_stability")]
    np.testing.assert_allclose(losses.total.item(), total[0] + 2 * total[1] + 0.7 * total[2] + 2 * total[3], **EXACT)


def test_each_level_of_advmoe_has_parameters_of_its_own():
    """So that one step on the sum of both losses is a step on each in turn."""
    x, y, ids = batch()
    model = of_experts(x)
    losses = AdvMoEConfig(steps=1).build(THREAT, {})(model, x, y, ids, NOW)
    routing = {name for name, _ in model.named_parameters() if name.startswith("router.")}
    for terms, own in ((("clean", "stability"), False), (("route", "route_stability"), True)):
        model.zero_grad()
        sum(losses.terms[name].sum() for name in terms).backward(retain_graph=True)
        moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert moved and all((name in routing) == own for name in moved)


def test_advmoe_goes_on_where_it_stopped(tmp_path, monkeypatch):
    experiment = replace(TINY, model=AdvMoEResNetConfig().narrow(), objective=AdvMoEConfig())
    stopped_and_resumed(experiment, type(experiment.objective.build(THREAT, {})), monkeypatch, tmp_path)


# --- the ablations of Table 3 ---


@pytest.mark.parametrize("name", ["awnet-signals", "awnet-mixbn"])
def test_without_a_type_head_the_joint_loss_is_the_one_underneath(name):
    x, y, ids = batch()
    model = trained(MODELS[name].narrow(), x)
    over = TRADESConfig(steps=2)
    losses = JointConfig(over=over).build(THREAT, {})(model, x, y, ids, NOW)
    assert losses.terms.keys() == {"clean", "stability"}
    losses.total.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_signals_of_one_without_types_are_trades_on_a_resnet():
    """Both halves in one batch, as the single batch norm of the ablation sees them."""
    x, y, ids = batch()
    config = replace(DYNAMIC, router=replace(DYNAMIC.router, type_head=False), knob=Knob(p_max=0.0, omega=False))
    model = trained(replace(config, mix=False), x)
    plain = create(NARROW, classes=CLASSES, channels=1).double()
    mine = [t for name, t in model.state_dict().items() if not name.startswith("router.")]
    plain.load_state_dict(dict(zip(plain.state_dict(), mine, strict=True)))  # the same layers in the same order
    over = TRADESConfig(steps=2)
    x_adv = over.build(THREAT, {}).adversarial(copy.deepcopy(plain).eval(), x, y, ids, NOW)
    clean, adversarial = plain.train()(torch.cat([x, x_adv])).detach().numpy().reshape(2, 6, CLASSES)
    losses = JointConfig(over=over).build(THREAT, {})(model, x, y, ids, NOW)
    by_hand = ce(clean, y.numpy()).mean() + 6 * kl(clean, adversarial).mean()
    np.testing.assert_allclose(losses.total.item(), by_hand, **EXACT)


@pytest.mark.parametrize("name", ["rdi", "type-detector", "advmoe"])
def test_each_objective_trains_its_own_network(name):
    x, y, ids = batch()
    config = {"rdi": RDIConfig(), "type-detector": TypeDetectorConfig(), "advmoe": AdvMoEConfig()}[name]
    objective = config.build(THREAT, {"clean": nn.Identity(), "robust": nn.Identity()})
    model = create(MODELS["resnet18"].narrow(), classes=CLASSES, channels=1).double()
    with pytest.raises(Mistake, match=r"trains .* got ResNet"):
        objective(model, x, y, ids, NOW)
