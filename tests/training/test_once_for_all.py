"""Once-for-all training against its equation image by image, the lambdas that it draws, and a training to its end."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from awnet.checkpoint import load
from awnet.data import DataConfig
from awnet.errors import Mistake
from awnet.experiment import Experiment, Selection, run
from awnet.losses import CrossEntropy
from awnet.models import OAT, OATConfig, create
from awnet.threat_model import Linf
from awnet.training import OnceForAllConfig, TrainingConfig
from awnet.training.oat import drawn
from awnet.training.optimizer import Constant, SGDConfig
from models.randomised import unsettle
from training.test_objectives import EXACT, NOW, THREAT, ce, pgd, uniform
from training.tiny import CLASSES, NARROW, batch, own

SMALL = OATConfig(base=NARROW, encoding=8, lambdas=(0.0, 0.25, 1.0), lam=0.25)


def trained(x) -> OAT:
    model = unsettle(create(SMALL, classes=CLASSES, channels=1).double(), x).train()
    assert isinstance(model, OAT)
    return model


def test_once_for_all_by_hand():
    x, y, ids = batch(9)
    model = trained(x)
    config = OnceForAllConfig(steps=3)
    which = drawn(3, ids, NOW)
    assert sorted(which.unique().tolist()) == [0, 1, 2]
    attacked = copy.deepcopy(model).eval()
    x_adv = pgd(lambda z: attacked(z, which), x, lambda z: CrossEntropy()(z, y), config, uniform(x, ids))
    rows = which > 0
    plain = copy.deepcopy(model)  # in training mode, the clean images first, the adversarial ones through BN_a alone
    clean = ce(plain(x, which).detach().numpy(), y.numpy())
    adversarial = np.zeros(9)
    adversarial[rows] = ce(plain(x_adv[rows], which[rows]).detach().numpy(), y[rows].numpy())
    lam = np.array([SMALL.lambdas[place] for place in which])

    objective = config.build(THREAT, {})
    partners = objective.adversarial(model, x, y, ids, NOW)
    assert torch.equal(partners[~rows], x[~rows])
    torch.testing.assert_close(partners[rows], x_adv[rows])
    losses = objective(model, x, y, ids, NOW)
    np.testing.assert_allclose(losses.terms["clean"].detach().numpy(), (1 - lam) * clean, **EXACT)
    np.testing.assert_allclose(losses.terms["adversarial"].detach().numpy(), lam * adversarial, **EXACT)
    np.testing.assert_allclose(losses.total.item(), ((1 - lam) * clean + lam * adversarial).mean(), **EXACT)
    for name, t in model.state_dict().items():
        torch.testing.assert_close(t, plain.state_dict()[name], msg=name)
    losses.total.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_lambdas_are_drawn_evenly_and_anew():
    ids = torch.arange(600)
    which = drawn(6, ids, NOW)
    counts = which.bincount().tolist()
    assert counts[0] == 100 and all(70 < count < 130 for count in counts[1:]) and len(counts) == 6
    assert torch.equal(drawn(6, ids, NOW), which)
    later = drawn(6, ids, NOW._replace(seed=NOW.seed + 1))
    assert 0.05 < (later == which).double().mean() < 0.3
    assert drawn(6, ids[:4], NOW).eq(0).sum() == 2 and drawn(6, ids[:1], NOW).tolist() == [0]


def test_a_trained_network_comes_back_with_its_knob(tmp_path):
    experiment = Experiment(
        name="tiny",
        data=DataConfig(name="digits", validation=0.95),
        model=SMALL,
        objective=OnceForAllConfig(steps=1),
        threat=Linf(0.2),
        training=TrainingConfig(epochs=2, batch_size=24, optimizer=SGDConfig(lr=0.05), schedule=Constant()),
        selection=Selection(attack="fgsm", limit=40),
    )
    out = run(experiment, tmp_path / "run", quiet=True)
    model = load(out / "last")
    assert isinstance(model, OAT) and model.lam == 0.25
    fresh = create(SMALL, classes=10, channels=1, seed=experiment.seed)
    assert torch.equal(model.codes, fresh.codes)
    for moved in ("stem.film.weight", "blocks.0.convs.0.bn.c.weight", "blocks.0.convs.0.bn.a.running_mean"):
        assert not torch.equal(model.state_dict()[moved], fresh.state_dict()[moved])


def test_other_networks_are_refused():
    x, y, ids = batch()
    with pytest.raises(Mistake, match="batches of 4 images or more, got 2"):  # lambda is 0 for both of them
        OnceForAllConfig().build(THREAT, {})(trained(x), x[:2], y[:2], ids[:2], NOW)
    with pytest.raises(Mistake, match=r"conditioned on lambda \(OAT\), got Own"):
        OnceForAllConfig().build(THREAT, {})(own(), x, y, ids, NOW)
