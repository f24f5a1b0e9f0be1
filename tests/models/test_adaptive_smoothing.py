"""Adaptive smoothing against its equation in plain arithmetic, at its ends, and its frozen forms."""

from __future__ import annotations

import math

import pytest
import torch

from awnet.errors import Mistake
from awnet.models import AdaptiveSmoothing, AdaptiveSmoothingConfig, Deciding, Detecting, ResNetConfig, create
from models.randomised import unsettle

NARROW = ResNetConfig(depth=10, width=4)
X = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def made(**settings) -> AdaptiveSmoothing:
    config = AdaptiveSmoothingConfig(clean=NARROW, robust=ResNetConfig(width=4), mixer=NARROW, **settings)
    model = unsettle(create(config, classes=5).double(), X).eval()
    assert isinstance(model, AdaptiveSmoothing)
    return model


def nobody():
    return torch.zeros(len(X), dtype=torch.bool)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.3, 1.0), (0.0, 0.6), (0.84, 0.99)])
def test_the_equation(low, high):
    model = made(low=low, high=high)
    clean, robust = model.clean(X).softmax(1), model.robust(X).softmax(1)
    gamma = model.mixer(X, clean.log(), robust.log())
    assert gamma.std() > 1e-2
    for i in range(len(X)):
        alpha = low + (high - low) / (1 + math.exp(-gamma[i].item()))
        torch.testing.assert_close(model(X)[i].exp(), (1 - alpha) * clean[i] + alpha * robust[i])


def test_gamma_is_a_function_of_image_and_both_networks():
    model = made()
    clean, robust = (torch.randn(6, 5, dtype=torch.float64).log_softmax(1) for _ in range(2))
    gamma = model.mixer(X, clean, robust)
    assert not torch.equal(model.mixer(X.flip(0), clean, robust), gamma)
    assert not torch.equal(model.mixer(X, clean.flip(0), robust), gamma)
    assert not torch.equal(model.mixer(X, clean, robust.flip(0)), gamma)


@pytest.mark.parametrize("gamma", [-1e4, -200.0, 0.0, 200.0, 1e4])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.2, 0.7)])
def test_logarithms_hold_however_sure_it_is(gamma, low, high):
    model = made(low=low, high=high)
    gammas = torch.full((6,), gamma, dtype=torch.float64, requires_grad=True)
    clean, robust = (t.detach().requires_grad_() for t in model.ask(X))
    logits = model.mix(clean, robust, gammas)
    logits[:, 0].sum().backward()
    assert logits.isfinite().all()
    assert all(t.grad.isfinite().all() for t in (clean, robust, gammas))
    share = 1 / (1 + math.exp(-gamma)) if abs(gamma) < 300 else float(gamma > 0)
    alpha = low + (high - low) * share
    torch.testing.assert_close(logits.exp(), (1 - alpha) * clean.exp() + alpha * robust.exp())


def test_what_it_detects_is_what_it_decides_by():
    model = made()
    assert isinstance(model, Detecting) and isinstance(model, Deciding)
    logits, p_clean = model.detect(X)
    decision = model.decide(X, X, "", nobody())
    torch.testing.assert_close(decision.logits, model(X))
    torch.testing.assert_close(logits, model(X))
    torch.testing.assert_close(decision.log_odds.sigmoid(), p_clean)
    clean, robust = model.ask(X)
    torch.testing.assert_close((1 - p_clean).logit(), model.mixer(X, clean, robust))


@pytest.mark.parametrize(("form", "alpha"), [("clean", 0.2), ("adversarial", 0.9), ("half", 0.55), ("detached", None)])
def test_forms(form, alpha):
    model = made(low=0.2, high=0.9)
    forced = torch.arange(len(X)) < 4
    x = X.clone().requires_grad_()
    decision = model.decide(x, x, form, forced)
    torch.testing.assert_close(decision.logits[4:], model(X)[4:])
    torch.testing.assert_close(decision.log_odds, model.decide(X, X, "", nobody()).log_odds)
    clean, robust = (t.exp() for t in model.ask(X))
    expected = model(X).exp() if alpha is None else (1 - alpha) * clean + alpha * robust
    torch.testing.assert_close(decision.logits[:4].exp(), expected[:4])
    (gradient,) = torch.autograd.grad(decision.logits[:, 0].sum(), x)
    (free,) = torch.autograd.grad(model.decide(x, x, "", nobody()).logits[:, 0].sum(), x)
    torch.testing.assert_close(gradient[4:], free[4:])
    assert not torch.allclose(gradient[:4], free[:4])


def test_the_decision_may_be_made_on_other_images():
    model = made()
    clean, robust = model.ask(X)
    other = X.flip(0)
    gamma = model.mixer(other, *model.ask(other))
    torch.testing.assert_close(model.decide(X, other, "", nobody()).logits, model.mix(clean, robust, gamma))


@pytest.mark.parametrize(("low", "high"), [(-0.1, 1.0), (0.0, 1.1), (0.5, 0.5), (0.7, 0.6)])
def test_a_range_that_is_none(low, high):
    with pytest.raises(Mistake, match="low < high"):
        AdaptiveSmoothingConfig(low=low, high=high)


def test_the_mixing_network_does_not_normalise_by_itself():
    with pytest.raises(Mistake, match="mean and std are of"):
        AdaptiveSmoothingConfig(mixer=ResNetConfig(mean=(0.5,), std=(0.5,)))
