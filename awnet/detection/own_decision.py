"""A network's own decision: AW-Net's router (the AW-Net paper, 5.3.3), or that of any model which tells clean from attacked.

Log-odds of clean where the model offers them (`Deciding`), else P(clean) as log-odds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from awnet.attacks.frozen import frozen_for_attack
from awnet.config import setting
from awnet.detection.detector import DETECTORS, Detector, DetectorConfig, Known
from awnet.errors import Mistake
from awnet.models.model import Deciding, Detecting, device_of, judge
from awnet.types import Images, PerExample


@torch.no_grad()
def tells(model: nn.Module, x: Images) -> bool:
    """Whether what a model says is about attacks; RDI and ADVMOE decide too, on something else."""
    with frozen_for_attack(model):
        return not bool(judge(model, x.to(device_of(model, x.device)))[1].isnan().any())


@setting
@dataclass(frozen=True, kw_only=True)
class OwnDecision(DetectorConfig):
    """The network's own log-odds of clean. There is nothing to fit."""

    def fitted(self, model: nn.Module, known: Known) -> Detector:
        if not tells(model, known.clean[:1]):
            raise Mistake(
                f"a {type(model).__name__} does not tell clean images from attacked ones; AW-Net does, by its `detect`"
            )
        return OwnDecisionDetector(model)


class OwnDecisionDetector(Detector):
    """What the router says."""

    def score(self, x: Images) -> PerExample:
        if isinstance(self.model, Deciding):
            return self.model.decide(x, x, "", torch.zeros(len(x), dtype=torch.bool, device=x.device)).log_odds
        assert isinstance(self.model, Detecting)
        return self.model.detect(x)[1].logit(eps=1e-6)


DETECTORS.register("router")(OwnDecision())
