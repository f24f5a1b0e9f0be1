"""OAT, once-for-all adversarial training (Wang et al., 2020, https://arxiv.org/abs/2010.11828): one network for every balance.

The weight lambda of the adversarial loss is an input of the network beside the image, and at test time it is chosen by hand.
It enters behind every batch norm by FiLM (Perez et al., 2018, https://arxiv.org/abs/1709.07871), and chooses between two:

    FiLM(BN(z)) = gain(lambda) BN(z) + shift(lambda),   BN = BN_c where lambda = 0, otherwise BN_a

gain and shift come from a perceptron with one hidden layer, out of a random orthonormal vector for each lambda, so lambda is
one of those trained for; and it is lambda that chooses the batch norm: clean images with lambda > 0 go through BN_a too. This
was compared with the published code, the paper's text was not at hand. Of our own are that the perceptrons end linearly and
start with gains near 1 and shifts near 0, and that shortcuts are conditioned likewise.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.model import MODELS, Architecture
from awnet.models.resnet import BLOCKS, STRIDES, ResNetConfig
from awnet.types import Hits, Images, Logits


@setting
@dataclass(frozen=True, kw_only=True)
class OATConfig(Architecture):
    """A residual network that is conditioned on lambda.

    Args:
        base: the residual network; ResNet-34 in the paper.
        lambdas: those that it is trained for, rising from 0, which has batch norms of its own.
        encoding: length of the vector that stands for each.
        lam: the one that is used at test time, the knob: 0 for accuracy, 1 for robustness.
    """

    base: ResNetConfig = field(default_factory=lambda: ResNetConfig(depth=34))
    lambdas: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 1.0)
    encoding: int = 128
    lam: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        rising = all(a < b for a, b in zip(self.lambdas, self.lambdas[1:], strict=False))
        if not (len(self.lambdas) >= 2 and rising and self.lambdas[0] == 0 and self.lambdas[-1] <= 1):
            raise Mistake(f"OAT needs two or more lambdas that rise from 0 to at most 1, got {self.lambdas}")
        if self.encoding < len(self.lambdas):
            raise Mistake(f"{len(self.lambdas)} lambdas need an encoding of as many numbers, got {self.encoding}")
        _place(self.lam, self.lambdas)
        if self.base.mean or self.base.std:
            raise Mistake("OAT normalises once: mean and std are fields of OATConfig itself")

    def build(self, *, classes: int, channels: int = 3) -> OAT:
        return OAT(self, classes=classes, channels=channels)

    def narrow(self) -> OATConfig:
        return replace(self, base=self.base.narrow(), encoding=8)


def _place(lam: float, lambdas: tuple[float, ...]) -> int:
    if lam not in lambdas:
        raise Mistake(
            f"OAT was trained for lambda {', '.join(f'{v:g}' for v in lambdas)}, got {lam:g}; choose one of them"
        )
    return lambdas.index(lam)


class Condition(NamedTuple):
    """What a batch is conditioned on.

    Attributes:
        codes: of every lambda, shape (lambdas, encoding).
        which: the place of each image's lambda, shape (b,); or of all images'.
        first: which images have lambda = 0, shape (b,); or whether all have.
    """

    codes: Tensor
    which: Tensor | int
    first: Hits | bool


class DualBatchNorm2d(nn.Module):
    """BN_c and BN_a: in training mode, each with the batch statistics of its own images."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.c = nn.BatchNorm2d(channels)
        self.a = nn.BatchNorm2d(channels)

    def forward(self, z: Tensor, first: Hits | bool) -> Tensor:
        if isinstance(first, bool):
            return self.c(z) if first else self.a(z)
        order = first.logical_not().long().argsort(stable=True)
        count = int(first.sum())
        parts = [
            bn(part)
            for bn, part in zip((self.c, self.a), z[order].split([count, len(z) - count]), strict=True)
            if len(part)
        ]
        return torch.cat(parts)[order.argsort()]


