"""Networks against each other: copies whose filters are as wide as they were made."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from awnet.analysis.distributions import Ratio
from awnet.analysis.dynamic import dynamic
from awnet.analysis.survival import Types
from awnet.analysis.weights import Difference, differences, figures, filters_of, verdict
from awnet.errors import Mistake
from awnet.models import create
from training.tiny import CLASSES, DYNAMIC, NARROW, awnet, dataset


def network() -> nn.Module:
    return create(NARROW, classes=CLASSES, channels=1)


def scaled(model: nn.Module, by: float) -> nn.Module:
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data *= by
    return model


def test_shorter_filters_have_narrower_means_and_nothing_else():
    plain, short = filters_of(network()), filters_of(scaled(network(), 0.25))
    found = differences(short, plain, "weights")
    assert list(found) == plain.layers
    for name, one in found.items():
        assert one.deviation.value == pytest.approx(0.25)
        means = plain.means["weights"][name]
        assert one.wasserstein == pytest.approx(0.75 * float(means.abs().mean()), rel=0.5)
    said = verdict(found)
    assert said.ratio == pytest.approx(0.25) and said.layers == len(found)
    assert said.narrower > said.layers / 2 and said.wider == 0
    for per in ("filter", "layer"):
        free = differences(short, plain, per)
        assert all(one.deviation.value == pytest.approx(1) for one in free.values())
        assert all(one.wasserstein == pytest.approx(0, abs=1e-6) for one in free.values())
        assert verdict(free).ratio == pytest.approx(1) and verdict(free).narrower == verdict(free).wider == 0


def test_layers_are_compared_where_their_shapes_are_the_same():
    static, dynamic_ = filters_of(network()), filters_of(create(DYNAMIC, classes=CLASSES, channels=1))
    found = differences(dynamic_, static, "weights")
    assert list(found)[:3] == ["stem.conv", "blocks.0.convs.0.conv", "blocks.0.convs.1.conv"]
    assert len(found) == len(static.layers) < len(dynamic_.layers), "the router has no partner"
    wider = filters_of(create(NARROW.__class__(depth=10, width=6), classes=CLASSES, channels=1))
    assert differences(wider, static, "weights") == {} and verdict({}).layers == 0


def test_a_verdict_counts_only_what_is_sure():
    def one(value: float, low: float, high: float) -> Difference:
        return Difference(deviation=Ratio(value=value, low=low, high=high), wasserstein=0.0)

    found = {"a": one(0.5, 0.4, 0.6), "b": one(0.5, 0.4, 1.1), "c": one(2, 1.5, 3), "d": one(2, 0.9, 3)}
    said = verdict({**found, "one filter": one(float("nan"), float("nan"), float("nan"))})
    assert (said.narrower, said.wider, said.layers) == (1, 1, 4) and said.ratio == pytest.approx(1)


def test_figures_are_json_and_the_same_again():
    networks = {"standard": filters_of(network()), "robust": filters_of(scaled(network(), 0.5))}
    found = figures(networks, seed=1)
    assert json.loads(json.dumps(found)) == found == figures(networks, seed=1)
    stem = found["networks"]["robust"]["trunk.conv"]
    assert stem["shape"] == [4, 1, 3, 3] and stem["weights"]["n"] == 4
    assert found["against standard"]["robust"]["weights"]["all layers"]["ratio"] == pytest.approx(0.5)
    with pytest.raises(Mistake, match="name one network or more"):
        figures({})


def test_everything_of_an_awnet_in_one_value():
    x, y = dataset(6).batch(torch.arange(6))
    x = x.double()
    images = Types(x, (x + 0.1).clamp(0, 1))
    found = dynamic(awnet(x), images, y, fit=images)
    numbers = json.loads(json.dumps(found.figures()))
    layers = list(numbers["effective filters"])
    assert len(layers) == 8 and layers[0] == "blocks.0.convs.0.conv"
    assert list(numbers["omega"]["attacked"]) == list(numbers["share of omega's variance between types"]) == layers
    assert numbers["omega"]["clean"][layers[0]]["shift"] is None
    as_is = numbers["omega replaced"]["as it is"]["clean"]
    assert as_is["class changed"] == as_is["change of logits"] == 0
    first = found.filters["clean"][layers[0]].means
    assert found.means("clean")[layers[0]].tolist() == pytest.approx(first.mean(0).tolist())
