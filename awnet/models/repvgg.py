"""RepVGG (Ding et al., 2021, https://arxiv.org/abs/2101.03697): three branches in training, one 3x3 convolution afterwards.

A block adds a 3x3 convolution, a 1x1 convolution and, where the shape stays, the identity, each with its own batch norm. In
eval mode batch norm is linear, so the three are one 3x3 convolution with a bias (section 3.3): `deployed` makes it.
For small images stem and first stage keep the resolution (chenyaofo's CIFAR networks). RepVGG-A2 with 10 classes has
26,815,690 parameters in the training form (25.57 in units of 2^20).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.model import MODELS, Architecture
from awnet.types import Images, Logits

STRIDES = (1, 1, 2, 2, 2)  # of the stem and the four stages


@setting
@dataclass(frozen=True, kw_only=True)
class RepVGGConfig(Architecture):
    """A RepVGG.

    Args:
        widths: channels of the stem and of each stage.
        blocks: in each of the four stages.
        deploy: whether every block is the one convolution that its branches amount to.
    """

    widths: tuple[int, int, int, int, int] = (64, 96, 192, 384, 1408)
    blocks: tuple[int, int, int, int] = (2, 4, 14, 1)
    deploy: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(*self.widths, *self.blocks) < 1 or max(self.blocks) > 1000:
            raise Mistake(
                f"RepVGG needs widths of at least 1 and 1 to 1000 blocks a stage, got {self.widths} and {self.blocks}"
            )

    def build(self, *, classes: int, channels: int = 3) -> RepVGG:
        return RepVGG(self, classes=classes, channels=channels)

    def narrow(self) -> RepVGGConfig:
        return replace(self, widths=(8, 8, 12, 12, 16), blocks=(1, 2, 2, 1))


class RepBlock(nn.Module):
    """relu(bn(conv3x3(x)) + bn(conv1x1(x)) + bn(x)), the last where the shape stays."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv3 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.conv1 = nn.Conv2d(c_in, c_out, 1, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.identity = nn.BatchNorm2d(c_out) if stride == 1 and c_in == c_out else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn3(self.conv3(x)) + self.bn1(self.conv1(x))
        return F.relu(out if self.identity is None else out + self.identity(x))

    @torch.no_grad()
    def fused(self) -> FusedBlock:
        """The same block in eval mode as one convolution."""
        c_out, c_in = self.conv3.weight.shape[:2]
        kernels = [(self.conv3.weight, self.bn3), (F.pad(self.conv1.weight, (1, 1, 1, 1)), self.bn1)]
        if self.identity is not None:
            one = torch.eye(c_out, c_in).to(self.conv3.weight)
            kernels.append((F.pad(one[:, :, None, None], (1, 1, 1, 1)), self.identity))
        block = FusedBlock(c_in, c_out, self.conv3.stride[0]).to(self.conv3.weight)
        weight, bias = torch.zeros_like(block.conv.weight), torch.zeros(c_out).to(self.conv3.weight)
        for kernel, bn in kernels:
            mean, var = cast(Tensor, bn.running_mean), cast(Tensor, bn.running_var)
            scale = bn.weight / (var + bn.eps).sqrt()
            weight += kernel * scale[:, None, None, None]
            bias += bn.bias - mean * scale
        block.conv.weight.copy_(weight)
        cast(Tensor, block.conv.bias).copy_(bias)
        return block


class FusedBlock(nn.Module):
    """relu(conv3x3(x))."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class RepVGG(nn.Module):
    """Normalisation, stem block, four stages, global average pooling, linear head."""

    def __init__(self, config: RepVGGConfig, *, classes: int, channels: int = 3) -> None:
        super().__init__()
        self.config = config
        self.normalize = config.normalize(channels)
        block = FusedBlock if config.deploy else RepBlock
        self.blocks = nn.Sequential()
        c_in = channels
        for width, count, first in zip(config.widths, (1, *config.blocks), STRIDES, strict=True):
            for i in range(count):
                self.blocks.append(block(c_in, width, first if i == 0 else 1))
                c_in = width
        self.head = nn.Linear(c_in, classes)

    def forward(self, x: Images) -> Logits:
        return self.head(self.blocks(self.normalize(x)).mean((2, 3)))

    def deployed(self) -> RepVGG:
        """A network in deploy form that computes in eval mode what this one does; this one is left as it is."""
        other = copy.deepcopy(self)
        other.config = replace(self.config, deploy=True)
        other.blocks = nn.Sequential(*(b.fused() if isinstance(b, RepBlock) else b for b in other.blocks))
        return other


MODELS.register("repvgg-a2")(RepVGGConfig())
