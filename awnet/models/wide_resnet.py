"""Wide residual networks (Zagoruyko and Komodakis, 2016, https://arxiv.org/abs/1605.07146): WRN-depth-widen, no dropout.

Three groups of pre-activation blocks, 16, 32 and 64 channels times `widen`. WRN-34-8 with 10 classes has 29,551,578
parameters (28.18 in units of 2^20). The code that TRADES and MTARD published keeps a second copy of the first group that
no input passes through, and papers count it: 30,901,498 (29.47). There is none here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import nn

from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.model import MODELS, Architecture
from awnet.models.preact_resnet import PreActBlock
from awnet.types import Images, Logits

STEM = 16  # channels, in every one of them
STRIDES = (1, 2, 2)
DEEPEST = 1000  # far beyond any published one


@setting
@dataclass(frozen=True, kw_only=True)
class WideResNetConfig(Architecture):
    """A wide residual network.

    Args:
        depth: 6n + 4, for n blocks of two convolutions in each of the three groups.
        widen: the factor of all channels but the stem's.
    """

    depth: int = 34
    widen: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 10 <= self.depth <= DEEPEST or self.depth % 6 != 4:
            raise Mistake(
                f"the depth of a wide residual network is 6n + 4 (10, 16, 22, 28, 34, …, {DEEPEST}), got {self.depth}"
            )
        if self.widen < 1:
            raise Mistake(f"a wide residual network is 1 or more times as wide, got widen {self.widen}")

    def build(self, *, classes: int, channels: int = 3) -> WideResNet:
        return WideResNet(self, classes=classes, channels=channels)

    def narrow(self) -> WideResNetConfig:
        return replace(self, widen=2)  # at 1 the first group would need no shortcut convolution


class WideResNet(nn.Module):
    """Normalisation, stem, groups, batch norm, global average pooling, linear head."""

    block: type[nn.Module] = PreActBlock
    activation = staticmethod(F.relu)

    def __init__(self, config: WideResNetConfig, *, classes: int, channels: int = 3) -> None:
        super().__init__()
        self.normalize = config.normalize(channels)
        self.stem = nn.Conv2d(channels, STEM, 3, 1, 1, bias=False)
        self.groups = nn.Sequential()
        c_in = STEM
        for group, stride in enumerate(STRIDES):
            width = STEM * config.widen * 2**group
            blocks = nn.Sequential()
            for i in range((config.depth - 4) // 6):
                blocks.append(self.block(c_in, width, stride if i == 0 else 1))
                c_in = width
            self.groups.append(blocks)
        self.bn = nn.BatchNorm2d(c_in)
        self.head = nn.Linear(c_in, classes)

    def forward(self, x: Images) -> Logits:
        out = self.groups(self.stem(self.normalize(x)))
        return self.head(self.activation(self.bn(out)).mean((2, 3)))


MODELS.register("wrn-22-6")(WideResNetConfig(depth=22, widen=6))
MODELS.register("wrn-28-10")(WideResNetConfig(depth=28, widen=10))
MODELS.register("wrn-34-8")(WideResNetConfig(depth=34, widen=8))
MODELS.register("wrn-34-10")(WideResNetConfig(depth=34, widen=10))
MODELS.register("wrn-70-16")(WideResNetConfig(depth=70, widen=16))
