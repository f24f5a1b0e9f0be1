"""The adversarial router of AW-Net (section 4.3, Eq. 17-19): one look at the image, a type and a signal for every filter."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from awnet.config import setting
from awnet.models.resnet import BLOCKS, ResNetConfig, ResNetTrunk
from awnet.types import Images, Logits, PerExample, Signals

ADVERSARIAL, CLEAN = 0, 1  # the rows of the type head; y' = 1 for clean images

Taps = Literal["last", "stages", "stem+stages", "blocks"]


@setting
@dataclass(frozen=True, kw_only=True)
class RouterConfig:
    """The router.

    Args:
        backbone: the feature extractor D.
        taps: which outputs of the backbone are pooled and concatenated to psi_M. The paper says "multiple intermediate
            layers". The default, stem and stages, gives d = 1024 for ResNet-18 and comes closest to the printed
            26.3M parameters (in units of 10^6); the counts do not settle the layout.
        type_head: whether there is one. Without, both types are equally likely, whatever the image.
    """

    backbone: ResNetConfig = field(default_factory=ResNetConfig)
    taps: Taps = "stem+stages"
    type_head: bool = True

    def narrow(self) -> RouterConfig:
        return replace(self, backbone=self.backbone.narrow())


class Routing(NamedTuple):
    """What the router says of a batch.

    Attributes:
        type_logits: shape (b, 2); column 0 adversarial, column 1 clean.
        signals: omega of every modulated convolution in order, each of shape (b, c_out).
    """

    type_logits: Logits
    signals: tuple[Signals, ...]

    @property
    def p_clean(self) -> PerExample:
        """P_type, the scalar probability of clean that Eq. 14 needs (Eq. 18)."""
        return self.type_logits.softmax(1)[:, CLEAN]


class Router(nn.Module):
    """Feature extractor, type head and signal heads.

    The signal heads of all convolutions are the rows of one matrix, which is the same as individual heads and one product
    instead of sixteen. It starts at zero, so that omega = 1 in the beginning and every filter is what it is: from a random
    start the third power can reach 8 and unsettles training. Eq. 18-19 print no bias; a linear layer has one, also zero.
    """

    def __init__(self, config: RouterConfig, *, filters: tuple[int, ...], beta: float, channels: int) -> None:
        super().__init__()
        self.taps: Taps = config.taps
        self.filters = filters
        self.beta = beta
        self.backbone = ResNetTrunk(config.backbone, channels=channels)
        self.tapped = tapped(config)
        widths = [config.backbone.width] + [
            config.backbone.width * 2**stage * config.backbone.expansion
            for stage, count in enumerate(BLOCKS[config.backbone.depth])
            for _ in range(count)
        ]
        d = sum(widths[i] for i in self.tapped)
        self.type_head = nn.Linear(d, 2) if config.type_head else None
        self.signal_heads = nn.Linear(d, sum(filters))
        nn.init.zeros_(self.signal_heads.weight)
        nn.init.zeros_(self.signal_heads.bias)

    def forward(self, x: Images) -> Routing:
        outputs = self.backbone(x)
        psi = torch.cat([_pooled(outputs[i]) for i in self.tapped], dim=1)  # psi_M = D(x), Eq. 17
        omega = torch.tanh(self.signal_heads(psi)) + 1  # Eq. 19
        type_logits = self.type_head(psi) if self.type_head else psi.new_zeros(len(psi), 2)
        return Routing(type_logits, omega_power(omega, self.beta).split(self.filters, dim=1))


def _pooled(x: Tensor) -> Tensor:
    """The mean over space. The gradient of `x.mean((2, 3))` comes back as images by rows and meets, in the middle of the
    backbone, gradients with channels last: additions and ReLUs of mixed layouts are slow."""
    return x.permute(0, 2, 3, 1).flatten(1, 2).mean(1)


def omega_power(base: Tensor, beta: float) -> Tensor:
    """base^beta for a base in [0, 2]; held off zero where beta is not whole, as the gradient has no limit there."""
    return base**beta if beta == int(beta) and beta >= 1 else base.clamp(min=1e-6) ** beta


def tapped(config: RouterConfig) -> tuple[int, ...]:
    """Which outputs of the backbone (0 the stem, then one a block) make up psi_M."""
    counts = BLOCKS[config.backbone.depth]
    ends = tuple(sum(counts[: stage + 1]) for stage in range(len(counts)))
    return {
        "last": ends[-1:],
        "stages": ends,
        "stem+stages": (0, *ends),
        "blocks": tuple(range(1, sum(counts) + 1)),
    }[config.taps]
