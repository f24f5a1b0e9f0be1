"""What is said of the signals omega, against plain loops over images, layers and filters."""

from __future__ import annotations

import sys
from dataclasses import replace
from statistics import mean, pvariance

import numpy as np
import pytest
import torch

from awnet.attacks import PGD, Engine, fgsm
from awnet.attacks.adaptive.warm_start import warm
from awnet.evaluation import Record
from awnet.evaluation.evaluate import evaluate
from awnet.evaluation.modulation import AVERAGED, SAMPLE, Omega, signals, summarise, with_means
from awnet.models import AWNet, create
from awnet.models.model import Modulating
from awnet.threat_model import Linf
from models.randomised import unsettle
from training.tiny import CLASSES, DYNAMIC, dataset, own

THREAT = Linf(0.15)
DATA = dataset(11, split="test", seed=4)
X, Y = DATA.batch(torch.arange(11))
ATTACKS = {"fgsm": fgsm(THREAT), "pgd": PGD(threat=THREAT, steps=3)}


def network(**changes) -> AWNet:
    model = unsettle(create(replace(DYNAMIC, **changes), classes=CLASSES, channels=1), X)
    assert isinstance(model, AWNet)
    return model.train()  # as its owner left it


def judged(model, **more) -> Record:
    return evaluate(model, DATA, ATTACKS, threat=THREAT, engine=Engine(batch_size=4), **more)


def by_hand(model: AWNet, x: torch.Tensor, clean: torch.Tensor | None = None) -> list[dict[str, float]]:
    """The statistics of each layer, from lists of numbers, one image at a time."""
    model.eval()
    found = []
    for layer in range(len(model.router.filters)):
        rows, before = (
            [model.run(image[None]).routing.signals[layer][0].tolist() for image in images]
            for images in (x, x if clean is None else clean)
        )
        values = [v for row in rows for v in row]
        low, median, high = np.quantile(values, [0.05, 0.5, 0.95])
        of_filters = zip(*rows, strict=True)
        said = {
            "filters": len(rows[0]),
            "mean": mean(values),
            "deviation": mean(pvariance(of_one) for of_one in of_filters) ** 0.5,
            "low": low,
            "median": median,
            "high": high,
        }
        if clean is not None:
            pairs = [zip(a, b, strict=True) for a, b in zip(rows, before, strict=True)]
            said["shift"] = mean(abs(a - b) for pair in pairs for a, b in pair)
        found.append(said)
    return found


def same(found: dict[str, Omega], expected: list[dict[str, float]]) -> None:
    for omega, by_name in zip(found.values(), expected, strict=True):
        assert {name: getattr(omega, name) for name in by_name} == pytest.approx(by_name, abs=1e-4)


@pytest.mark.parametrize("shortcuts", [False, True], ids=["convs", "shortcuts"])
def test_numbers_are_those_of_a_plain_loop(shortcuts):
    model = network(modulate_shortcuts=shortcuts)
    record = judged(model)
    assert model.training, "left as it was"
    same(record.clean.omega, by_hand(model, X))
    assert all(omega.shift is None for omega in record.clean.omega.values())
    for name, attack in ATTACKS.items():
        x_adv = attack(model, X, Y, ids=DATA.ids)
        same(record.attacks[name].omega, by_hand(model, x_adv, X))
        assert min(omega.shift or 0 for omega in record.attacks[name].omega.values()) > 0.01


def test_layers_are_called_by_their_place():
    layers = list(signals(network(modulate_shortcuts=True), X, 4))
    assert layers[:3] == ["block 1, conv 1", "block 1, conv 2", "block 2, conv 1"]
    assert layers[4] == "block 2, shortcut" and len(layers) == 11
    assert [len(layers) for layers in (signals(network(), X, 4), summarise({}))] == [8, 0]


def test_a_batch_changes_nothing():
    model = network()
    for layer, omega in signals(model, X, 4).items():
        torch.testing.assert_close(omega, signals(model, X, 11)[layer])
        assert omega.shape[0] == 11 and ((omega > 0) & (omega < 8)).all()


def test_a_static_network_has_none():
    model = own(2)
    assert not isinstance(model, Modulating) and signals(model, X, 4) == {}
    record = judged(model)
    assert record.clean.omega == {} and all(result.omega == {} for result in record.attacks.values())


def test_none_where_the_knob_sets_them_to_one():
    model = network()
    assert judged(model.turned(replace(model.knob, omega=False))).clean.omega == {}


def test_a_fresh_router_scales_nothing_yet():
    (omega, *_) = summarise(signals(create(DYNAMIC, classes=CLASSES, channels=1), X, 4)).values()
    assert (omega.mean, omega.deviation, omega.low, omega.high) == (1, 0, 1, 1)


def test_comes_back_from_disk_and_stays_when_an_evaluation_goes_on(tmp_path):
    record = judged(network(), out=tmp_path)
    again = Record.load(tmp_path)
    assert again.clean.omega == record.clean.omega
    assert again.attacks["pgd"].omega == record.attacks["pgd"].omega != {}
    resumed = judged(network(), out=tmp_path, resume=True)
    assert resumed.attacks["pgd"].omega == record.attacks["pgd"].omega


def test_the_means_are_those_of_a_fixed_sample_of_the_split():
    """So that what falls does not depend on which images are attacked."""
    model, split = network(), dataset(SAMPLE + 40, split="test", seed=9)
    sample = split.sample(SAMPLE, seed=0)
    clean, _ = sample.batch(torch.arange(SAMPLE))
    told = with_means(model, split)
    assert isinstance(told, AWNet) and model.training and not model.means
    for mean_, omega in zip(told.means, signals(model, clean, 100).values(), strict=True):
        torch.testing.assert_close(mean_, omega.mean(0))
    assert with_means(told, DATA) is told, "what is known stays"


def test_nothing_to_average():
    static, unscaled = own(2), network()
    unscaled = unscaled.turned(replace(unscaled.knob, omega=False))
    assert with_means(static, DATA) is static and with_means(unscaled, DATA) is unscaled
    assert with_means(network(), DATA.subset(torch.arange(0))).means == ()


def test_an_evaluation_attacks_the_form_with_the_means_of_the_whole_split(monkeypatch):
    averaged_over = []
    monkeypatch.setattr(
        sys.modules[evaluate.__module__],
        "with_means",
        lambda model, clean: averaged_over.append(clean) or with_means(model, clean),
    )
    model, split = network(), dataset(90, split="test", seed=9)
    attack = replace(warm(THREAT, AVERAGED), steps=4, then=1, targets=1)
    engine, few = Engine(batch_size=20), split.sample(20, seed=0)
    record = evaluate(model, split, {"warm": attack}, threat=THREAT, engine=engine, limit=20, samples=20)
    found = engine.run(attack, with_means(model, split), few)
    without = engine.run(attack, model, few)
    assert not torch.equal(found.x_adv, without.x_adv), "the form is another start than the model as it is"
    assert torch.equal(record.attacks["warm"].correct, found.correct)
    assert averaged_over == [split], "not the images that are attacked alone"
    assert model.training and "averaged" not in model.forms