class ConditionedConv2d(nn.Module):
    """A convolution, dual batch norm and FiLM."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, encoding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        self.bn = DualBatchNorm2d(c_out)
        self.hidden = nn.Linear(encoding, 2 * c_out)
        self.film = nn.Linear(2 * c_out, 2 * c_out)
        with torch.no_grad():
            self.film.bias.copy_((torch.arange(2 * c_out) < c_out).float())  # gains about 1, then shifts about 0

    def forward(self, x: Tensor, condition: Condition) -> Tensor:
        z = self.bn(self.conv(x), condition.first)
        film = self.film(F.leaky_relu(self.hidden(condition.codes)))[
            condition.which
        ]  # of every lambda once, not every image
        gain, shift = film.to(z.dtype)[..., None, None].chunk(2, dim=-3)
        return gain * z + shift


class ConditionedBlock(nn.Module):
    """The convolutions of a residual block, each conditioned."""

    def __init__(self, config: OATConfig, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        c_out = width * config.base.expansion
        if config.base.depth == 50:  # the shapes of a bottleneck
            shapes = [(c_in, width, 1, 1), (width, width, 3, stride), (width, c_out, 1, 1)]
        else:
            shapes = [(c_in, width, 3, stride), (width, width, 3, 1)]
        self.convs = nn.ModuleList(ConditionedConv2d(*shape, config.encoding) for shape in shapes)
        same = stride == 1 and c_in == c_out
        self.shortcut = None if same else ConditionedConv2d(c_in, c_out, 1, stride, config.encoding)

    def forward(self, x: Tensor, condition: Condition) -> Tensor:
        out = x
        for i, conv in enumerate(self.convs):
            out = conv(out if i == 0 else F.relu(out), condition)
        return F.relu(out + (x if self.shortcut is None else self.shortcut(x, condition)))


class OAT(nn.Module):
    """Normalisation, stem, blocks, global average pooling, linear head; all but the head conditioned on lambda."""

    def __init__(self, config: OATConfig, *, classes: int, channels: int = 3) -> None:
        super().__init__()
        base = config.base
        self.lambdas, self.lam = config.lambdas, config.lam
        self.normalize = config.normalize(channels)
        codes = torch.empty(len(config.lambdas), config.encoding)
        self.register_buffer("codes", nn.init.orthogonal_(codes))
        self.stem = ConditionedConv2d(channels, base.width, 3, 1, config.encoding)
        self.blocks = nn.ModuleList()
        c_in = base.width
        for stage, (count, stride) in enumerate(zip(BLOCKS[base.depth], STRIDES, strict=True)):
            width = base.width * 2**stage
            for i in range(count):
                self.blocks.append(ConditionedBlock(config, c_in, width, stride if i == 0 else 1))
                c_in = width * base.expansion
        self.head = nn.Linear(base.features, classes)

    def forward(self, x: Images, which: Tensor | None = None) -> Logits:
        """Logits of images in [0, 1].

        Args:
            x: shape (b, c, h, w).
            which: the place in `lambdas` of each image's, shape (b,); that of the knob by default.
        """
        codes = self.get_buffer("codes")
        if which is None:
            place = _place(self.lam, self.lambdas)
            condition = Condition(codes, place, place == 0)
        else:
            condition = Condition(codes, which, which == 0)
        out = F.relu(self.stem(self.normalize(x), condition))
        for block in self.blocks:
            out = block(out, condition)
        return self.head(out.mean((2, 3)))

    def turned(self, lam: float) -> OAT:
        """The same network, sharing all weights, with another lambda.

        Raises:
            Mistake: where it was not trained for it.
        """
        _place(lam, self.lambdas)
        other = copy.copy(self)
        other.lam = lam
        return other


MODELS.register("oat")(OATConfig())
MODELS.register("oat-resnet18")(OATConfig(base=ResNetConfig(depth=18)))
