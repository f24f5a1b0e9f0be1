"""The narrow residual networks for CIFAR (He et al., 2016, https://arxiv.org/abs/1512.03385, section 4.2): ResNet-6n+2.

Three stages of 16, 32 and 64 channels. The paper's shortcuts pad with zeros where the shape changes (its option A); here
they are 1x1 convolutions (option B), as in the ResNet-56 that MTARD takes for its clean teacher: 855,770 parameters with 10
classes (0.82 in units of 2^20).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import nn

from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.model import MODELS, Architecture
from awnet.models.resnet import BasicBlock
from awnet.types import Images, Logits

STRIDES = (1, 2, 2)
DEEPEST = 1202  # the deepest in the paper


@setting
@dataclass(frozen=True, kw_only=True)
class ResNetCifarConfig(Architecture):
    """A narrow residual network.

    Args:
        depth: 6n + 2, for n blocks of two convolutions in each of the three stages.
        width: channels of the stem and the first stage; the later stages have 2 and 4 times as many.
    """

    depth: int = 56
    width: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 8 <= self.depth <= DEEPEST or self.depth % 6 != 2:
            raise Mistake(
                f"the depth of a CIFAR ResNet is 6n + 2 (20, 32, 44, 56, 110, …, {DEEPEST}), got {self.depth}"
            )
        if self.width < 1:
            raise Mistake(f"the width of a CIFAR ResNet counts channels, expected 1 or more, got {self.width}")

    def build(self, *, classes: int, channels: int = 3) -> ResNetCifar:
        return ResNetCifar(self, classes=classes, channels=channels)

    def narrow(self) -> ResNetCifarConfig:
        return replace(self, width=4)


class ResNetCifar(nn.Module):
    """Normalisation, stem, stages, global average pooling, linear head."""

    def __init__(self, config: ResNetCifarConfig, *, classes: int, channels: int = 3) -> None:
        super().__init__()
        self.normalize = config.normalize(channels)
        self.conv = nn.Conv2d(channels, config.width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(config.width)
        self.blocks = nn.Sequential()
        c_in = config.width
        for stage, stride in enumerate(STRIDES):
            width = config.width * 2**stage
            for i in range((config.depth - 2) // 6):
                self.blocks.append(BasicBlock(c_in, width, stride if i == 0 else 1))
                c_in = width
        self.head = nn.Linear(c_in, classes)

    def forward(self, x: Images) -> Logits:
        out = self.blocks(F.relu(self.bn(self.conv(self.normalize(x)))))
        return self.head(out.mean((2, 3)))


MODELS.register("resnet56")(ResNetCifarConfig(depth=56))
