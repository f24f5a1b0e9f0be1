"""MobileNet-V2 (Sandler et al., 2018, https://arxiv.org/abs/1801.04381) for small images, as the robustness papers use it.

It differs from the paper: the stem and the second stage have stride 1, ReLU stands for ReLU6, the first block expands by
a 1x1 convolution although its factor is 1, and a block of stride 1 that changes the number of channels has a shortcut
too, a 1x1 convolution. With 10 classes it has 2,296,922 parameters (2.19 in units of 2^20).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import torch.nn.functional as F
from torch import Tensor, nn

from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.model import MODELS, Architecture
from awnet.models.resnet import Shortcut
from awnet.types import Images, Logits

STEM, LAST = 32, 1280
STAGES = (  # expansion, channels, blocks, stride (Table 2, strides for small images)
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """1x1 up to `expansion` times the channels, 3x3 each channel by itself, 1x1 down without ReLU, and the shortcut."""

    def __init__(self, c_in: int, c_out: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = expansion * c_in
        self.conv1 = nn.Conv2d(c_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, c_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.shortcut = Shortcut(c_in, c_out, stride) if stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return out if self.shortcut is None else out + self.shortcut(x)


@setting
@dataclass(frozen=True, kw_only=True)
class MobileNetV2Config(Architecture):
    """MobileNet-V2.

    Args:
        width: the factor of all channels; the paper leaves those of the last convolution as they are below 1.
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 / 16 <= self.width < inf:
            raise Mistake(
                f"the width of a MobileNet-V2 is a factor that leaves its 16 channels one or more, got {self.width:g}"
            )

    def build(self, *, classes: int, channels: int = 3) -> MobileNetV2:
        return MobileNetV2(self, classes=classes, channels=channels)

    def narrow(self) -> MobileNetV2Config:
        return replace(self, width=0.25)


class MobileNetV2(nn.Module):
    """Normalisation, stem, inverted residuals, 1x1 convolution, global average pooling, linear head."""

    def __init__(self, config: MobileNetV2Config, *, classes: int, channels: int = 3) -> None:
        super().__init__()
        c_in, last = round(config.width * STEM), round(config.width * LAST)
        self.normalize = config.normalize(channels)
        self.stem = nn.Conv2d(channels, c_in, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_in)
        self.blocks = nn.Sequential()
        for expansion, width, count, stride in STAGES:
            c_out = round(config.width * width)
            for i in range(count):
                self.blocks.append(InvertedResidual(c_in, c_out, expansion, stride if i == 0 else 1))
                c_in = c_out
        self.last = nn.Conv2d(c_in, last, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(last)
        self.head = nn.Linear(last, classes)

    def forward(self, x: Images) -> Logits:
        out = self.blocks(F.relu(self.bn1(self.stem(self.normalize(x)))))
        return self.head(F.relu(self.bn2(self.last(out))).mean((2, 3)))


MODELS.register("mobilenet_v2")(MobileNetV2Config())
