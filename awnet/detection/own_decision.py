"""A network's own decision: AW-Net's router (the AW-Net paper, 5.3.3), or that of any model which tells clean from attacked.

Log-odds of clean where the model offers them (`Deciding`), else P(clean) as log-odds, which have a gradient wherever P(clean)
has one: a detector that is sure is no harder to follow for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from awnet.attacks.frozen import frozen_for_attack
from awnet.config import setting
from awnet.detection.detector import DETECTORS, Detector, DetectorConfig, Known
from awnet.detection.guarded import Guarded
from awnet.errors import Mistake
from awnet.models.model import Deciding, Detecting, device_of
from awnet.types import Images, PerExample

FEW = 8  # images, as some models answer no batch of one
LEAST = 1e-30  # of P(clean): log-odds of -69, of which float32 can tell the slope
MOST = 1 - 2**-24  # the largest number below 1: log-odds of 17
ROUNDING = 1e-6  # by which a softmax may leave [0, 1]


def deciding(model: nn.Module, x: Images) -> nn.Module:
    """A model that tells as one whose decision attacks can steer: itself, or the classifier that its own `detect` watches.

    Args:
        model: tells attacked images from clean ones.
        x: some images, at least one.

    Raises:
        Mistake: it does not, or what its `detect` says is no P(clean).
    """
    if isinstance(model, Guarded):
        return model
    if not tells(model, x):
        raise Mistake(
            f"a {type(model).__name__} does not tell clean images from attacked ones; AW-Net does, by its `detect`"
        )
    return model if isinstance(model, Deciding) else Guarded(OwnDecisionDetector(model))


@torch.no_grad()
def tells(model: nn.Module, x: Images) -> bool:
    """Whether what a model says is about attacks; RDI and ADVMOE decide too, on something else.

    Args:
        model: left as it was.
        x: some images, at least one; few of them are looked at.

    Raises:
        Mistake: its `detect` raises, or says no P(clean).
    """
    if not isinstance(model, Detecting):
        return False
    few = x[torch.arange(FEW) % len(x)].to(device_of(model, x.device))
    with frozen_for_attack(model):
        try:
            _, p_clean = model.detect(few)
        except Mistake:
            raise
        except Exception as error:  # a user's code can raise anything
            said = (str(error).strip() or "it says no more").splitlines()[0]
            raise Mistake(
                f"the model's detect raises {type(error).__name__} on images of shape {tuple(few.shape)}: {said}"
            ) from None
    if p_clean.shape != (len(few),):
        raise Mistake(
            f"the model's detect says P(clean) of shape {tuple(p_clean.shape)} for {len(few)} images, expected ({len(few)},)"
        )
    low, high = p_clean.aminmax()
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise Mistake(
            f"the model's detect says P(clean) from {low:.4g} to {high:.4g}, expected probabilities in [0, 1]; of log-odds "
            "return the sigmoid"
        )
    return not bool(p_clean.isnan().any())


@setting
@dataclass(frozen=True, kw_only=True)
class OwnDecision(DetectorConfig):
    """The network's own log-odds of clean. There is nothing to fit."""

    def fitted(self, model: nn.Module, known: Known) -> Detector:
        deciding(model, known.clean)  # refuses a model that does not tell
        return OwnDecisionDetector(model)


class OwnDecisionDetector(Detector):
    """What the router says."""

    def score(self, x: Images) -> PerExample:
        if isinstance(self.model, Deciding):
            return self.model.decide(x, x, "", torch.zeros(len(x), dtype=torch.bool, device=x.device)).log_odds
        assert isinstance(self.model, Detecting)
        p = self.model.detect(x)[1].float()
        # only the value is clamped: where P(clean) is 1e-9, its own slope is what an attacker climbs by
        return (p + (p.clamp(LEAST, MOST) - p).detach()).logit()


DETECTORS.register("router")(OwnDecision())
