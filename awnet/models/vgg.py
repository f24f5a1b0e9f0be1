"""VGG-16 with batch norm (Simonyan and Zisserman, 2015, https://arxiv.org/abs/1409.1556; configuration D).

Thirteen 3x3 convolutions in five stages, each followed by max pooling, then three linear layers. Images of 32 pixels end as
one pixel of 512 channels; larger ones are averaged to one. With the two hidden layers of 4096 of the original and 10 classes
there are 33,646,666 parameters (32.09 in units of 2^20; the AW-Net paper prints 32.2, which no choice of classes gives).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.model import MODELS, Architecture
from awnet.types import Images, Logits

STAGES = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))  # channels in units of the width


@setting
@dataclass(frozen=True, kw_only=True)
class VGGConfig(Architecture):
    """VGG-16-BN.

    Args:
        width: channels of the first stage; the last two have eight times as many.
        hidden: of the two linear layers before the last; 512 is usual for CIFAR-10, the original has 4096.
        dropout: after each of the two.
    """

    width: int = 64
    hidden: int = 4096
    dropout: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 1 or self.hidden < 1 or not 0 <= self.dropout < 1:
            raise Mistake(
                "VGG needs a width and hidden units of at least 1 and 0 <= dropout < 1, got "
                f"width={self.width}, hidden={self.hidden} and dropout={self.dropout:g}"
            )

    def build(self, *, classes: int, channels: int = 3) -> VGG:
        return VGG(self, classes=classes, channels=channels)

    def narrow(self) -> VGGConfig:
        return replace(self, width=4, hidden=16)


class VGG(nn.Module):
    """Normalisation, five stages, global average pooling, three linear layers."""

    def __init__(self, config: VGGConfig, *, classes: int, channels: int = 3) -> None:
        super().__init__()
        self.normalize = config.normalize(channels)
        self.stages = nn.Sequential()
        c_in = channels
        for stage in STAGES:
            layers = nn.Sequential()
            for factor in stage:
                c_out = factor * config.width
                # batch norm follows, but the published networks have this bias too
                layers.extend([nn.Conv2d(c_in, c_out, 3, 1, 1), nn.BatchNorm2d(c_out), nn.ReLU()])
                c_in = c_out
            # an image smaller than 32 pixels has been pooled to one before the last stage
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            self.stages.append(layers)
        self.head = nn.Sequential(
            *(nn.Linear(c_in, config.hidden), nn.ReLU(), nn.Dropout(config.dropout)),
            *(nn.Linear(config.hidden, config.hidden), nn.ReLU(), nn.Dropout(config.dropout)),
            nn.Linear(config.hidden, classes),
        )

    def forward(self, x: Images) -> Logits:
        return self.head(self.stages(self.normalize(x)).mean((2, 3)))


MODELS.register("vgg16")(VGGConfig())
