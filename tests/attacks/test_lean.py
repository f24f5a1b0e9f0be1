"""The network as a search sees it: the same function, with fewer passes over memory and shorter numbers inside."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.nets import lively, small_net
from awnet.attacks import PGD, Engine, TensorExamples
from awnet.attacks.lean import Convolution, Lean, convolutions_of
from awnet.models import AWNetConfig, PreActResNetConfig, ResNetConfig, create
from awnet.threat_model import Linf


class Small(nn.Module):
    """A convolution with its batch norm, and a second pair; `how` they are called."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.second = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1, bias=False)
        self.norm, self.other = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        out = self.first(x)
        if self.how == "heard twice":
            out = self.norm(out) + out
        elif self.how == "norm alone":
            out = self.norm(F.relu(out))
        else:
            out = self.norm(out)
        out = self.second(F.relu(out))
        if self.how == "twice":
            out = self.second(F.relu(self.other(out)))
        if self.how == "random":
            out = out + torch.rand(())
        return self.head(F.relu(self.other(out)).mean((2, 3)))


def folded(found: list[Convolution]) -> list[bool]:
    return [conv.norm is not None for conv in found]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("pairs", [True, True]),
        ("heard twice", [False, True]),
        ("norm alone", [False, True]),
        ("twice", [True, False, False]),
        ("random", []),
    ],
)
def test_a_batch_norm_is_folded_where_it_alone_hears_its_convolution(how: str, expected: list[bool]):
    x = torch.rand(4, 3, 8, 8)
    model = lively(Small(how), x).requires_grad_(False)
    state = {name: t.clone() for name, t in model.state_dict().items()}
    found = convolutions_of(model, x)
    assert folded(found) == expected
    if found:
        calls: list[int] = []
        model.norm.register_forward_hook(lambda *_: calls.append(1))
        with torch.no_grad():
            plain = model(x)
            with Lean(found, torch.float32):
                lean = model(x)
            torch.testing.assert_close(lean, plain, rtol=1e-4, atol=1e-4)
            assert len(calls) == 2 and torch.equal(model(x), plain), "afterwards it is what it was"
    for name, t in model.state_dict().items():
        assert torch.equal(t, state[name])


NETWORKS = {
    "resnet": (ResNetConfig(width=8), True, 1),
    "preact": (PreActResNetConfig().narrow(), True, 1),
    "awnet": (AWNetConfig().narrow(), True, 2),  # the router sees the image, and the dynamic network does
}


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_and_gradients_are_those_of_the_network(name: str):
    config, folds, entered = NETWORKS[name]
    x = torch.rand(6, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    model = lively(create(config, classes=10), x).requires_grad_(False)
    found = convolutions_of(model, x)
    assert any(folded(found)) is folds and sum(conv.enters for conv in found) == entered

    def asked(dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
        leaf = x.clone().requires_grad_()
        if dtype is None:
            logits = model(leaf)
        else:
            with Lean(found, dtype), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                logits = model(leaf)
        return logits.detach(), torch.autograd.grad(logits.float().logsumexp(1).sum(), leaf)[0]

    (logits, gradient), (exact, exact_gradient) = asked(None), asked(torch.float32)
    torch.testing.assert_close(exact, logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(exact_gradient, gradient, rtol=1e-2, atol=1e-3 * float(gradient.abs().max()))
    short, short_gradient = asked(torch.bfloat16)
    assert short.dtype == short_gradient.dtype == torch.float32, "classes are told apart in float32"
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        usual = model(x).float()
    assert 0 < (short - logits).norm() < 1.2 * (usual - logits).norm(), "no worse than autocast"
    assert F.cosine_similarity(short_gradient.flatten(), gradient.flatten(), dim=0) > 0.8


def test_the_image_meets_float32():
    """Changes that bfloat16 cannot resolve near 1 reach the layers behind the first."""
    model = small_net().requires_grad_(False)
    x = torch.full((2, 3, 8, 8), 0.898)
    found = convolutions_of(model, x)
    assert [conv.enters for conv in found] == [True, False]
    near = x + 5e-4
    assert torch.equal(x.bfloat16(), near.bfloat16())
    with torch.no_grad(), Lean(found, torch.bfloat16), torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal(model(x), model(near))


def test_layers_called_by_keyword_are_the_same():
    x = torch.rand(2, 3, 8, 8)

    class ByKeyword(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)
            self.head = torch.nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            norm = self.norm
            x = F.conv2d(input=x, weight=self.conv.weight, bias=self.conv.bias)
            x = F.batch_norm(input=x, running_mean=norm.running_mean, running_var=norm.running_var)
            return F.linear(input=x.mean((2, 3)), weight=self.head.weight, bias=self.head.bias)

    model = ByKeyword().eval().requires_grad_(False)
    found = convolutions_of(model, x)
    assert folded(found) == [True]
    with torch.no_grad():
        plain = model(x)
        with Lean(found, torch.float32):
            torch.testing.assert_close(model(x), plain, rtol=1e-4, atol=1e-4)
        with Lean(found, torch.bfloat16), torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(model(x).float(), plain, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bits_of_a_linear_layer_do_not_depend_on_how_many_rows_it_has(dtype: torch.dtype):
    """On a CPU: products of few rows are computed in another order. So the last examples of a search can be few."""
    x, layer = torch.randn(16, 240), nn.Linear(240, 480)

    def asked(rows: int) -> tuple[Tensor, Tensor]:
        part = x[:rows].to(dtype).requires_grad_()
        with Lean([], dtype):
            answer = layer(part)
        return answer.detach(), torch.autograd.grad(answer.square().sum(), part)[0]

    whole = asked(16)
    for rows in (1, 2, 5, 8, 15):
        few = asked(rows)
        assert few[0].shape == (rows, 480) and few[0].dtype == torch.float32
        assert all(torch.equal(a, b[:rows]) for a, b in zip(few, whole, strict=True)), rows
    torch.testing.assert_close(whole[0], layer(x.to(dtype).float()).detach())


class Awkward(nn.Module):
    """Answers no batch of one, and lays its features out by .view."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 1:
            raise ValueError("expected more than one image")
        features = self.convolution(x).relu()
        return self.linear(features.view(len(x), -1))


@pytest.mark.parametrize("number", [1, 10])
def test_networks_of_any_manners_are_searched_in_bfloat16(number):
    torch.manual_seed(0)
    model, x = Awkward(), torch.rand(number, 3, 8, 8)
    data = TensorExamples(x, model(x.repeat(2, 1, 1, 1)).argmax(1)[:number], torch.arange(number))
    engine = Engine(batch_size=8, precision="bfloat16")
    engine.run(PGD(threat=Linf(0.1), steps=2), model, data, warn=lambda sentence: None)


def test_one_image_that_is_answered_with_nan_changes_nobody_s_search():
    torch.manual_seed(0)
    model = create(ResNetConfig(depth=10, width=4), classes=5).eval()
    x = torch.rand(8, 3, 16, 16)
    whole = convolutions_of(model, x)
    lost = convolutions_of(model, x.index_fill(0, torch.tensor([3]), torch.nan))
    assert whole and [id(conv.weight) for conv in whole] == [id(conv.weight) for conv in lost]
