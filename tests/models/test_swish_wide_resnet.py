"""The Swish networks: their padding by its definition, a block by its equation, and the numbers that they normalise with."""

from __future__ import annotations

import pytest
import torch

from awnet.models import MODELS, SwishWideResNetConfig, create
from awnet.models.swish_wide_resnet import SwishBlock, pad_same
from models.randomised import randomise


def tensorflow_same(side, stride):
    """How much SAME pads before and after a side, for a window of 3."""
    total = max((-(-side // stride) - 1) * stride + 3 - side, 0)
    return total // 2, total - total // 2


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("sides", [(8, 8), (9, 9), (9, 8), (32, 11)])
def test_padding_is_tensorflows(sides, stride):
    x = torch.ones(1, 1, *sides)
    padded = pad_same(x, stride)[0, 0]
    for axis, side in enumerate(sides):
        before, after = tensorflow_same(side, stride)
        line = padded.amax(1 - axis)
        assert line.tolist() == [0.0] * before + [1.0] * side + [0.0] * after


def swish_block(b, x):
    """In plain sums over the shifts of a window that starts `before` an image."""

    def norm(x, bn):
        centred = (x - bn.running_mean[:, None, None]) / (bn.running_var[:, None, None] + bn.eps).sqrt()
        return centred * bn.weight[:, None, None] + bn.bias[:, None, None]

    def conv(x, weight, stride):
        size = weight.shape[2]
        sides = [-(-side // stride) for side in x.shape[2:]]
        before = [tensorflow_same(side, stride)[0] if size == 3 else 0 for side in x.shape[2:]]
        out = torch.zeros(len(x), len(weight), *sides, dtype=x.dtype)
        for r in range(sides[0]):
            for c in range(sides[1]):
                for i in range(size):
                    for j in range(size):
                        row, column = r * stride + i - before[0], c * stride + j - before[1]
                        if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                            out[:, :, r, c] += x[:, :, row, column] @ weight[:, :, i, j].T
        return out

    def swish(x):
        return x / (1 + (-x).exp())

    a = swish(norm(x, b.bn1))
    out = conv(swish(norm(conv(a, b.conv1.weight, b.stride), b.bn2)), b.conv2.weight, 1)
    return out + (x if b.shortcut is None else conv(a, b.shortcut.weight, b.stride))


@pytest.mark.parametrize("shape", [(4, 4, 1), (3, 4, 1), (3, 6, 2)])
@pytest.mark.parametrize("sides", [(6, 6), (5, 8)])
@torch.no_grad()
def test_a_block_is_its_equation(shape, sides):
    block = randomise(SwishBlock(*shape).double()).eval()
    x = torch.randn(2, shape[0], *sides, dtype=torch.float64)
    torch.testing.assert_close(block(x), swish_block(block, x))


@pytest.mark.parametrize("classes", [10, 100])
def test_the_named_ones_normalise_as_cifar10_whatever_the_classes(classes):
    settings = MODELS["wrn-22-6-swish"]
    assert settings.mean == (0.4914, 0.4822, 0.4465) and settings.std == (0.2471, 0.2435, 0.2616)
    model = create(SwishWideResNetConfig(depth=10, widen=1, mean=settings.mean, std=settings.std), classes=classes)
    x = torch.tensor(settings.mean).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    assert model.eval().normalize(x).abs().max() == 0 and model(x).shape == (1, classes)
