"""Table 5's protocol on a network of a few hundred weights, and attacks that know the detector."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from attacks.nets import small_net
from awnet.attacks import FAB, PGD, Attack, Engine, TensorExamples, fgsm
from awnet.attacks.adaptive import evasions
from awnet.config import from_json
from awnet.data import Dataset
from awnet.detection import DETECTORS, DetectorConfig, Guarded, Mahalanobis, MaxSoftmax
from awnet.errors import Mistake
from awnet.evaluation import auc
from awnet.evaluation.detection import detection, scores
from awnet.evaluation.detectors import Told, compare, known_of, pairs
from awnet.evaluation.metrics import threshold_at
from awnet.threat_model import Linf

BALL = Linf(0.2)
ENGINE = Engine(batch_size=32)


def digits(split: str, start: int, n: int) -> Dataset:
    from sklearn.datasets import load_digits

    ink, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(ink[start : start + n] * (255 / 16)).round().byte().view(-1, 1, 8, 8)
    ids = torch.arange(start, start + n)
    return Dataset("digits", split, images, torch.from_numpy(labels[start : start + n]), ids, tuple("0123456789"))


TRAIN, VALIDATION, TEST = digits("train", 0, 400), digits("validation", 400, 80), digits("test", 480, 60)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    net = small_net(channels=1, width=4)
    x, y = TRAIN.batch(torch.arange(len(TRAIN)))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(80):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net


def test_pairs_are_of_images_that_are_right(model: nn.Module):
    found = pairs(model, fgsm(BALL), TEST, engine=ENGINE, seed=0)
    x, y = TEST.batch(torch.arange(len(TEST)))
    right = model(x).argmax(1) == y
    assert 0 < len(found.x) < len(x) or right.all()
    assert torch.equal(found.x, x[right]) and torch.equal(found.ids, TEST.ids[right])
    assert torch.equal(found.fooled, model(found.x_adv).argmax(1) != y[right])
    assert BALL.contains(found.x, found.x_adv).all() and not torch.equal(found.x, found.x_adv)


def test_told_by_hand():
    told = Told(torch.tensor([3.0, 1.0]), torch.tensor([2.0, 0.0]), torch.tensor([True, False]), torch.ones(2).bool())
    assert told.auc() == 0.75 and told.auc(fooled=True) == 0.5
    assert told.noticed(0.5) == 1 and told.noticed(0.5, fooled=True) == 1 and told.noticed(0.0) == 0.5
    nobody = told._replace(fooled=torch.zeros(2).bool())
    assert nobody.auc(fooled=True) != nobody.auc(fooled=True)  # NaN
    one = told._replace(changed=torch.tensor([False, True]))
    assert one.auc() == one.noticed(0.0) == 1 and one.auc(fooled=True) != one.auc(fooled=True)
    none = told._replace(changed=torch.zeros(2).bool())
    assert none.auc() != none.auc() and none.noticed(0.5) != none.noticed(0.5)


def test_images_that_an_attack_gives_back_are_not_scored(model: nn.Module):
    fab = FAB(threat=Linf(0.05), targets=2, steps=5)
    found = pairs(model, fab, TEST, engine=ENGINE, seed=0)
    assert 0 < found.changed.sum() < len(found.x) and torch.equal(found.changed, found.fooled)
    detectors = {"max-softmax": MaxSoftmax()}
    told = compare(model, detectors, {"fab": fab}, train=TRAIN, validation=VALIDATION, test=TEST, engine=ENGINE)
    one, figures = told.told["max-softmax"]["fab"], told.figures()["max-softmax"]["fab"]
    assert torch.equal(one.changed, found.changed) and figures["changed"] == found.changed.sum()
    assert figures["AUC"] == figures["AUC, fooled"] == auc(one.clean, one.attacked[found.changed])


def test_the_table(model: nn.Module, tmp_path):
    attacks: dict[str, Attack] = {"fgsm": fgsm(BALL), "pgd": PGD(threat=BALL, steps=4)}
    detectors: dict[str, DetectorConfig] = {"max-softmax": MaxSoftmax(), "mahalanobis": Mahalanobis()}
    sets = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    found = compare(model, detectors, attacks, **sets, engine=ENGINE)
    told = found.told["mahalanobis"]["pgd"]
    by_hand = pairs(model, attacks["pgd"], TEST, engine=ENGINE, seed=0)
    known = known_of(model, attacks["pgd"], train=TRAIN, validation=VALIDATION, engine=ENGINE, seed=0)
    detector = Mahalanobis().fit(model, known)
    torch.testing.assert_close(told.clean, detector.score(by_hand.x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(told.attacked, detector.score(by_hand.x_adv), atol=1e-4, rtol=1e-4)
    assert found.figures()["mahalanobis"]["pgd"]["AUC"] == auc(told.clean, told.attacked) > 0.6

    once = compare(model, detectors, attacks, **sets, engine=ENGINE, fit_attack="fgsm")
    assert torch.equal(once.told["mahalanobis"]["fgsm"].clean, found.told["mahalanobis"]["fgsm"].clean)
    assert not torch.equal(once.told["mahalanobis"]["pgd"].clean, told.clean)  # fitted under another attack
    with pytest.raises(Mistake, match="not among fgsm, pgd"):
        compare(model, detectors, attacks, **sets, fit_attack="cw")

    found.save(tmp_path / "record", {"model": "small"})
    said = json.loads((tmp_path / "record" / "detectors.json").read_text())
    assert said["figures"] == found.figures() and said["fitted under"] == "the same attack"
    assert from_json(said["detectors"]["mahalanobis"]) == Mahalanobis()
    kept = load_file(tmp_path / "record" / "detectors.safetensors")
    assert torch.equal(kept["mahalanobis/pgd/attacked"], told.attacked)
    assert torch.equal(kept["mahalanobis/pgd/changed"], by_hand.changed)


def test_nothing_right_is_told(model: nn.Module):
    x, _ = TEST.batch(torch.arange(len(TEST)))
    wrong = (model(x).argmax(1) + 1) % 10
    shifted = Dataset(TEST.name, "test", TEST.images, wrong, TEST.ids, TEST.classes)
    with pytest.raises(Mistake, match="no test image of digits is classified correctly"):
        pairs(model, fgsm(BALL), shifted, engine=ENGINE, seed=0)


@pytest.mark.parametrize("name", ["feature-squeezing", "mahalanobis", "lid"])
def test_attackers_who_know_the_detector_get_past_it(model: nn.Module, name: str):
    """One that looks at both gets past the detector more often than one that looks at the class alone."""
    plain = PGD(threat=BALL, steps=20)
    known = known_of(model, plain, train=TRAIN, validation=VALIDATION, engine=ENGINE, seed=0)
    guarded = Guarded(DETECTORS[name].fit(model, known))
    found = pairs(model, plain, TEST.sample(16, seed=0), engine=ENGINE, seed=0)
    caught = threshold_at(0.05, scores(guarded, known.clean, 32)[0])
    unaware = found.fooled & (scores(guarded, found.x_adv, 32)[0] >= caught)

    aware = replace(evasions(BALL, caught)["evade-sum"], steps=10, then=10, targets=1)
    y = model(found.x).argmax(1)
    x_adv = ENGINE.run(aware, guarded, TensorExamples(found.x, y, found.ids)).x_adv
    score, prediction = scores(guarded, x_adv, 32)
    assert BALL.contains(found.x, x_adv).all()
    assert ((prediction != y) & (score >= caught)).sum() > unaware.sum()


@pytest.mark.slow
def test_a_guarded_classifier_is_judged_as_a_network_that_routes_is(model: nn.Module):
    attack = PGD(threat=BALL, steps=8)
    known = known_of(model, attack, train=TRAIN, validation=VALIDATION, engine=ENGINE, seed=0)
    guarded = Guarded(Mahalanobis().fit(model, known))
    found = detection(
        guarded,
        TEST,
        lambda ball: {"pgd": PGD(threat=ball, steps=8)},
        threat=BALL,
        engine=ENGINE,
        limit=12,
        rates=(0.05,),
    )
    seen = found.attacked["pgd"]
    unaware = ~seen.correct & (seen.score >= threshold_at(0.05, found.clean.score))
    assert found.evaded[0.05].sum() >= unaware.sum()
    assert found.with_rejection(0.05).value <= found.with_rejection(0.05, halved=True).value
