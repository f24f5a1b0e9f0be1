"""The kit for models: every network of this package passes, and each way of being wrong is found under its own name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attacks.nets import small_net
from awnet.conformance import assert_conforms, check_model
from awnet.errors import Mistake
from awnet.models import MODELS, create
from conformance.test_check_attack import failed

SHAPE = (3, 8, 8)


@pytest.mark.parametrize("name", MODELS)
def test_registered_models_conform(name: str):
    model = create(MODELS[name].narrow(), classes=7).train()
    assert_conforms(check_model(model, shape=(3, 16, 16), classes=7))
    assert model.training


class Around(nn.Module):
    """A good network with something done to it."""

    def __init__(self, change: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.change, self.asked = small_net(), change, torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.net, x)


def in_place(net: nn.Module, x: Tensor) -> Tensor:
    if not x.requires_grad:
        x -= 0.5
    return net(x)


def one_is_too_few(net: nn.Module, x: Tensor) -> Tensor:
    if len(x) == 1:
        raise ValueError("expected more than 1 value per channel")
    return net(x)


def squeezed(net: nn.Module, x: Tensor) -> Tensor:
    return net(x).squeeze()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda net, x: net(x)[:, :1], "returns logits"),
        (lambda net, x: net(x)[:, :4], "returns logits"),
        (lambda net, x: net(x).argmax(1), "returns logits"),
        (lambda net, x: (net(x),), "returns logits"),
        (lambda net, x: net(x).sqrt(), "returns logits"),
        (lambda net, x: net(x).softmax(1), "returns no probabilities"),
        (lambda net, x: 0 * net(x), "tells images apart"),
        (lambda net, x: net(x + 0.1 * torch.rand_like(x)), "repeats itself"),
        (lambda net, x: net(x - x.mean(0)), "judges an image by itself"),
        (lambda net, x: net(x) * (1 + torch.arange(len(x))[:, None]), "judges an image by itself"),
        (one_is_too_few, "takes one image"),
        (squeezed, "takes one image"),
        (lambda net, x: net(x.detach()), "has a gradient at its images"),
        (lambda net, x: net(x.round()), "has a gradient at its images"),
        (in_place, "leaves the images as they were"),
        (lambda net, x: net(nn.functional.dropout(x)), "is not changed by being asked"),
    ],
)
def test_each_way_of_being_wrong_is_found(change: Callable[[nn.Module, Tensor], Tensor], name: str):
    assert name in failed(check_model(Around(change), shape=SHAPE, classes=10))
    assert not failed(check_model(small_net(), shape=SHAPE, classes=10))


def test_a_buffer_that_counts_is_found():
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()
            self.register_buffer("asked", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.get_buffer("asked").add_(1)
            return self.net(x)

    assert failed(check_model(Counting(), shape=SHAPE)) == {"is not changed by being asked"}


def test_images_of_one_s_own_and_a_failure_s_sentence():
    x = torch.rand(5, *SHAPE)
    assert not failed(check_model(small_net(), x=x))
    with pytest.raises(Mistake, match=r"1 of 9 checks failed; returns no probabilities: .* leave the softmax out"):
        assert_conforms(check_model(nn.Sequential(small_net(), nn.Softmax(1)), x=x))
