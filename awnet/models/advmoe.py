"""ADVMOE (Zhang et al., ICCV 2023, https://arxiv.org/abs/2308.10110): a residual network whose filters are experts, of which
a small router gives each image one.

Every convolution of the blocks holds n groups of filters; an image's route, the argmax of the router's scores, is the same
in all of them. Stem, shortcuts, batch norms and head are shared. The choice is hard; its gradient is passed straight through
to the scores, as published, so an attacker has one, if a rough one, and the forms of `decide` beside it.

The published router is a ResNet-20 whose shortcuts pad with zeros (option A); here they are 1x1 convolutions, as in
`awnet.models.resnet_cifar`. The 29.5 million parameters that AW-Net's paper prints are those of no configuration of its code.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.model import MODELS, Architecture, Decision
from awnet.models.resnet import BLOCKS, STRIDES, ResNetConfig, Shortcut
from awnet.models.resnet_cifar import ResNetCifarConfig
from awnet.types import Hits, Images, Logits

DEPTHS = (10, 18, 34)  # of basic blocks


@setting
@dataclass(frozen=True, kw_only=True)
class AdvMoEResNetConfig(Architecture):
    """A ResNet of experts.

    Args:
        base: the residual network that is divided; of basic blocks, so of depth 10, 18 or 34.
        router: the network that scores the experts.
        experts: groups of filters in each convolution; 2 as published.
        ratio: filters of one expert as a share of the base's.
    """

    base: ResNetConfig = field(default_factory=ResNetConfig)
    router: ResNetCifarConfig = field(default_factory=lambda: ResNetCifarConfig(depth=20))
    experts: int = 2
    ratio: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.base.depth not in DEPTHS:
            raise Mistake(f"ADVMOE divides a ResNet of depth {', '.join(map(str, DEPTHS))}, got {self.base.depth}")
        if not 2 <= self.experts <= 1000 or not 0 < self.ratio <= 1 or self.width < 1:
            raise Mistake(
                "ADVMOE needs 2 to 1000 experts and a ratio in (0, 1] that leaves each at least one filter, got "
                f"{self.experts} and {self.ratio:g} of {self.base.width}"
            )
        for part in (self.base, self.router):
            if part.mean or part.std:
                raise Mistake(
                    "ADVMOE normalises once, before its two parts: mean and std are fields of AdvMoEResNetConfig itself"
                )

    @property
    def width(self) -> int:
        """Filters of one expert in the first stage."""
        return int(self.ratio * self.base.width)

    def build(self, *, classes: int, channels: int = 3) -> AdvMoEResNet:
        return AdvMoEResNet(self, classes=classes, channels=channels)

    def narrow(self) -> AdvMoEResNetConfig:
        return replace(self, base=self.base.narrow(), router=self.router.narrow())


class ExpertConv2d(nn.Module):
    """A convolution with the filters of all experts, of whose outputs a gate lets through one's."""

    def __init__(self, c_in: int, c_out: int, stride: int, experts: int) -> None:
        super().__init__()
        self.experts = experts
        self.conv = nn.Conv2d(c_in, experts * c_out, 3, stride, 1, bias=False)

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """Features (b, c_in, h, w) and a gate (b, experts), which is one for an expert and zero for the others."""
        outputs = self.conv(x).unflatten(1, (self.experts, -1))
        return (gate.to(outputs.dtype)[:, :, None, None, None] * outputs).sum(1)


class ExpertBlock(nn.Module):
    """A basic block whose two convolutions are the experts'."""

    def __init__(self, c_in: int, width: int, stride: int, experts: int) -> None:
        super().__init__()
        self.conv1 = ExpertConv2d(c_in, width, stride, experts)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = ExpertConv2d(width, width, 1, experts)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = Shortcut(c_in, width, stride)

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x, gate)))
        out = self.bn2(self.conv2(out, gate))
        return F.relu(out + self.shortcut(x))


class Output(NamedTuple):
    """What ADVMOE says of a batch: logits of the classes, and the router's scores of the experts, (b, experts)."""

    logits: Logits
    scores: Logits


class AdvMoEResNet(nn.Module):
    """The router looks at the image, then the filters of one expert classify it."""

    def __init__(self, config: AdvMoEResNetConfig, *, classes: int, channels: int = 3) -> None:
        super().__init__()
        self.experts = config.experts
        self.normalize = config.normalize(channels)
        self.router = config.router.build(classes=config.experts, channels=channels)
        c_in = config.base.width  # the stem is whole
        self.stem = nn.Sequential(nn.Conv2d(channels, c_in, 3, 1, 1, bias=False), nn.BatchNorm2d(c_in), nn.ReLU())
        self.blocks = nn.ModuleList()
        for stage, (count, stride) in enumerate(zip(BLOCKS[config.base.depth], STRIDES, strict=True)):
            width = config.width * 2**stage
            for i in range(count):
                self.blocks.append(ExpertBlock(c_in, width, stride if i == 0 else 1, config.experts))
                c_in = width
        self.head = nn.Linear(c_in, classes)

    def forward(self, x: Images) -> Logits:
        return self.run(x).logits

    def run(self, x: Images, *, straight_through: bool = True) -> Output:
        """Logits and scores.

        Args:
            x: images in [0, 1], shape (b, c, h, w).
            straight_through: whether the logits' gradient reaches the scores, as if the choice were their identity.
        """
        x = self.normalize(x)
        scores = self.router(x)
        gate = self._gate(scores)
        return Output(self._classify(x, gate if straight_through else gate.detach()), scores)

    def _gate(self, scores: Logits) -> Tensor:
        """One for the expert with the largest score, zero for the others; the gradient is that of the scores."""
        chosen = F.one_hot(scores.argmax(1), self.experts).to(scores.dtype)
        return chosen + (scores - scores.detach())

    def _classify(self, x: Images, gate: Tensor) -> Logits:
        """Logits of normalised images under a route that is given."""
        out = self.stem(x)
        for block in self.blocks:
            out = block(out, gate)
        return self.head(out.mean((2, 3)))

    @property
    def forms(self) -> tuple[str, ...]:
        """The frozen forms of `decide`: every expert, and the route as it is without its gradient.

        Nothing is decided about attacks here. The first two experts go by the names that attacks have for the two sides
        of a decision, "clean" and "adversarial", so that these look at both.
        """
        others = (f"expert {k + 1}" for k in range(2, self.experts))
        return ("clean", "adversarial", *others, "detached")

    def decide(self, x: Images, seen: Images, form: str, forced: Hits) -> Decision:
        """See `Deciding`; the log-odds are by how much the first expert's score exceeds the best of the others."""
        scores = self.router(self.normalize(seen))
        gate = self._gate(scores)
        if form == "detached":
            gate = torch.where(forced[:, None], gate.detach(), gate)
        elif form:
            expert = torch.zeros_like(gate)
            expert[:, self.forms.index(form)] = 1
            gate = torch.where(forced[:, None], expert, gate)
        return Decision(self._classify(self.normalize(x), gate), scores[:, 0] - scores[:, 1:].amax(1))


MODELS.register("advmoe-resnet18")(AdvMoEResNetConfig())
