"""The static mixture against its one equation, and where its logarithms could fail."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from awnet.errors import Mistake
from awnet.models import ResNetConfig, StaticMixture, StaticMixtureConfig, create


class Says(nn.Module):
    """A classifier that ignores its image."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float64))

    def forward(self, x):
        return self.logits.expand(len(x), -1)


X = torch.zeros(2, 3, 8, 8)


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_logits_are_the_logarithm_of_averaged_probabilities(weight, sharpness):
    clean, robust = (1.0, -2.0, 0.5), (-0.3, 0.7, 1.1)
    logits = StaticMixture(Says(*clean), Says(*robust), weight=weight, sharpness=sharpness)(X)
    total_clean = sum(math.exp(a) for a in clean)
    total_robust = sum(math.exp(sharpness * a) for a in robust)
    by_hand = [
        math.log(weight * math.exp(c) / total_clean + (1 - weight) * math.exp(sharpness * r) / total_robust)
        for c, r in zip(clean, robust, strict=True)
    ]
    torch.testing.assert_close(logits, torch.tensor([by_hand, by_hand], dtype=torch.float64))
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(2, dtype=torch.float64))


def test_saturated_logits_stay_finite_and_keep_their_gradient():
    clean, robust = Says(1e4, -1e4, 0.0), Says(-1e4, 1e4, 0.0)
    mixture = StaticMixture(clean, robust, weight=0.25)
    logits = mixture(X)
    by_hand = torch.tensor([math.log(0.25), math.log(0.75), -1e4 + math.log(1.0)], dtype=torch.float64)
    torch.testing.assert_close(logits[0], by_hand)
    logits[0, 2].backward()
    assert clean.logits.grad.isfinite().all() and clean.logits.grad.any()
    assert robust.logits.grad.isfinite().all() and robust.logits.grad.any()


def test_the_weight_leads_from_one_network_to_the_other():
    clean, robust = Says(1.0, -2.0, 0.5), Says(-0.3, 0.7, 1.1)
    for weight, end in ((1 - 1e-12, clean), (1e-12, robust)):
        near = StaticMixture(clean, robust, weight=weight)(X)
        torch.testing.assert_close(near, end(X).log_softmax(1), rtol=1e-9, atol=1e-9)


def test_sharpness_is_the_robust_networks_alone():
    clean, robust = Says(2.0, 0.0, 0.0), Says(0.0, 1.0, 0.0)
    blunt, sharp = (StaticMixture(clean, robust, weight=0.5, sharpness=s)(X).exp()[0] for s in (1.0, 1e3))
    assert blunt.argmax() == 0 and sharp.argmax() == 1
    one_hot = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(sharp, (clean(X)[0].softmax(0) + one_hot) / 2)


@pytest.mark.parametrize("weight", [0.0, 1.0, -0.5, float("nan")])
def test_a_weight_that_leaves_one_network_out_is_a_mistake(weight):
    with pytest.raises(Mistake, match="between 0 and 1"):
        StaticMixtureConfig(weight=weight)


def test_settings_reach_the_network():
    config = StaticMixtureConfig(
        clean=ResNetConfig(depth=34, width=4), robust=ResNetConfig(width=4), weight=0.2, sharpness=2.0
    )
    model = create(config, classes=5).eval()
    x = torch.rand(2, 3, 8, 8)
    assert len(model.clean.trunk.stages[2]) == 6 and len(model.robust.trunk.stages[2]) == 2
    probabilities = 0.2 * model.clean(x).softmax(1) + 0.8 * (2 * model.robust(x)).softmax(1)
    torch.testing.assert_close(model(x).exp(), probabilities)
