"""Eq. 8 of the paper, where it holds and where it does not; conditions as in section 8 of the method notes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from awnet.analysis.first_order import DUAL, first_order
from awnet.errors import Mistake
from awnet.losses import CrossEntropy
from awnet.threat_model import L1, L2, Linf
from training.tiny import CLASSES, awnet, dataset

X, Y = dataset(9).batch(torch.arange(9))
EPS = 8 / 255


def network(activation: type[nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        convs = [nn.Conv2d(1, 8, 3, padding=1), activation(), nn.Conv2d(8, 8, 3, padding=1), activation()]
        return nn.Sequential(*convs, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(128, CLASSES)).train()


def residuals(model: nn.Module, threats) -> list[float]:
    return [first_order(model, X, Y, threat=threat).residual for threat in threats]


@pytest.mark.parametrize("activation", [nn.Softplus, nn.SiLU, nn.GELU])
def test_holds_where_the_network_is_smooth(activation):
    found = first_order(network(activation), X, Y, threat=Linf(EPS))
    assert found.residual < 0.03 and found.cosine > 0.999 and found.filter_mean_correlation > 0.99
    large, small, smaller = residuals(network(activation), [Linf(EPS), Linf(EPS / 10), Linf(EPS / 100)])
    # what is left out is of the second order in eps: a tenth of the step, a tenth of the error
    assert large / small == pytest.approx(10, rel=0.3) and small / smaller == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_fails_in_a_network_of_relus_and_not_for_want_of_a_small_eps(seed):
    model = network(nn.ReLU, seed)
    found = [first_order(model, X, Y, threat=Linf(EPS / part)) for part in (1, 10)]
    assert all(one.residual > 0.25 for one in found)
    assert all(one.cosine < 0.98 for one in found)


@pytest.mark.parametrize("threat", [Linf(EPS), L2(0.1), L1(0.1)], ids=str)
def test_holds_in_each_norm_with_its_dual(threat):
    found = first_order(network(nn.Softplus), X, Y, threat=threat)
    assert found.residual < 0.05 and found.cosine > 0.99
    # eps ||g||_q is what the best step gains
    g = torch.randn(5, 1, 8, 8).double()
    gain = (threat.ascend(g) * g).flatten(1).sum(1)
    torch.testing.assert_close(gain, g.flatten(1).norm(DUAL[type(threat)], dim=1))


def test_both_sides_are_zero_where_eps_or_alpha_is():
    for threat, alpha in ((Linf(0), 0.5), (Linf(EPS), 0.0)):
        found = first_order(network(nn.Softplus), X, Y, threat=threat, alpha_adv=alpha)
        assert all(not side.any() for side in (*found.measured.values(), *found.predicted.values()))
        assert found.residual == 0 and found.cosine != found.cosine


def test_measures_the_difference_of_two_steps():
    """The definition: two copies, one step of SGD each, Eq. 1 against the standard loss."""
    model, eta, alpha = network(nn.SiLU).double(), 0.1, 0.3
    found = first_order(model, X, Y, threat=Linf(EPS), alpha_adv=alpha)
    x = X.double().requires_grad_(True)
    losses = nn.functional.cross_entropy(model(x), Y, reduction="sum")
    x_adv = (x + EPS * torch.autograd.grad(losses, x)[0].sign()).detach()

    def step(weight: float) -> dict[str, torch.Tensor]:
        loss = CrossEntropy()
        mean = ((1 - weight) * loss(model(X.double()), Y) + weight * loss(model(x_adv), Y)).mean()
        names, weights = zip(*model.named_parameters(), strict=True)
        return {n: w - eta * g for n, w, g in zip(names, weights, torch.autograd.grad(mean, weights), strict=True)}

    standard, adversarial = step(0.0), step(alpha)
    for name, measured in found.measured.items():
        torch.testing.assert_close(adversarial[name] - standard[name], -eta * measured, atol=1e-12, rtol=1e-6)


def test_is_proportional_to_alpha_and_sees_each_example_by_itself():
    model = network(nn.Softplus)
    half, whole = (first_order(model, X, Y, threat=Linf(EPS), alpha_adv=alpha) for alpha in (0.5, 1.0))
    one_by_one = [first_order(model, X[i : i + 1], Y[i : i + 1], threat=Linf(EPS), alpha_adv=1.0) for i in range(9)]
    for name in half.measured:
        for side in ("measured", "predicted"):
            torch.testing.assert_close(2 * getattr(half, side)[name], getattr(whole, side)[name])
            mean = torch.stack([getattr(one, side)[name] for one in one_by_one]).mean(0)
            torch.testing.assert_close(mean, getattr(whole, side)[name])


def test_an_awnet_has_both_sides_and_is_left_as_it_was():
    model = awnet(X.double()).requires_grad_(False)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    found = first_order(model, X, Y, threat=Linf(EPS))
    assert found.residual > 0.01, "its networks are of ReLUs"
    assert model.training and not any(p.requires_grad for p in model.parameters())
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(a.shape == b.shape for a, b in pairwise([found.measured["stem.conv.weight"], model.stem.conv.weight]))
    assert "stem.conv.weight" in found.filters and "head.weight" not in found.filters


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"alpha_adv": 1.5}, "0 <= alpha_adv <= 1, got 1.5"),
        ({"alpha_adv": float("nan")}, "got nan"),
        ({"x": X[:0], "y": Y[:0]}, "on images, got none"),
    ],
)
def test_bad_input(changes, says):
    given = {"x": X, "y": Y, "threat": Linf(EPS)} | changes
    with pytest.raises(Mistake, match=says):
        first_order(network(nn.ReLU), given.pop("x"), given.pop("y"), **given)
