"""MixedNUTS (Bai et al., 2024, https://arxiv.org/abs/2402.02263): a static mixture whose robust network is transformed first.

    f(x) = log((1 - alpha) onehot(argmax g(x)) + alpha softmax(m(h(x))))
    m(z) = s |v|^p sign(v),  v = GELU(norm(z) + c)

with g accurate and h robust. A robust network is surer where it is right, even under attack, than where it is wrong; m widens
that gap, so that with alpha >= 1/2 it overrules g where it is sure and nowhere else. Nothing is trained: s, p, c and alpha are
searched for on validation images (awnet/evaluation/mixed_nuts.py). The paper's text was not at hand; this was compared with its
published code, where norm subtracts the mean of the 250 largest logits and divides by their unbiased standard deviation, and g
has temperature 0. With few classes the largest normalised logit is small, 0.7 with two of them, and an offset below its
negative would turn the order of the classes round.

A one-hot vector has no gradient, so an attack on it would see nothing of g. Here the values are those above and the gradient is
that of the mixture with softmax(g). Their own evaluation attacks mostly the mixture without m, as the stronger choice: attack
the `StaticMixture` of the two networks (`surrogate`) too, and carry its images over.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf, isfinite, log
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.model import Architecture
from awnet.models.resnet import ResNetConfig
from awnet.models.static_mixture import StaticMixture
from awnet.types import Images, Logits

TOP = 250  # logits that are normalised by; all of them, where there are no more classes


@setting
@dataclass(frozen=True, kw_only=True)
class Transform:
    """m, the nonlinear map of a robust network's logits.

    Args:
        scale: s, what its answers are multiplied by.
        power: p, at least 1; the higher, the surer the sure.
        offset: c, added to the normalised logits before the clamp; the lower, the fewer classes stay in question.
        clamp: what takes away the small ones; "none" for none.
    """

    scale: float = 1.0
    power: float = 1.0
    offset: float = 0.0
    clamp: Literal["gelu", "relu", "none"] = "gelu"

    def __post_init__(self) -> None:
        if not (0 < self.scale < inf and 1 <= self.power < inf and isfinite(self.offset)):
            raise Mistake(
                "the transform of MixedNUTS needs a positive scale, a power of 1 or more and a finite offset, got "
                f"scale {self.scale:g}, power {self.power:g} and offset {self.offset:g}"
            )

    def __call__(self, logits: Logits) -> Logits:
        v = CLAMPS[self.clamp](normalised(logits) + self.offset)
        return self.scale * v.abs() ** self.power * v.sign()


CLAMPS = {"gelu": F.gelu, "relu": F.relu, "none": torch.clone}


def normalised(logits: Logits) -> Logits:
    """Logits with mean 0 and variance 1 over the largest `TOP` of each image."""
    top = logits if logits.shape[1] <= TOP else logits.topk(TOP, dim=1).values
    return (logits - top.mean(1, keepdim=True)) * torch.rsqrt(top.var(1, keepdim=True) + 1e-8)


@setting
@dataclass(frozen=True, kw_only=True)
class MixedNUTSConfig(Architecture):
    """The nonlinear static mixture.

    Args:
        clean, robust: the two networks, g and h. Each normalises as its own settings say; `mean` and `std` here come
            before both.
        alpha: of the robust one, in [1/2, 1): below a half it could never overrule the other.
        transform: m.
    """

    clean: Architecture = field(default_factory=ResNetConfig)
    robust: Architecture = field(default_factory=ResNetConfig)
    alpha: float = 0.5
    transform: Transform = field(default_factory=Transform)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.5 <= self.alpha < 1:
            raise Mistake(f"alpha, the weight of the robust network, must lie in [0.5, 1), got {self.alpha:g}")

    def build(self, *, classes: int, channels: int = 3) -> MixedNUTS:
        parts = (part.build(classes=classes, channels=channels) for part in (self.clean, self.robust))
        return MixedNUTS(*parts, alpha=self.alpha, transform=self.transform, normalize=self.normalize(channels))

    def narrow(self) -> MixedNUTSConfig:
        return replace(self, clean=self.clean.narrow(), robust=self.robust.narrow())


class MixedNUTS(nn.Module):
    """Log-probabilities of the mixture, which serve as logits."""

    def __init__(
        self,
        clean: nn.Module,
        robust: nn.Module,
        *,
        alpha: float,
        transform: Transform,
        normalize: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.normalize = normalize or nn.Identity()
        self.clean, self.robust, self.alpha, self.transform = clean, robust, alpha, transform

    def forward(self, x: Images) -> Logits:
        x = self.normalize(x)
        return mixed(self.clean(x), self.robust(x), self.alpha, self.transform)

    @property
    def surrogate(self) -> StaticMixture:
        """The mixture without m and with a softmax for the one-hot vector, sharing all weights: what an attacker tries too."""
        return StaticMixture(self.clean, self.robust, weight=1 - self.alpha, normalize=self.normalize)


def mixed(clean: Logits, robust: Logits, alpha: float, transform: Transform) -> Logits:
    """f from the logits of g and of h."""
    of_robust = F.log_softmax(transform(robust), dim=1) + log(alpha)
    soft = torch.logaddexp(F.log_softmax(clean, dim=1) + log(1 - alpha), of_robust)
    chosen = torch.zeros_like(clean, dtype=torch.bool).scatter(1, clean.argmax(1, keepdim=True), True)
    hard = torch.where(chosen, torch.logaddexp(torch.full_like(of_robust, log(1 - alpha)), of_robust), of_robust)
    return _value_of(hard, soft)


def _value_of(value: Tensor, gradient: Tensor) -> Tensor:
    """A tensor with the value of the one and the gradient of the other."""
    return value.detach() + (gradient - gradient.detach())
