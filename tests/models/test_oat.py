"""OAT's layers against their equations, its batch norms by lambda, and its knob."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from awnet.errors import Mistake
from awnet.models import OAT, OATConfig, ResNetConfig, create, parameter_count
from awnet.models.oat import Condition, ConditionedConv2d, DualBatchNorm2d
from models.randomised import randomise

NARROW = OATConfig(base=ResNetConfig(depth=10, width=4), encoding=8)
X = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
WHICH = torch.tensor([3, 0, 5, 0, 1, 3])


def made(config=NARROW) -> OAT:
    model = randomise(create(config, classes=5).double()).eval()
    assert isinstance(model, OAT)
    return model


def batch_norm(z, mean, var, bn):
    weight, bias, mean, var = (t[:, None, None] for t in (bn.weight, bn.bias, mean, var))
    return (z - mean) / (var + bn.eps).sqrt() * weight + bias


def test_a_layer_is_its_equation():
    """Image by image: a batch norm by whether lambda is 0, then gain and shift from the perceptron on lambda's vector."""
    layer = randomise(ConditionedConv2d(3, 4, 3, 2, 8).double()).eval()
    codes = torch.randn(6, 8, dtype=torch.float64)
    out = layer(X, Condition(codes, WHICH, WHICH == 0))
    for i, place in enumerate(WHICH.tolist()):
        bn = layer.bn.a if place else layer.bn.c
        hidden = layer.hidden.weight @ codes[place] + layer.hidden.bias
        film = layer.film.weight @ torch.where(hidden > 0, hidden, hidden / 100) + layer.film.bias
        z = batch_norm(
            F.conv2d(X[i : i + 1], layer.conv.weight, stride=2, padding=1)[0], bn.running_mean, bn.running_var, bn
        )
        torch.testing.assert_close(out[i], film[:4, None, None] * z + film[4:, None, None])


def test_in_training_each_batch_norm_sees_its_own_images():
    bn = randomise(DualBatchNorm2d(3).double()).train()
    before = {name: t.clone() for name, t in bn.state_dict().items()}
    first = WHICH == 0
    out = bn(X, first)
    for norm, name, rows in ((bn.c, "c", first), (bn.a, "a", ~first)):
        z = X[rows]
        mean, var = z.mean((0, 2, 3)), z.var((0, 2, 3), unbiased=False)
        torch.testing.assert_close(out[rows], batch_norm(z, mean, var, norm))
        torch.testing.assert_close(norm.running_mean, 0.9 * before[f"{name}.running_mean"] + 0.1 * mean)
        unbiased = 0.9 * before[f"{name}.running_var"] + 0.1 * z.var((0, 2, 3))
        torch.testing.assert_close(norm.running_var, unbiased)


def test_at_the_start_it_is_nearly_an_ordinary_residual_network():
    layer = ConditionedConv2d(3, 4, 3, 1, 8)
    film = layer.film.bias
    assert film[:4].eq(1).all() and film[4:].eq(0).all()


def test_a_batch_of_several_lambdas_is_each_image_by_itself():
    model = made()
    together = model(X, WHICH)
    for i, place in enumerate(WHICH.tolist()):
        alone = model.turned(model.lambdas[place])(X[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)


def test_every_lambda_is_another_network_with_the_same_weights():
    model = made()
    assert torch.equal(model(X), model.turned(0.2)(X)) and model.lam == 0.2
    answers = [model.turned(lam)(X) for lam in model.lambdas]
    for i, first in enumerate(answers):
        assert all((first - second).abs().max() > 1e-3 for second in answers[i + 1 :])
    assert model.turned(1.0).head is model.head


def test_the_vectors_are_orthonormal_and_come_from_a_file():
    model = create(NARROW, classes=5)
    torch.testing.assert_close(model.codes @ model.codes.T, torch.eye(6))
    assert "codes" in model.state_dict() and not torch.equal(create(NARROW, classes=5, seed=1).codes, model.codes)


def test_bottlenecks():
    model = made(OATConfig(base=ResNetConfig(depth=50, width=4), encoding=8))
    assert model(X).shape == (6, 5) and not torch.equal(model.turned(0.0)(X), model(X))


def test_how_large_it_is():
    """A residual network, as many numbers of batch norm again, and two layers for each convolution's filters."""
    base = ResNetConfig(depth=18, width=4)
    filters = [4] * 5 + (
        [8] * 5 + [16] * 5 + [32] * 5
    )  # stem and two blocks; then two blocks and a shortcut, three times
    extra = sum(2 * c + (8 * 2 * c + 2 * c) + (2 * c) * (2 * c) + 2 * c for c in filters)
    plain = parameter_count(create(base, classes=5))
    assert parameter_count(create(OATConfig(base=base, encoding=8), classes=5)) == plain + extra


@pytest.mark.parametrize("lambdas", [(0.0,), (0.1, 1.0), (0.0, 0.5, 0.5), (0.0, 1.5), (0.0, float("nan"))])
def test_lambdas_that_mean_nothing(lambdas):
    with pytest.raises(Mistake, match="rise from 0 to at most 1"):
        OATConfig(lambdas=lambdas, lam=0.0)


def test_other_settings_that_mean_nothing():
    with pytest.raises(Mistake, match="encoding"):
        OATConfig(encoding=4)
    with pytest.raises(Mistake, match=r"trained for lambda 0, 0.1, 0.2, 0.3, 0.4, 1, got 0.5"):
        OATConfig(lam=0.5)
    with pytest.raises(Mistake, match=r"got 0.25; choose one of them"):
        made().turned(0.25)
    with pytest.raises(Mistake, match="OAT normalises once"):
        OATConfig(base=ResNetConfig(mean=(0.5,), std=(0.5,)))
