"""The means of filters, against filters whose means are known."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from awnet.analysis.filter_means import Per, convolutions, filter_means, means_of
from awnet.errors import Mistake
from awnet.models import create
from training.tiny import NARROW


def test_known_filters():
    weight = torch.zeros(4, 2, 3, 3)
    weight[0] = 5.0  # constant: its mean is its size
    weight[1] = -0.5
    weight[2, 0], weight[2, 1] = 1.0, -1.0  # sums to zero
    # filter 3 is zero everywhere
    torch.testing.assert_close(means_of(weight), torch.tensor([5, -0.5, 0, 0]).double())
    torch.testing.assert_close(means_of(weight, "filter"), torch.tensor([1, -1.0, 0, 0]).double())
    size = ((25 + 0.25 + 1) / 4) ** 0.5  # of the layer
    torch.testing.assert_close(means_of(weight, "layer"), torch.tensor([5 / size, -0.5 / size, 0, 0]).double())


def test_over_its_size_a_filter_has_the_cosine_to_a_constant_one():
    weight = torch.randn(6, 3, 3, 3).double()
    by_hand = [torch.cosine_similarity(k.flatten(), torch.ones(27).double(), dim=0) for k in weight]
    torch.testing.assert_close(means_of(weight, "filter"), torch.stack(by_hand))


def test_what_batch_norm_sets_free_does_not_count():
    weight = torch.randn(6, 3, 3, 3)
    scales = torch.rand(6, 1, 1, 1) + 0.1
    torch.testing.assert_close(means_of(weight, "filter"), means_of(scales * weight, "filter"))
    torch.testing.assert_close(means_of(weight, "layer"), means_of(7 * weight, "layer"))
    assert not torch.allclose(means_of(weight, "layer"), means_of(scales * weight, "layer"))
    assert not torch.allclose(means_of(weight), means_of(7 * weight))


@pytest.mark.parametrize("per", get_args(Per))
def test_of_every_convolution_in_order(per: Per):
    model = create(NARROW, classes=3)
    found = filter_means(model, per)
    names = list(found)
    assert names[:3] == ["trunk.conv", "trunk.stages.0.0.conv1", "trunk.stages.0.0.conv2"]
    for name, means in found.items():
        weight = model.get_submodule(name).weight  # type: ignore[union-attr]
        assert means.shape == (weight.shape[0],) and means.dtype == torch.float64
        torch.testing.assert_close(means, means_of(weight, per))


def test_networks_without_filters_or_with_broken_ones_are_refused():
    with pytest.raises(Mistake, match="a Linear has no convolutions"):
        convolutions(nn.Linear(2, 2))
    broken = nn.Sequential(nn.Conv2d(1, 2, 3))
    nn.init.constant_(broken[0].weight, float("nan"))
    with pytest.raises(Mistake, match="filters of 0 hold numbers that are not finite"):
        filter_means(broken)
