"""Adaptive smoothing (Bai et al., 2023, https://arxiv.org/abs/2301.12554): two classifiers mixed anew for each image.

    f(x) = log((1 - alpha(x)) softmax(g(x)) + alpha(x) softmax(h(x))),  alpha = low + (high - low) sigmoid(gamma(x))

with g accurate, h robust, and a mixing network whose gamma is large for attacked images. With alpha fixed it is the
`StaticMixture`. A range such as the (0.84, 0.99) of its published CIFAR-100 model keeps most of that mixture's robustness,
whatever an attacker makes of gamma. The paper's text was not at hand; this was compared with its published code.

The paper's mixing network looks at feature maps inside both networks, which have to be of one kind for it. Here the two may be
any networks: the mixing network looks at the image with a small residual network of its own, and at the log-probabilities of
both. Its published model also normalises gamma over a batch and sets its spread by hand; here low and high are all there is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.model import Architecture, Decision
from awnet.models.resnet import ResNetConfig, ResNetTrunk
from awnet.types import Hits, Images, Logits, PerExample

HIDDEN = 64  # units between what the mixing network sees and gamma
SURE = 80.0  # of gamma: beyond it the sigmoid is 0 or 1 for every purpose, and its logarithm still has a slope


@setting
@dataclass(frozen=True, kw_only=True)
class AdaptiveSmoothingConfig(Architecture):
    """Adaptive smoothing.

    Args:
        clean, robust: the two networks, g and h. Each normalises as its own settings say; `mean` and `std` here come before
            all three.
        mixer: of the image, in the mixing network.
        low, high: the range of alpha, the weight of the robust network.
    """

    clean: Architecture = field(default_factory=ResNetConfig)
    robust: Architecture = field(default_factory=ResNetConfig)
    mixer: ResNetConfig = field(default_factory=lambda: ResNetConfig(depth=10, width=16))
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.low < self.high <= 1:
            raise Mistake(f"alpha lies in a range 0 <= low < high <= 1, got low {self.low:g} and high {self.high:g}")
        if self.mixer.mean or self.mixer.std:
            raise Mistake("the mixing network sees what both networks see: mean and std are of AdaptiveSmoothingConfig")

    def build(self, *, classes: int, channels: int = 3) -> AdaptiveSmoothing:
        return AdaptiveSmoothing(self, classes=classes, channels=channels)

    def narrow(self) -> AdaptiveSmoothingConfig:
        return replace(self, **{name: getattr(self, name).narrow() for name in ("clean", "robust", "mixer")})


class Mixer(nn.Module):
    """gamma from the image and what both networks say of it."""

    def __init__(self, config: ResNetConfig, *, classes: int, channels: int) -> None:
        super().__init__()
        self.trunk = ResNetTrunk(config, channels=channels)
        self.hidden = nn.Linear(config.features + 2 * classes, HIDDEN)
        self.head = nn.Linear(HIDDEN, 1)

    def forward(self, x: Images, clean: Logits, robust: Logits) -> PerExample:
        """Normalised images, and log-probabilities of both networks, to gamma, shape (b,)."""
        seen = torch.cat([self.trunk(x)[-1].mean((2, 3)), clean, robust], dim=1)
        return self.head(F.relu(self.hidden(seen)))[:, 0]


class AdaptiveSmoothing(nn.Module):
    """Log-probabilities of the mixture, which serve as logits."""

    forms = ("clean", "adversarial", "half", "detached")

    def __init__(self, config: AdaptiveSmoothingConfig, *, classes: int, channels: int = 3) -> None:
        super().__init__()
        self.normalize = config.normalize(channels)
        self.clean, self.robust = (
            part.build(classes=classes, channels=channels) for part in (config.clean, config.robust)
        )
        self.mixer = Mixer(config.mixer, classes=classes, channels=channels)
        self.low, self.high = config.low, config.high

    def forward(self, x: Images) -> Logits:
        return self._judge(x)[0]

    def detect(self, x: Images) -> tuple[Logits, PerExample]:
        """Logits, and P(clean) as the mixing network has it: sigmoid(-gamma)."""
        logits, gamma = self._judge(x)
        return logits, (-gamma).sigmoid()

    def decide(self, x: Images, seen: Images, form: str, forced: Hits) -> Decision:
        """See `Deciding`; the forms take alpha = low, high, midway, or as it is and denied to the gradient."""
        assert form in ("", *self.forms), form
        gamma = self._judge(seen)[1]
        used = gamma
        if form:
            instead = {"clean": -SURE, "adversarial": SURE, "half": 0.0, "detached": gamma.detach()}[form]
            used = torch.where(forced, instead, gamma)
        x = self.normalize(x)
        return Decision(self.mix(*self.ask(x), used), -gamma)

    def _judge(self, x: Images) -> tuple[Logits, PerExample]:
        x = self.normalize(x)
        clean, robust = self.ask(x)
        gamma = self.mixer(x, clean, robust)
        return self.mix(clean, robust, gamma), gamma

    def ask(self, x: Images) -> tuple[Logits, Logits]:
        """The log-probabilities of both networks on normalised images."""
        return F.log_softmax(self.clean(x), dim=1), F.log_softmax(self.robust(x), dim=1)

    def mix(self, clean: Logits, robust: Logits, gamma: PerExample) -> Logits:
        """f from log-probabilities of both and gamma, in logarithms throughout."""
        alpha = _log_of(self.low, self.high - self.low, F.logsigmoid(gamma))
        rest = _log_of(1 - self.high, self.high - self.low, F.logsigmoid(-gamma))  # 1 - alpha
        return torch.logaddexp(clean + rest[:, None], robust + alpha[:, None])


def _log_of(offset: float, span: float, log_share: Tensor) -> Tensor:
    """log(offset + span e^log_share)."""
    scaled = log_share + log(span)
    return torch.logaddexp(torch.full_like(scaled, log(offset)), scaled) if offset else scaled
