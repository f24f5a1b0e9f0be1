"""Standard training: cross-entropy on the images as they are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from awnet.config import setting
from awnet.losses import CrossEntropy
from awnet.threat_model import ThreatModel
from awnet.training.objective import OBJECTIVES, Losses, Moment, Objective, ObjectiveConfig
from awnet.types import Images, Labels


@setting
@dataclass(frozen=True, kw_only=True)
class StandardConfig(ObjectiveConfig):
    """mean CE(f(x), y)."""

    def build(self, threat: ThreatModel, teachers: dict[str, nn.Module]) -> Standard:
        return Standard()


class Standard(Objective):
    """Cross-entropy."""

    def forward(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Losses:
        return Losses({"clean": CrossEntropy()(model(x), y)}, {"clean": 1.0}, {})


OBJECTIVES.register("standard")(StandardConfig())
