"""AW-Net (Wei, Zhao and Li, "Revisiting the Trade-off between Accuracy and Robustness via Weight Distribution of Filters",
https://arxiv.org/abs/2306.03430, section 4): a residual network whose filters are scaled for each image by a router.

Where the paper leaves a choice, the default and its alternatives are fields of `AWNetConfig`:
- Eq. 16 prints relu(F(relu(F(psi)))) + psi; Eq. 9 and "based on the basic ResNet structure" say relu(F + psi): Eq. 9 here.
- Two signal heads a block, one for each convolution (4.3), not one (Eq. 16): two, three in a bottleneck.
- The 1x1 shortcut convolutions and the stem have MixBN and no signal; `modulate_shortcuts` gives the shortcuts one.

The ablations of Table 3 are settings of it, trained by the same joint objective, whose L_type falls away with the type head:
"awnet-signals" has signals alone, a single batch norm that sees both halves of a batch as one; "awnet-mixbn" has MixBN beside
them, trained by the true types and, as nobody tells them at test time, tested with BN_adv for all images.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from math import inf, isnan, nan
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.dynamic_conv import DynamicConv2d
from awnet.models.mix_batch_norm import Branch, MixBatchNorm2d, MixConv2d, Norm, OneBatchNorm2d, Route, affine_maps
from awnet.models.model import MODELS, Architecture, Decision
from awnet.models.resnet import BLOCKS, STRIDES, BasicBlock, Bottleneck, ResNetConfig
from awnet.models.router import Router, RouterConfig, Routing
from awnet.types import Hits, Images, Logits, PerExample


@setting
@dataclass(frozen=True, kw_only=True)
class Knob:
    """What can be turned at test time, between clean accuracy and robustness, without training again.

    Args:
        type_bias: added to the log-odds of clean before P_type weighs the batch norms.
        p_max: the largest weight that BN_nat can get: P_type is cut off there, so that no attacker can push the mixture
            further towards it.
        omega: whether the router scales the filters; off, omega = 1.
    """

    type_bias: float = 0.0
    p_max: float = 1.0
    omega: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.p_max <= 1:
            raise Mistake(f"p_max is a probability, expected 0 <= p_max <= 1, got {self.p_max:g}")
        if isnan(self.type_bias):
            raise Mistake("type_bias is added to log-odds, expected a number, got nan")

    def weigh(self, routing: Routing) -> PerExample:
        """The weight of BN_nat for each image."""
        return self.log_odds(routing).sigmoid().clamp(max=self.p_max)

    def log_odds(self, routing: Routing) -> PerExample:
        """Of clean, as the weight goes by them."""
        return routing.type_logits[:, 1] - routing.type_logits[:, 0] + self.type_bias


@setting
@dataclass(frozen=True, kw_only=True)
class AWNetConfig(Architecture):
    """AW-Net.

    Args:
        base: the residual network that becomes dynamic.
        router: the router.
        beta: the power of Eq. 19; 3 in the paper. omega lies in (0, 2^beta).
        modulate_shortcuts: whether the 1x1 shortcut convolutions have signals too.
        mix: whether batch norm is MixBN; otherwise there is one for all images.
        knob: what is turned at test time.
    """

    base: ResNetConfig = field(default_factory=ResNetConfig)
    router: RouterConfig = field(default_factory=RouterConfig)
    beta: float = 3.0
    modulate_shortcuts: bool = False
    mix: bool = True
    knob: Knob = field(default_factory=Knob)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta < inf:
            raise Mistake(f"beta, the power of the signals, must be positive and finite, got {self.beta:g}")
        if not self.router.type_head and self.knob.p_max > 0:
            raise Mistake("without a type head nobody can tell clean images: BN_adv for all, knob.p_max=0, is expected")
        for part in (self.base, self.router.backbone):
            if part.mean or part.std:
                raise Mistake(
                    "AW-Net normalises once, before its two parts: mean and std are fields of AWNetConfig itself"
                )

    def build(self, *, classes: int, channels: int = 3) -> AWNet:
        return AWNet(self, classes=classes, channels=channels)

    def narrow(self) -> AWNetConfig:
        return replace(self, base=self.base.narrow(), router=self.router.narrow())


class DynamicBlock(nn.Module):
    """An AW-Net block: the convolutions of a residual block, each scaled and followed by MixBN (Eq. 9, 15)."""

    def __init__(self, config: AWNetConfig, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        c_out, norm = width * config.base.expansion, _norm(config)
        if config.base.depth == 50:  # the shapes of a bottleneck
            shapes = [(c_in, width, 1, 1), (width, width, 3, stride), (width, c_out, 1, 1)]
        else:
            shapes = [(c_in, width, 3, stride), (width, width, 3, 1)]
        self.convs = nn.ModuleList(DynamicConv2d(*shape, norm) for shape in shapes)
        self.shortcut: DynamicConv2d | MixConv2d | None = None
        if stride != 1 or c_in != c_out:
            self.shortcut = (DynamicConv2d if config.modulate_shortcuts else MixConv2d)(c_in, c_out, 1, stride, norm)

    @property
    def filters(self) -> list[int]:
        """How many signals each of its modulated convolutions needs, the shortcut's last."""
        modulated = [m for m in (*self.convs, self.shortcut) if isinstance(m, DynamicConv2d)]
        return [m.conv.out_channels for m in modulated]

    @property
    def norms(self) -> list[MixBatchNorm2d | OneBatchNorm2d]:
        """The batch norms after its convolutions."""
        return [m.bn for m in (*self.convs, self.shortcut) if isinstance(m, (DynamicConv2d, MixConv2d))]

    def forward(self, x: Tensor, omegas: list[Tensor] | list[None], route: Route) -> Tensor:
        """Features (b, c_in, h, w), and signals (b, c_out) for each of `filters`, or None for omega = 1."""
        out = x
        for i, conv in enumerate(self.convs):
            out = conv(out if i == 0 else F.relu(out), omegas[i], route)
        if isinstance(self.shortcut, DynamicConv2d):
            x = self.shortcut(x, omegas[-1], route)
        elif self.shortcut is not None:
            x = self.shortcut(x, route)
        return F.relu(out + x)


