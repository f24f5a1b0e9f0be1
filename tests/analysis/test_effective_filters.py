"""The filters that an image meets, against filters that are built for every image."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log
from statistics import mean

import pytest
import torch

from awnet.analysis.effective_filters import effective_filters, modulated, narrowing
from awnet.analysis.filter_means import means_of
from awnet.errors import Mistake
from awnet.models.dynamic_conv import DynamicConv2d, filters_per_image
from training.tiny import awnet, dataset, own

X, _ = dataset(7).batch(torch.arange(7))
X = X.double()


@pytest.mark.parametrize("shortcuts", [False, True], ids=["convs", "shortcuts"])
def test_numbers_are_those_of_filters_built_for_each_image(shortcuts):
    model = awnet(X, modulate_shortcuts=shortcuts)
    found = effective_filters(model, X, batch_size=3)
    assert model.training, "left as it was"
    signals = model.eval().run(X).routing.signals
    assert len(found) == len(signals)
    for (name, layer), omega in zip(found.items(), signals, strict=True):
        weight = modulated(model)[name].weight
        for i in range(len(X)):
            w_hat = (omega[i][:, None, None, None] * weight).detach()  # Eq. 11
            means = w_hat.flatten(1).mean(1)
            torch.testing.assert_close(layer.means[i], means, atol=1e-6, rtol=1e-5)
            assert float(layer.deviation[i]) == pytest.approx(float(means.std(correction=0)), rel=1e-5)
            assert float(layer.weights[i]) == pytest.approx(float(w_hat.std(correction=0)), rel=1e-5)
            assert float(layer.size[i]) == pytest.approx(float(w_hat.square().mean().sqrt()), rel=1e-5)
            of_layer = float(means_of(w_hat, "layer").std(correction=0))
            assert float(layer.relative[i]) == pytest.approx(of_layer, rel=1e-5)


def test_the_layers_are_those_that_the_signals_scale():
    """What each convolution puts out under the name's filters is what the network computes there."""
    model = awnet(X).eval()
    seen = {}
    hooks = [
        module.register_forward_hook(lambda m, args, out, name=name: seen.update({name: (*args[:2], m)}))
        for name, module in model.named_modules()
        if isinstance(module, DynamicConv2d)
    ]
    model(X)
    for hook in hooks:
        hook.remove()
    for name, layer in effective_filters(model, X).items():
        x, omega, module = seen[name.removesuffix(".conv")]
        torch.testing.assert_close(layer.means.double(), omega * means_of(module.conv.weight), atol=1e-6, rtol=1e-5)
        scaled = omega[:, :, None, None] * module.conv(x)
        torch.testing.assert_close(filters_per_image(x, modulated(model)[name], omega), scaled)


def test_over_its_own_size_a_filter_is_the_same_for_every_image():
    model = awnet(X).eval()
    for conv, omega in zip(modulated(model).values(), model.run(X).routing.signals, strict=True):
        for one in omega:
            w_hat = one[:, None, None, None] * conv.weight
            torch.testing.assert_close(means_of(w_hat, "filter"), means_of(conv.weight, "filter"))


def test_narrowing_of_known_deviations():
    clean = torch.tensor([1.0, 2.0, 4.0, 1.0])
    found = narrowing(clean, clean / 2)
    assert (found.ratio, found.low, found.high, found.share) == pytest.approx((0.5, 0.5, 0.5, 1))
    ratios = [0.5, 2.0, 0.25, 0.5]
    found = narrowing(clean, clean * torch.tensor(ratios))
    logs = [log(r) for r in ratios]
    error = 1.96 * (sum((v - mean(logs)) ** 2 for v in logs) / 3 / 4) ** 0.5
    assert found.ratio == pytest.approx(exp(mean(logs))) and found.share == 0.75
    assert (found.low, found.high) == pytest.approx((exp(mean(logs) - error), exp(mean(logs) + error)))


def test_bad_input():
    model = awnet(X)
    for network, x, says in [
        (own(), X, "got a Own"),
        (model.turned(replace(model.knob, omega=False)), X, "got a AWNet with omega = 1"),
        (model, X[:0], "need images"),
    ]:
        with pytest.raises(Mistake, match=says):
            effective_filters(network, x)
    with pytest.raises(Mistake, match="same 2 or more images, got 3 and 2"):
        narrowing(torch.ones(3), torch.ones(2))
