"""Omega replaced, against plain loops and against what batch norm does to a constant factor."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from awnet.analysis.survival import ANEW, AS_IS, WAYS, Types, estimated_anew, share_between_types, survival
from awnet.errors import Mistake
from awnet.models import AWNet, Branch
from awnet.models.dynamic_conv import DynamicConv2d
from awnet.models.mix_batch_norm import MixBatchNorm2d, Route
from awnet.noise import permutation
from training.tiny import awnet, dataset, own

X, Y = dataset(12).batch(torch.arange(12))
X = X.double()
IMAGES = Types(X, (X + 0.1 * torch.sin(17 * torch.arange(X.numel()).double().view_as(X))).clamp(0, 1))


def by_hand(model: AWNet, x: torch.Tensor, change) -> torch.Tensor:
    """Logits, image by image, each with signals that are given."""
    rows = []
    every = model.run(x).routing.signals
    for i in range(len(x)):
        routing = model.router(x[i : i + 1])
        routing = routing._replace(signals=tuple(change(layer, i)[None] for layer in every))
        rows.append(model.classify(x[i : i + 1], routing, Branch.MIXTURE)[0])
    return torch.stack(rows).detach()


def test_each_way_is_what_a_plain_loop_finds():
    model = awnet(X)
    found = survival(model, IMAGES, Y, seed=3, batch_size=5)
    assert model.training and list(found) == list(WAYS)
    model.eval()
    order = permutation(3, 12).tolist()
    partner = {i: order[k - 1] for k, i in enumerate(order)}
    assert all(i != other for i, other in partner.items()) and sorted(partner.values()) == list(range(12))
    changes = {
        AS_IS: lambda layer, i: layer[i],
        "mean of its type": lambda layer, i: layer.mean(0),
        "shuffled": lambda layer, i: layer[partner[i]],
        "one": lambda layer, i: torch.ones_like(layer[i]),
    }
    for type_, x in IMAGES._asdict().items():
        plain = by_hand(model, x, changes[AS_IS])
        torch.testing.assert_close(plain, model(x).detach())
        for way, change in changes.items():
            logits, said = by_hand(model, x, change), found[way][type_]
            assert torch.equal(said.correct, logits.argmax(1) == Y)
            assert torch.equal(said.moved, logits.argmax(1) != plain.argmax(1))
            expected = (logits - plain).square().mean(1).sqrt().float()
            torch.testing.assert_close(said.change, expected, atol=1e-5, rtol=1e-4)
            assert bool(said.change.any()) == (way != AS_IS)


def test_signals_that_are_one_already_change_nothing():
    model = awnet(X)
    torch.nn.init.zeros_(model.router.signal_heads.weight)
    torch.nn.init.zeros_(model.router.signal_heads.bias)
    for way, by_type in survival(model, IMAGES, Y).items():
        assert not any(said.change.any() or said.moved.any() for said in by_type.values()), way


def test_a_factor_that_a_type_shares_does_not_survive_its_batch_norm():
    """Why omega is replaced at all: in training, gamma (omega pi - omega mu) / (omega sigma) is free of omega."""
    layer = DynamicConv2d(2, 5, 3, 1).double().train()
    x, omega = torch.randn(8, 2, 6, 6).double(), (torch.rand(5).double() * 8 + 0.1).expand(8, 5)
    constant, none = (layer(x, given, Route(Branch.CLEAN)) for given in (omega, None))
    torch.testing.assert_close(constant, none, atol=1e-3, rtol=0)
    varying = layer(x, omega * (1 + 0.5 * torch.rand(8, 1).double()), Route(Branch.CLEAN))
    assert (varying - none).abs().max() > 0.1


def test_statistics_anew_are_those_of_each_type_without_omega():
    model = awnet(X)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    anew = estimated_anew(model, IMAGES, batch_size=12)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items()) and model.training
    assert not any(module.training for module in anew.modules()) and not anew.knob.omega
    for bn, x in ((anew.stem.bn.nat, IMAGES.clean), (anew.stem.bn.adv, IMAGES.attacked)):
        pi = model.stem.conv(model.normalize(x))
        torch.testing.assert_close(bn.running_mean, pi.mean((0, 2, 3)).detach())
        torch.testing.assert_close(bn.running_var, pi.var((0, 2, 3)).detach())
    for ours, theirs in zip(anew.router.state_dict().values(), model.router.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    last = [m for m in anew.modules() if isinstance(m, MixBatchNorm2d)][-1]
    assert not torch.equal(last.nat.running_mean, last.adv.running_mean)


def test_batches_count_the_same_when_statistics_are_anew():
    whole, halves = (estimated_anew(awnet(X), IMAGES, batch_size=size).stem.bn.nat for size in (12, 6))
    torch.testing.assert_close(whole.running_mean, halves.running_mean)


def test_the_way_with_statistics_anew_is_there_where_images_are():
    model = awnet(X)
    found = survival(model, IMAGES, Y, fit=IMAGES)
    expected = (estimated_anew(model, IMAGES)(X).argmax(1) == Y).detach()
    assert list(found) == [*WAYS, ANEW] and torch.equal(found[ANEW]["clean"].correct, expected)
    assert not torch.equal(found[ANEW]["clean"].change, found["one"]["clean"].change)


def test_share_between_types_of_known_signals():
    types = {"apart": (1.0, 3.0, 0.0), "alike": (2.0, 2.0, 1.0), "both": (1.0, 3.0, 1.0), "still": (2.0, 2.0, 0.0)}
    swing = torch.tensor([1.0, -1, 1, -1])[:, None].expand(4, 5)
    clean = {name: a + s * swing for name, (a, _, s) in types.items()}
    attacked = {name: b + s * swing for name, (_, b, s) in types.items()}
    found = share_between_types(clean, attacked)
    assert found["apart"] == 1 and found["alike"] == 0 and found["both"] == 0.5 and found["still"] != found["still"]


def test_bad_input():
    model = awnet(X)
    for network, images, y, says in [
        (own(), IMAGES, Y, "got a Own"),
        (model.turned(replace(model.knob, omega=False)), IMAGES, Y, "that has one"),
        (model, Types(X[:1], X[:1]), Y[:1], "2 or more images of each type, got 1 clean ones"),
        (model, Types(X, X[:3]), Y, "12 clean ones, 3 attacked ones and 12 labels"),
    ]:
        with pytest.raises(Mistake, match=says):
            survival(network, images, y)
