"""Wide residual networks with Swish (Gowal et al., 2020, "Uncovering the limits of adversarial training against
norm-bounded adversarial examples", https://arxiv.org/abs/2010.03593), as their public weights need them.

They differ from `wide_resnet.py` in x sigmoid(x) for the ReLU (Ramachandran et al., 2017, https://arxiv.org/abs/1710.05941),
and in convolutions of stride 2 that are padded as TensorFlow's SAME: an even side by 0 before and 1 after it. The named
networks normalise with the mean and std of CIFAR-10 whatever they classify, as published, so those of CIFAR-100 do too: the
WRN-70-16 that MTARD takes for its robust teacher, and the WRN-22-6 for its clean one. Parameters are those of the ReLU
networks of the same size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from awnet.config import setting
from awnet.models.model import MODELS
from awnet.models.wide_resnet import WideResNet, WideResNetConfig

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2471, 0.2435, 0.2616)


@setting
@dataclass(frozen=True, kw_only=True)
class SwishWideResNetConfig(WideResNetConfig):
    """A wide residual network with Swish."""

    def build(self, *, classes: int, channels: int = 3) -> SwishWideResNet:
        return SwishWideResNet(self, classes=classes, channels=channels)

    def narrow(self) -> SwishWideResNetConfig:
        return replace(self, widen=2, mean=(), std=())  # for images of any channels


class SwishBlock(nn.Module):
    """a = swish(bn(x)); conv3x3(swish(bn(conv3x3(a)))) + x, or + conv1x1(a) where the shape changes."""

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, width, 3, stride, 0, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        same = stride == 1 and c_in == width
        self.shortcut = None if same else nn.Conv2d(c_in, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a = F.silu(self.bn1(x))
        out = self.conv1(pad_same(a, self.stride))
        out = self.conv2(F.silu(self.bn2(out)))
        return out + (x if self.shortcut is None else self.shortcut(a))


def pad_same(x: Tensor, stride: int) -> Tensor:
    """Zeros around the images so that a 3x3 convolution of this stride leaves ceil(side / stride) places a side."""
    h, w = ((1 if stride == 1 or side % 2 else 0) for side in x.shape[2:])
    return F.pad(x, (w, 1, h, 1))


class SwishWideResNet(WideResNet):
    """A wide residual network of these blocks."""

    block = SwishBlock
    activation = staticmethod(F.silu)


for _depth, _widen in ((22, 6), (28, 10), (70, 16)):
    MODELS.register(f"wrn-{_depth}-{_widen}-swish")(
        SwishWideResNetConfig(depth=_depth, widen=_widen, mean=CIFAR10_MEAN, std=CIFAR10_STD)
    )
