"""Projected gradient descent (Madry et al., 2018, https://arxiv.org/abs/1706.06083), as the AW-Net paper runs it (5.1).

The result is the last iterate after one random start; an example that is misclassified on the way goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from awnet.attacks.attack import Answer, Attack, Gradient
from awnet.attacks.registry import ATTACKS
from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import CrossEntropy, Loss
from awnet.noise import Noise
from awnet.threat_model import ThreatModel
from awnet.types import Hits, Images


class PGDState(NamedTuple):
    """Where each example is: the image, what the loss compares with, the iterate, and how many steps it has made."""

    x: Images
    target: Tensor
    x_adv: Images
    step: Tensor  # (b,)


@setting
@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Repeat x_adv <- project(x_adv + step_size * direction of steepest ascent of the loss).

    Args:
        threat: the ball.
        loss: (logits, target) -> (b,), to be raised.
        steps: gradient evaluations an example.
        step_size: as a fraction of eps, so that it means the same at every eps. The paper's absolute steps belong to eps
            8/255; at an eps of 0.28 twenty absolute steps of 0.003 never reach the edge of the ball.
        unit: "eps", or "pixel" for an absolute step size in units of [0, 1] (in the norm of the threat model).
        initial: "zero"; "uniform" in the ball; "step", uniform within one step of the image; or "gaussian", 0.001 N(0, 1) a
            pixel as TRADES and MTARD start (they do not clip it; here it is projected, so that no query ever leaves the
            threat model).
    """

    threat: ThreatModel
    loss: Loss = CrossEntropy()  # noqa: RUF009 - frozen, without state
    steps: int = 20
    step_size: float = 1 / 4
    unit: Literal["eps", "pixel"] = "eps"
    initial: Literal["zero", "uniform", "step", "gaussian"] = "uniform"
    stop_on_success: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.step_size < inf:
            raise Mistake(f"PGD needs at least one step of positive size, got {self.steps} of {self.step_size:g}")

    @property
    def queries(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.steps

    @property
    def _size(self) -> float:
        """Of a step, in the norm of the threat model."""
        return self.step_size * (self.threat.eps if self.unit == "eps" else 1.0)

    def start(self, x: Images, target: Tensor, noise: Noise) -> PGDState:
        if self.initial == "uniform":
            delta = self.threat.uniform(noise, 0, tuple(x.shape[1:]))
        elif self.initial == "step":
            within = min(self._size / self.threat.eps, 1.0) if self.threat.eps else 0.0
            delta = within * self.threat.uniform(noise, 0, tuple(x.shape[1:]))
        elif self.initial == "gaussian":
            delta = 0.001 * noise.normal(0, tuple(x.shape[1:]))
        else:
            delta = torch.zeros_like(x)
        step = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return PGDState(x, target, self.threat.project(x + delta, x), step)

    def query(self, state: PGDState) -> Gradient:
        return Gradient(state.x_adv, lambda logits: self.loss(logits, state.target))

    def update(self, state: PGDState, answer: Answer, noise: Noise) -> PGDState:
        assert answer.gradient is not None
        x_adv = self.threat.project(state.x_adv + self._size * self.threat.ascend(answer.gradient), state.x)
        return state._replace(x_adv=x_adv, step=state.step + 1)

    def done(self, state: PGDState) -> Hits:
        return state.step >= self.steps

    def adversarial(self, state: PGDState) -> Images:
        return state.x_adv


@ATTACKS.register("pgd-sat")
def pgd_sat(threat: ThreatModel) -> PGD:
    """PGD_sat of the paper: 20 steps of 2/255 at eps 8/255, here eps/4 at any eps."""
    return PGD(threat=threat, steps=20, step_size=1 / 4)


@ATTACKS.register("pgd-trades")
def pgd_trades(threat: ThreatModel) -> PGD:
    """PGD_trades of the paper: 20 steps of 0.003 at eps 8/255, here the same fraction of eps; cross-entropy, not KL."""
    return PGD(threat=threat, steps=20, step_size=0.003 * 255 / 8)


@ATTACKS.register("pgd-sat-absolute")
def pgd_sat_absolute(threat: ThreatModel) -> PGD:
    """PGD_sat with the paper's absolute step of 2/255 whatever eps is."""
    return PGD(threat=threat, steps=20, step_size=2 / 255, unit="pixel")


@ATTACKS.register("pgd-trades-absolute")
def pgd_trades_absolute(threat: ThreatModel) -> PGD:
    """PGD_trades with the paper's absolute step of 0.003 whatever eps is."""
    return PGD(threat=threat, steps=20, step_size=0.003, unit="pixel")
