"""Residual networks for small images (He et al., 2016, https://arxiv.org/abs/1512.03385), as the robustness papers use them.

A 3x3 stem of stride 1 without pooling, four stages of strides 1, 2, 2, 2, global average pooling (adaptive, so any input
from 8 pixels up) and a linear head. ResNet-18 with 10 classes has 11,173,962 parameters (10.66 in units of 2^20).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.model import MODELS, Architecture
from awnet.types import Images, Logits

BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}  # blocks in each stage
STRIDES = (1, 2, 2, 2)


class Shortcut(nn.Sequential):
    """The identity, or a 1x1 convolution with batch norm where the shape changes."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        if stride == 1 and c_in == c_out:
            super().__init__()
        else:
            super().__init__(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))


class BasicBlock(nn.Module):
    """relu(bn(conv3x3(relu(bn(conv3x3(x))))) + shortcut(x))."""

    expansion = 1

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = Shortcut(c_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1 down to `width`, 3x3, 1x1 up to four times `width`, and the shortcut."""

    expansion = 4

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        c_out = self.expansion * width
        self.conv1 = nn.Conv2d(c_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, c_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.shortcut = Shortcut(c_in, c_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + self.shortcut(x))


@setting
@dataclass(frozen=True, kw_only=True)
class ResNetConfig(Architecture):
    """A residual network.

    Args:
        depth: 18, 34 or 50; or 10, one block a stage, for small experiments.
        width: channels of the stem and the first stage; the later stages have 2, 4 and 8 times as many.
    """

    depth: Literal[10, 18, 34, 50] = 18
    width: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 1:
            raise Mistake(f"the width of a ResNet counts channels, expected 1 or more, got {self.width}")

    def build(self, *, classes: int, channels: int = 3) -> ResNet:
        return ResNet(self, classes=classes, channels=channels)

    def narrow(self) -> ResNetConfig:
        return replace(self, width=8)

    @property
    def expansion(self) -> int:
        """Output channels of a block as a multiple of its width."""
        return Bottleneck.expansion if self.depth == 50 else BasicBlock.expansion

    @property
    def features(self) -> int:
        """Channels of the last stage's output."""
        return 8 * self.width * self.expansion


class ResNetTrunk(nn.Module):
    """Stem and stages, without pooling and head."""

    def __init__(self, config: ResNetConfig, *, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, config.width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(config.width)
        self.stages = nn.ModuleList()
        block = Bottleneck if config.depth == 50 else BasicBlock
        c_in = config.width
        for stage, (count, stride) in enumerate(zip(BLOCKS[config.depth], STRIDES, strict=True)):
            width = config.width * 2**stage
            blocks = nn.Sequential()
            for i in range(count):
                blocks.append(block(c_in, width, stride if i == 0 else 1))
                c_in = width * block.expansion
            self.stages.append(blocks)

    def forward(self, x: Images) -> list[Tensor]:
        """The outputs of the stem and of every block, in order."""
        outputs = [F.relu(self.bn(self.conv(x)))]
        for blocks in self.stages:
            for block in blocks.children():
                outputs.append(block(outputs[-1]))
        return outputs


class ResNet(nn.Module):
    """Normalisation, trunk, global average pooling, linear head."""

    def __init__(self, config: ResNetConfig, *, classes: int, channels: int = 3) -> None:
        super().__init__()
        self.normalize = config.normalize(channels)
        self.trunk = ResNetTrunk(config, channels=channels)
        self.head = nn.Linear(config.features, classes)

    def forward(self, x: Images) -> Logits:
        return self.head(self.trunk(self.normalize(x))[-1].mean((2, 3)))


MODELS.register("resnet18")(ResNetConfig(depth=18))
MODELS.register("resnet34")(ResNetConfig(depth=34))
MODELS.register("resnet50")(ResNetConfig(depth=50))