def _norm(config: AWNetConfig) -> Norm:
    return MixBatchNorm2d if config.mix else OneBatchNorm2d


class Output(NamedTuple):
    """What AW-Net says of a batch: logits of the classes, and of the types with the signals."""

    logits: Logits
    routing: Routing


class AWNet(nn.Module):
    """The router looks at the image, then the dynamic network classifies it with the filters that the router scales."""

    def __init__(self, config: AWNetConfig, *, classes: int, channels: int = 3) -> None:
        super().__init__()
        base = config.base
        self.knob = config.knob
        self.means: tuple[Tensor, ...] = ()  # of omega, where they are known (`averaged`)
        self.normalize = config.normalize(channels)
        self.stem = MixConv2d(channels, base.width, 3, 1, _norm(config))
        blocks: list[DynamicBlock] = []
        expansion = (Bottleneck if base.depth == 50 else BasicBlock).expansion
        c_in = base.width
        for stage, (count, stride) in enumerate(zip(BLOCKS[base.depth], STRIDES, strict=True)):
            width = base.width * 2**stage
            for i in range(count):
                blocks.append(DynamicBlock(config, c_in, width, stride if i == 0 else 1))
                c_in = width * expansion
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(base.features, classes)
        filters = tuple(n for block in blocks for n in block.filters)
        self.router = Router(config.router, filters=filters, beta=config.beta, channels=channels)

    def forward(self, x: Images, branch: Branch = Branch.MIXTURE) -> Logits:
        """Logits of images in [0, 1]; see `run`."""
        return self.run(x, branch).logits

    def run(self, x: Images, branch: Branch = Branch.MIXTURE, *, definition: bool = False) -> Output:
        """Logits and routing.

        Args:
            x: images in [0, 1], shape (b, c, h, w).
            branch: which batch norms; in training mode the type of the images must be said.
            definition: compute filters for each image and the batch norms one by one, as the equations are written.
        """
        if self.training and branch is Branch.MIXTURE:
            raise Mistake(
                "in training mode each image's type must be given: branch=Branch.CLEAN, ADVERSARIAL or HALVES; a joint "
                "objective (JointConfig) does"
            )
        x = self.normalize(x)
        routing = self.router(x)
        return Output(self.classify(x, routing, branch, definition=definition), routing)

    def classify(
        self, x: Images, routing: Routing, branch: Branch, *, definition: bool = False, p: PerExample | None = None
    ) -> Logits:
        """Logits of normalised images under a routing that is given, and where it is, a weight p of BN_nat."""
        if branch is Branch.HALVES and len(x) % 2:
            raise ValueError(f"Branch.HALVES takes as many clean images as adversarial ones, got {len(x)} in all")
        p = self.knob.weigh(routing) if p is None and branch is Branch.MIXTURE else p
        route = Route(branch, p, definition)
        if not (self.training or definition or branch is Branch.HALVES):
            route = route._replace(maps=affine_maps(self._norms(), route))
        signals = iter(routing.signals if self.knob.omega else [None] * len(routing.signals))
        out = F.relu(self.stem(x, route))
        for block in self.blocks:
            assert isinstance(block, DynamicBlock)
            out = block(out, [next(signals) for _ in block.filters], route)
        return self.head(out.mean((2, 3)))

    def detect(self, x: Images) -> tuple[Logits, PerExample]:
        """Logits, and the router's own P(clean) before bias and cap; NaN without a type head."""
        output = self.run(x)
        p_clean = output.routing.p_clean
        return output.logits, p_clean if self.router.type_head else torch.full_like(p_clean, nan)

    @property
    def forms(self) -> tuple[str, ...]:
        """The frozen forms of `decide`.

        As sure of clean as the cap allows, sure of adversarial, or midway between; deciding as it does and denying it to
        the gradient; and, where the router scales filters, omega = 1, or its mean where that is known (`averaged`).
        Without a type head there is only omega to freeze.
        """
        decided = ("clean", "adversarial", "half", "detached") if self.router.type_head else ()
        scaled = ("unmodulated", "averaged") if self.means else ("unmodulated",)
        return decided + scaled * self.knob.omega

    def decide(self, x: Images, seen: Images, form: str = "", forced: Hits | None = None) -> Decision:
        """Logits of x under the router's decision on the images `seen`, and where `forced` in a frozen form; see `Deciding`."""
        assert form in ("", *self.forms), form
        routing = self.router(self.normalize(seen))
        p = self.knob.weigh(routing)
        if form and forced is not None:
            if form in ("unmodulated", "averaged"):
                held = self.means if form == "averaged" else [torch.ones_like(omega) for omega in routing.signals]
                own = zip(held, routing.signals, strict=True)
                signals = (torch.where(forced[:, None], instead.to(omega), omega) for instead, omega in own)
                routing = routing._replace(signals=tuple(signals))
            else:
                most = self.knob.p_max
                instead = {"clean": most, "adversarial": 0.0, "half": most / 2, "detached": p.detach()}[form]
                p = torch.where(forced, instead, p)
        logits = self.classify(self.normalize(x), routing, Branch.MIXTURE, p=p)
        return Decision(logits, self.knob.log_odds(routing))

    def signals(self, x: Images) -> dict[str, Tensor]:
        """The router's omega of each modulated convolution, (b, c_out); none of them where the knob sets omega = 1."""
        if not self.knob.omega:
            return {}
        return dict(zip(self._layers(), self.router(self.normalize(x)).signals, strict=True))

    def hold(self, x: Images, signals: Mapping[str, Tensor]) -> Logits:
        """Logits with these omega in place of the router's own, which goes on weighing the batch norms; see `Holding`."""
        x = self.normalize(x)
        routing = self.router(x)
        own = zip(self._layers(), routing.signals, strict=True)
        held = tuple(signals[name].to(x).expand_as(omega) if name in signals else omega for name, omega in own)
        return self.classify(x, routing._replace(signals=held), Branch.MIXTURE)

    def averaged(self, means: Mapping[str, Tensor]) -> AWNet:
        """The same network, sharing all weights, with omega at its means as one more of its forms; see `Averaging`."""
        other = copy.copy(self)
        other.means = tuple(means[name].to(self.head.weight) for name in self._layers())
        return other

    def _norms(self) -> list[MixBatchNorm2d | OneBatchNorm2d]:
        """All of its batch norms."""
        norms = [block.norms for block in self.blocks if isinstance(block, DynamicBlock)]
        return [self.stem.bn, *chain.from_iterable(norms)]

    def _layers(self) -> Iterator[str]:
        """A name for each modulated convolution, in the order of the signals."""
        for i, block in enumerate(self.blocks):
            assert isinstance(block, DynamicBlock)
            convs = [f"conv {k + 1}" for k in range(len(block.convs))]
            for conv in [*convs, "shortcut"][: len(block.filters)]:
                yield f"block {i + 1}, {conv}"

    def turned(self, knob: Knob) -> AWNet:
        """The same network, sharing all weights, with its knob turned."""
        other = copy.copy(self)
        other.knob = knob
        return other


MODELS.register("awnet")(AWNetConfig())
# "L" replaces one ResNet-18 by ResNet-34 (both would exceed the printed 38.8M before any head): the dynamic one.
MODELS.register("awnet-l")(AWNetConfig(base=ResNetConfig(depth=34)))
MODELS.register("awnet50")(AWNetConfig(base=ResNetConfig(depth=50)))
# Table 3, first and second row.
UNTOLD = AWNetConfig(router=RouterConfig(type_head=False), knob=Knob(p_max=0.0))
MODELS.register("awnet-signals")(replace(UNTOLD, mix=False))
MODELS.register("awnet-mixbn")(UNTOLD)
