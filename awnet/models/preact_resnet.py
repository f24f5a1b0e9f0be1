"""Residual networks with activation before convolution (He et al., 2016, "Identity mappings in deep residual networks",
https://arxiv.org/abs/1603.05027), with the stem and strides of `resnet.py`.

The stem is a bare convolution and the last block is followed by batch norm and ReLU. PreActResNet-34 with 200 classes has
21,377,800 parameters (20.39 in units of 2^20).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.model import MODELS, Architecture
from awnet.models.resnet import BLOCKS, STRIDES
from awnet.types import Images, Logits


class PreActBlock(nn.Module):
    """a = relu(bn(x)); conv3x3(relu(bn(conv3x3(a)))) + x, or + conv1x1(a) where the shape changes."""

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        same = stride == 1 and c_in == width
        self.shortcut = None if same else nn.Conv2d(c_in, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(a))))
        return out + (x if self.shortcut is None else self.shortcut(a))


@setting
@dataclass(frozen=True, kw_only=True)
class PreActResNetConfig(Architecture):
    """A pre-activation residual network.

    Args:
        depth: 18 or 34.
        width: channels of the stem and the first stage; the later stages have 2, 4 and 8 times as many.
    """

    depth: Literal[18, 34] = 18
    width: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 1:
            raise Mistake(f"the width of a pre-activation ResNet counts channels, expected 1 or more, got {self.width}")

    def build(self, *, classes: int, channels: int = 3) -> PreActResNet:
        return PreActResNet(self, classes=classes, channels=channels)

    def narrow(self) -> PreActResNetConfig:
        return replace(self, width=8)


class PreActResNet(nn.Module):
    """Normalisation, stem, stages, batch norm, global average pooling, linear head."""

    def __init__(self, config: PreActResNetConfig, *, classes: int, channels: int = 3) -> None:
        super().__init__()
        self.normalize = config.normalize(channels)
        self.stem = nn.Conv2d(channels, config.width, 3, 1, 1, bias=False)
        self.blocks = nn.Sequential()
        c_in = config.width
        for stage, (count, stride) in enumerate(zip(BLOCKS[config.depth], STRIDES, strict=True)):
            width = config.width * 2**stage
            for i in range(count):
                self.blocks.append(PreActBlock(c_in, width, stride if i == 0 else 1))
                c_in = width
        self.bn = nn.BatchNorm2d(c_in)
        self.head = nn.Linear(c_in, classes)

    def forward(self, x: Images) -> Logits:
        out = self.blocks(self.stem(self.normalize(x)))
        return self.head(F.relu(self.bn(out)).mean((2, 3)))


MODELS.register("preact_resnet18")(PreActResNetConfig(depth=18))
MODELS.register("preact_resnet34")(PreActResNetConfig(depth=34))
