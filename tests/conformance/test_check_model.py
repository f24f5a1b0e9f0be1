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


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return x * x

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient


def straight_through(net: nn.Module, x: Tensor) -> Tensor:
    return net(x + ((3 * x).round() / 3 - x).detach())


def detached_gate(net: nn.Module, x: Tensor) -> Tensor:
    return net(x * x.mean((1, 2, 3), keepdim=True).sigmoid().detach())


def viewed(net: nn.Module, x: Tensor) -> Tensor:
    return net(x.view(len(x), -1).view_as(x))


GRADIENT = "has the gradient of its answers"


@pytest.mark.parametrize(
    ("change", "name", "sentence"),
    [
        (straight_through, GRADIENT, "4 of 4 images"),
        (detached_gate, GRADIENT, "of 4 images (finite differences in float64), expected the same"),
        (lambda net, x: net(WrongBackward.apply(x)), GRADIENT, "4 of 4 images"),
        (lambda net, x: 1e4 * net(x), "leaves the cross-entropy a gradient", "divide the logits by a temperature"),
        (lambda net, x: net(x).sigmoid(), "returns no probabilities", "leave the sigmoid out"),
        (lambda net, x: net(x).softmax(1), "returns no probabilities", "leave the softmax out"),
        (viewed, "takes images channels-last", "reshape, not view"),
    ],
)
def test_what_a_plain_look_misses_is_found_and_nothing_else(change, name: str, sentence: str):
    (wrong,) = [f for f in check_model(Around(change), shape=SHAPE, classes=10) if not f.passed]
    assert wrong.name == name and sentence in wrong.sentence


class Forgetful(nn.Module):
    """Answers that turn round after some calls, which are counted in the open or where nobody looks."""

    def __init__(self, *, hidden: bool) -> None:
        super().__init__()
        self.net, self.hidden, self.count, self.calls = small_net(), hidden, 0, []

    def forward(self, x: Tensor) -> Tensor:
        if self.hidden:
            self.calls.append(len(x))
        else:
            self.count += 1
        return self.net(x) if len(self.calls) < 10 else -self.net(x)


def test_a_counter_is_found_and_answers_that_turn_round_too():
    assert failed(check_model(Forgetful(hidden=False), shape=SHAPE)) == {"is not changed by being asked"}
    assert "says the same at last" in failed(check_model(Forgetful(hidden=True), shape=SHAPE))


def in_float32(net: nn.Module, x: Tensor) -> Tensor:
    return net(x.float().to(next(net.parameters()).dtype))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda net, x: net(x.float()), "no copy in float64 can be asked for gradients (RuntimeError)"),
        (lambda net, x: net(x.detach()), "no copy in float64 can be asked for gradients (RuntimeError)"),
        (lambda net, x: net(x).float(), "a copy in float64 answers in less"),
        (lambda net, x: (100 + net(x)).float().to(x.dtype), "a copy in float64 answers in less"),
        (lambda net, x: net(x + 1e-7 * torch.rand_like(x)), "its differences change with their step"),
    ],
)
def test_gradients_that_float64_cannot_judge_are_no_failure(change, why: str):
    (slopes,) = [f for f in check_model(Around(change), shape=SHAPE) if f.name == GRADIENT]
    assert slopes.passed and slopes.sentence.startswith(f"cannot tell: {why}")


def test_what_rounds_its_images_to_float32_has_the_right_gradient():
    assert not failed(check_model(Around(in_float32), shape=SHAPE))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 100.0])
def test_kinks_and_flat_regions_of_honest_relu_networks_are_no_failure(scale: float):
    """Black, white and even images, at which ReLUs without a bias and pools of equal numbers have their kinks."""
    torch.manual_seed(1)
    body = [
        nn.Sequential(nn.Conv2d(width, 32, 3, 1, 1, bias=False), nn.ReLU(), nn.MaxPool2d(2)) for width in (3, 32, 32)
    ]
    net = nn.Sequential(*body, nn.Flatten(), nn.Linear(32, 10))
    x = torch.cat([torch.zeros(1, *SHAPE), torch.ones(1, *SHAPE), torch.rand(2, *SHAPE).round()])
    for change in (lambda net, x: scale * net(x), lambda net, x: scale * net(x.clamp(0, 1) - 0.5)):
        around = Around(change)
        around.net = net
        (slopes,) = [f for f in check_model(around, x=x) if f.name == GRADIENT]
        assert slopes.passed and "cannot tell" not in slopes.sentence


def test_logits_between_0_and_1_are_no_probabilities():
    assert not failed(check_model(Around(lambda net, x: 0.5 + 0.1 * net(x)), shape=SHAPE))


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
    with pytest.raises(Mistake, match=r"1 of 13 checks failed; returns no probabilities: .* leave the softmax out"):
        assert_conforms(check_model(nn.Sequential(small_net(), nn.Softmax(1)), x=x))
