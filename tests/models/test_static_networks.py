"""The static networks, where neither the contracts nor the parameter counts would notice a difference."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from awnet.errors import Mistake
from awnet.models import MODELS, MobileNetV2Config, PreActResNetConfig, ResNetCifarConfig, WideResNetConfig, create
from awnet.models.mobilenet_v2 import InvertedResidual
from awnet.models.preact_resnet import PreActBlock
from awnet.models.resnet import BasicBlock, Bottleneck
from models.randomised import randomise


@pytest.mark.parametrize(
    ("name", "sides", "features"),
    [
        ("resnet18", {32: 5, 16: 4, 8: 4, 4: 4}, 512),
        ("resnet34", {32: 7, 16: 8, 8: 12, 4: 6}, 512),
        ("resnet50", {32: 4, 16: 4, 8: 6, 4: 3}, 2048),
        ("resnet56", {32: 19, 16: 18, 8: 18}, 64),
        ("preact_resnet18", {32: 5, 16: 4, 8: 4, 4: 4}, 512),
        ("preact_resnet34", {32: 7, 16: 8, 8: 12, 4: 6}, 512),
        ("wrn-28-10", {32: 9, 16: 8, 8: 8}, 640),
        ("wrn-34-8", {32: 11, 16: 10, 8: 10}, 512),
        ("wrn-34-10", {32: 11, 16: 10, 8: 10}, 640),
        ("mobilenet_v2", {32: 4, 16: 3, 8: 7, 4: 4}, 1280),
    ],
)
def test_how_many_3x3_convolutions_see_a_32_pixel_image_at_each_size(name, sides, features):
    with torch.device("meta"):
        model = MODELS[name].build(classes=10)
        maps = []
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.register_forward_hook(lambda module, args, out: maps.append(out.shape[-1]))
        model(torch.empty(2, 3, 32, 32))
    assert Counter(maps) == sides
    assert model.head.in_features == features


def conv(x, module):
    """A convolution from its definition: sums over shifted images."""
    k, s, p = module.kernel_size[0], module.stride[0], module.padding[0]
    x = F.pad(x, (p, p, p, p))
    h, w = (x.shape[2] - k) // s + 1, (x.shape[3] - k) // s + 1
    out = torch.zeros(len(x), module.out_channels, h, w, dtype=x.dtype)
    size = module.in_channels // module.groups
    for m in range(module.out_channels):
        first = m // (module.out_channels // module.groups) * size
        for i in range(k):
            for j in range(k):
                seen = x[:, first : first + size, i : i + s * h : s, j : j + s * w : s]
                out[:, m] += (module.weight[m, :, i, j, None, None] * seen).sum(1)
    return out


def norm(x, bn):
    scaled = (x - bn.running_mean[:, None, None]) / (bn.running_var[:, None, None] + 1e-5).sqrt()
    return scaled * bn.weight[:, None, None] + bn.bias[:, None, None]


def relu(x):
    return x.clamp(min=0)


def shortcut(x, module):
    return norm(conv(x, module[0]), module[1]) if len(module) else x


def basic(b, x):
    out = norm(conv(relu(norm(conv(x, b.conv1), b.bn1)), b.conv2), b.bn2)
    return relu(out + shortcut(x, b.shortcut))


def bottleneck(b, x):
    out = relu(norm(conv(x, b.conv1), b.bn1))
    out = norm(conv(relu(norm(conv(out, b.conv2), b.bn2)), b.conv3), b.bn3)
    return relu(out + shortcut(x, b.shortcut))


def preact(b, x):
    a = relu(norm(x, b.bn1))
    out = conv(relu(norm(conv(a, b.conv1), b.bn2)), b.conv2)
    return out + (x if b.shortcut is None else conv(a, b.shortcut))


def inverted(b, x):
    out = relu(norm(conv(x, b.conv1), b.bn1))
    out = norm(conv(relu(norm(conv(out, b.conv2), b.bn2)), b.conv3), b.bn3)
    return out if b.shortcut is None else out + shortcut(x, b.shortcut)


@pytest.mark.parametrize(
    ("block", "by_hand"),
    [
        (BasicBlock(4, 4, 1), basic),
        (BasicBlock(4, 6, 2), basic),
        (Bottleneck(8, 2, 1), bottleneck),
        (Bottleneck(4, 3, 1), bottleneck),
        (Bottleneck(8, 3, 2), bottleneck),
        (PreActBlock(4, 4, 1), preact),
        (PreActBlock(4, 6, 1), preact),
        (PreActBlock(4, 6, 2), preact),
        (InvertedResidual(3, 3, 2, 1), inverted),
        (InvertedResidual(3, 5, 2, 1), inverted),
        (InvertedResidual(3, 3, 2, 2), inverted),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_block_is_its_equation(block, by_hand):
    randomise(block).double().eval()
    x = torch.randn(2, block.conv1.in_channels, 5, 6, dtype=torch.float64) * 3
    torch.testing.assert_close(block(x), by_hand(block, x), rtol=1e-12, atol=1e-12)


def test_relu_of_mobilenet_does_not_stop_at_6():
    block = InvertedResidual(3, 3, 2, 2).eval()
    x = torch.rand(1, 3, 8, 8)
    near = block(x * 1e3)
    torch.testing.assert_close(near, block(x) * 1e3, rtol=1e-3, atol=1e-3)


def test_strides_and_shortcuts_of_mobilenet():
    blocks = create(MobileNetV2Config().narrow(), classes=10).blocks
    assert [block.conv2.stride[0] for block in blocks] == [1, 1, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]
    kinds = ["none" if b.shortcut is None else "conv" if len(b.shortcut) else "same" for b in blocks]
    assert kinds == [
        "conv",
        *("conv", "same"),
        *("none", "same", "same"),
        *("none", "same", "same", "same"),
        *("conv", "same", "same"),
        *("none", "same", "same"),
        "conv",
    ]


@pytest.mark.parametrize("config", [PreActResNetConfig().narrow(), WideResNetConfig(depth=10, widen=1)])
def test_preactivation_networks_end_in_batch_norm_and_relu(config):
    model = randomise(create(config, classes=4)).double().eval()
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    features = model.stem(x)
    for module in model.modules():
        if isinstance(module, PreActBlock):
            features = preact(module, features)
    pooled = relu(norm(features, model.bn)).mean((2, 3))
    torch.testing.assert_close(model(x), pooled @ model.head.weight.T + model.head.bias)


@pytest.mark.parametrize("depth", [4, 9, 12, 18, 27])
def test_wide_depths_are_6n_plus_4(depth):
    with pytest.raises(Mistake, match=f"6n \\+ 4 .*, got {depth}"):
        WideResNetConfig(depth=depth)


@pytest.mark.parametrize("depth", [2, 7, 10, 18, 57])
def test_cifar_depths_are_6n_plus_2(depth):
    with pytest.raises(Mistake, match=f"6n \\+ 2 .*, got {depth}"):
        ResNetCifarConfig(depth=depth)


@pytest.mark.parametrize(
    ("config", "convolutions"),
    [(WideResNetConfig(depth=16, widen=2), 13), (ResNetCifarConfig(depth=20), 19), (PreActResNetConfig(depth=34), 33)],
)
def test_depth_counts_the_layers(config, convolutions):
    with torch.device("meta"):
        model = config.build(classes=10)
    assert sum(isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) for m in model.modules()) == convolutions
