"""Separate-Net (the AW-Net paper, 5.2.2): two networks and a detector that says which of them an image is for.

A MobileNet-V2 trained on clean images, a ResNet-18 trained by TRADES, and a detector like AW-Net's router, a ResNet-18 with a
type head: 24.6 million parameters, as many as AW-Net. Separate-Net-L has a ResNet-34 for the robust one. They share nothing
and are trained apart. "Trained and thresholded" is all that is said of the detector: an image is taken for clean where
P(clean) >= 1/2, unless it is calibrated otherwise.

The switch is hard, so no gradient leads through the decision; "soft" mixes the two predictions by P(clean), and has one. Both
offer an attacker what a careful one would build (`Deciding`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf, isnan

import torch
import torch.nn.functional as F
from torch import nn

from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.mobilenet_v2 import MobileNetV2Config
from awnet.models.model import MODELS, Architecture, Decision
from awnet.models.resnet import ResNetConfig
from awnet.types import Hits, Images, Logits, PerExample


@setting
@dataclass(frozen=True, kw_only=True)
class SeparateNetConfig(Architecture):
    """Separate-Net.

    Args:
        clean, robust: the two networks.
        detector: of two classes, adversarial and clean.
        bias: added to the log-odds of clean, which moves the threshold from P(clean) = 1/2.
        soft: whether the two predictions are mixed by P(clean) instead of one being chosen.
    """

    clean: Architecture = field(default_factory=MobileNetV2Config)
    robust: Architecture = field(default_factory=ResNetConfig)
    detector: Architecture = field(default_factory=ResNetConfig)
    bias: float = 0.0
    soft: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isnan(self.bias):
            raise Mistake("the bias of Separate-Net is added to log-odds, expected a number, got nan")

    def build(self, *, classes: int, channels: int = 3) -> SeparateNet:
        clean, robust = (part.build(classes=classes, channels=channels) for part in (self.clean, self.robust))
        detector = self.detector.build(classes=2, channels=channels)
        normalize = self.normalize(channels)
        return SeparateNet(clean, robust, detector, bias=self.bias, soft=self.soft, normalize=normalize)

    def narrow(self) -> SeparateNetConfig:
        parts = {name: getattr(self, name).narrow() for name in ("clean", "robust", "detector")}
        return replace(self, **parts)


class SeparateNet(nn.Module):
    """Log-probabilities, which serve as logits: of the chosen network, or of the mixture."""

    forms = ("clean", "adversarial", "half")

    def __init__(
        self,
        clean: nn.Module,
        robust: nn.Module,
        detector: nn.Module,
        *,
        bias: float = 0.0,
        soft: bool = False,
        normalize: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.normalize = normalize or nn.Identity()
        self.clean, self.robust, self.detector = clean, robust, detector
        self.bias, self.soft = bias, soft

    def forward(self, x: Images) -> Logits:
        return self.decide(x, x, "", torch.zeros(len(x), dtype=torch.bool, device=x.device)).logits

    def detect(self, x: Images) -> tuple[Logits, PerExample]:
        """Logits and P(clean)."""
        logits, log_odds = self.decide(x, x, "", torch.zeros(len(x), dtype=torch.bool, device=x.device))
        return logits, log_odds.sigmoid()

    def decide(self, x: Images, seen: Images, form: str, forced: Hits) -> Decision:
        """See `Deciding`; the forms take the clean network, the robust one, or the mean of their probabilities."""
        of_type = self.detector(self.normalize(seen))
        log_odds = of_type[:, 1] - of_type[:, 0] + self.bias
        # the hard switch as an infinite sharpness of the soft one: its logarithms are 0 and -infinity
        sure = torch.where(log_odds >= 0, inf, -inf).to(log_odds)
        weigh = log_odds if self.soft else sure
        if form:
            weigh = torch.where(forced, {"clean": inf, "adversarial": -inf, "half": 0.0}[form], weigh)
        x = self.normalize(x)
        clean = F.log_softmax(self.clean(x), dim=1)
        robust = F.log_softmax(self.robust(x), dim=1)
        weigh = weigh[:, None]
        # the gradient of log(e^a + e^b) is nan where either weight is 0, so those are chosen and not mixed
        finite = torch.where(weigh.isinf(), 0.0, weigh)
        mixed = torch.logaddexp(clean + F.logsigmoid(finite), robust + F.logsigmoid(-finite))
        return Decision(torch.where(weigh == inf, clean, torch.where(weigh == -inf, robust, mixed)), log_odds)


MODELS.register("separate-net")(SeparateNetConfig())
MODELS.register("separate-net-l")(SeparateNetConfig(robust=ResNetConfig(depth=34)))
