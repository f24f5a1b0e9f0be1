"""The training of adaptive smoothing's mixing network against plain formulas, and to the end of an experiment."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from awnet.checkpoint import load
from awnet.data import DataConfig
from awnet.errors import Mistake
from awnet.experiment import Experiment, Selection, run
from awnet.losses import CrossEntropy
from awnet.models import AdaptiveSmoothing, AdaptiveSmoothingConfig, ResNetConfig, create
from awnet.threat_model import Linf
from awnet.training import MixingConfig, TrainingConfig
from awnet.training.optimizer import Constant, SGDConfig
from models.randomised import unsettle
from training.test_objectives import EXACT, NOW, THREAT, ce, pgd, uniform
from training.tiny import CLASSES, NARROW, batch

PAIR = AdaptiveSmoothingConfig(clean=NARROW, robust=replace(NARROW, depth=18), mixer=NARROW, low=0.1, high=0.9)


def trained(x) -> AdaptiveSmoothing:
    model = unsettle(create(PAIR, classes=CLASSES, channels=1).double(), x).train()
    assert isinstance(model, AdaptiveSmoothing)
    return model


def parts_of(model):
    return {"clean": copy.deepcopy(model.clean), "robust": copy.deepcopy(model.robust)}


def test_mixing_by_hand():
    """The attack is on the whole; both sorts of images pass the mixing network in one batch, the two networks in eval mode."""
    x, y, ids = batch()
    model = trained(x)
    config = MixingConfig(accuracy=0.3, type=1.5, product=0.2, steps=3)
    attacked = copy.deepcopy(model).eval()
    x_adv = pgd(attacked, x, lambda z: CrossEntropy()(z, y), config, uniform(x, ids))
    both = torch.cat([x, x_adv])
    clean, robust = (t.detach() for t in attacked.ask(both))
    gamma = copy.deepcopy(model.mixer)(both, clean, robust).detach().numpy()
    p_attacked = 1 / (1 + np.exp(-gamma))
    alpha = (0.1 + 0.8 * p_attacked)[:, None]
    accuracy = ce(np.log((1 - alpha) * clean.exp().numpy() + alpha * robust.exp().numpy()), np.tile(y.numpy(), 2))
    types = -np.concatenate([np.log(1 - p_attacked[:6]), np.log(p_attacked[6:])])

    def halves(term):
        return (term[:6] + term[6:]) / 2

    losses = config.build(THREAT, parts_of(model))(model, x, y, ids, NOW)
    for name, term in {"accuracy": accuracy, "type": types, "product": accuracy * types}.items():
        np.testing.assert_allclose(losses.terms[name].detach().numpy(), halves(term), **EXACT)
    total = 0.3 * accuracy.mean() + 1.5 * types.mean() + 0.2 * (accuracy * types).mean()
    np.testing.assert_allclose(losses.total.item(), total, **EXACT)
    assert losses.watched["types_told"].item() == pytest.approx(((gamma > 0) == (np.arange(12) >= 6)).mean())
    losses.total.backward()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {"mixer"}
    assert model.training and model.clean.training


def test_a_mixture_that_normalises_asks_networks_that_do():
    """Both by themselves see plain images, as they were trained to: normalised twice they would be others."""
    x, y, ids = batch()
    how = {"mean": (0.3,), "std": (0.35,)}
    model = create(replace(PAIR, **how), classes=CLASSES, channels=1).double()
    parts = {
        role: create(replace(getattr(PAIR, role), **how), classes=CLASSES, channels=1, seed=i).double()
        for i, role in enumerate(("clean", "robust"), 1)
    }
    seen: list[torch.Tensor] = []
    parts["robust"].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    objective = MixingConfig(steps=1).build(THREAT, parts)
    objective.prepare(model)
    objective(model, x, y, ids, NOW)
    assert torch.equal(seen[-1][: len(x)], x)


def test_a_trained_mixture_holds_its_networks_as_they_were(tmp_path):
    parts = {
        role: create(getattr(PAIR, role), classes=10, channels=1, seed=i) for i, role in enumerate(["clean", "robust"])
    }
    before = {role: copy.deepcopy(network.state_dict()) for role, network in parts.items()}
    experiment = Experiment(
        name="tiny",
        data=DataConfig(name="digits", validation=0.95),
        model=PAIR,
        objective=MixingConfig(steps=1),
        threat=Linf(0.2),
        training=TrainingConfig(epochs=2, batch_size=32, optimizer=SGDConfig(lr=0.05), schedule=Constant(), ema=0.5),
        selection=Selection(attack="fgsm", limit=70),
    )
    out = run(experiment, tmp_path / "run", quiet=True, teachers=parts)
    for place in ("best", "last"):
        model = load(out / place)
        assert isinstance(model, AdaptiveSmoothing) and (model.low, model.high) == (0.1, 0.9)
        for role, weights in before.items():
            found = getattr(model, role).state_dict()
            assert all(torch.equal(found[name], value) for name, value in weights.items() if "tracked" not in name)
    fresh = create(PAIR, classes=10, channels=1, seed=experiment.seed)
    assert not torch.equal(load(out / "last").mixer.head.weight, fresh.mixer.head.weight)


def test_it_learns_to_tell_attacked_images():
    x, y, ids = batch(24)
    model = trained(x)
    objective = MixingConfig(steps=2).build(replace(THREAT, eps=0.3), parts_of(model))
    optimizer = torch.optim.SGD(model.mixer.parameters(), lr=0.05, momentum=0.9)
    first = None
    for step in range(25):
        losses = objective(model, x, y, ids, NOW._replace(seed=step))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        first = losses.terms["type"].mean().item() if first is None else first
    assert losses.terms["type"].mean().item() < first / 2 and losses.watched["types_told"] > 0.8


def test_other_networks_are_refused():
    x, y, ids = batch()
    other = create(ResNetConfig(depth=10, width=8), classes=CLASSES, channels=1)
    objective = MixingConfig().build(THREAT, {"clean": other, "robust": other})
    with pytest.raises(Mistake, match="weights in the clean teacher are those of another network"):
        objective.prepare(trained(x))
    with pytest.raises(Mistake, match="mixing network of adaptive smoothing, got ResNet"):
        objective(other, x, y, ids, NOW)


@pytest.mark.parametrize("weights", [{"type": -1.0}, {"type": 0.0, "product": 0.0}, {"accuracy": float("inf")}])
def test_weights_out_of_range(weights):
    with pytest.raises(Mistake, match="0 or more"):
        MixingConfig(**weights)
