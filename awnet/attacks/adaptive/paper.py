"""The adaptive attack of the AW-Net paper (5.3.4): PGD_trades on its own objective plus the joint loss of Eq. 22.

Raised is CE(S(x_adv), y) + L_type(P_type, y' = adversarial) + a_adv tau^2 KL(T_adv(x_adv) || S(x_adv)); the clean term of
Eq. 22 does not depend on x_adv. Raising L_type pushes the router to call the image clean. Neither a_adv nor whether the
teacher's gradient flows is printed: a_adv is 1/2 where its training starts, and the gradient flows or not, as asked; the
command line tries both (`--teacher`).

The losses have one weight, and the larger gradient drowns the other. In the paper this attack is weaker than PGD_trades by
itself; `adaptive` is the one to believe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from awnet.attacks.attack import Answer, Attack, Steering
from awnet.attacks.pgd import PGD, PGDState
from awnet.attacks.registry import ATTACKS
from awnet.attacks.second_network import second_network
from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import KL, CrossEntropy
from awnet.noise import Noise
from awnet.threat_model import ThreatModel
from awnet.types import Hits, Images, Logits, PerExample


@setting
@dataclass(frozen=True, kw_only=True)
class PaperAdaptive(Attack):
    """PGD on Eq. 22. On a model that does not decide there is no L_type.

    Args:
        threat: the ball.
        steps, step_size: as those of `PGD`.
        type_weight: of L_type.
        teacher: the name of T_adv (`awnet.attacks.second_network`); without one its term is left out. Its passes are not
            counted.
        alpha: a_adv.
        tau: temperature.
        through_teacher: whether the gradient flows through T_adv(x_adv) too.
    """

    threat: ThreatModel
    steps: int = 20
    step_size: float = 0.003 * 255 / 8
    type_weight: float = 1.0
    teacher: str = ""
    alpha: float = 0.5
    tau: float = 1.0
    through_teacher: bool = False
    stop_on_success: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.type_weight < inf and 0 <= self.alpha < inf and 0 < self.tau < inf):
            raise Mistake(
                "Eq. 22 needs type_weight and alpha of at least 0 and a positive tau, all finite, got "
                f"{self.type_weight:g}, {self.alpha:g} and {self.tau:g}"
            )
        assert self._pgd  # which checks the steps

    @property
    def asks_another(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return bool(self.teacher)

    @property
    def queries(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.steps

    @property
    def _pgd(self) -> PGD:
        return PGD(threat=self.threat, steps=self.steps, step_size=self.step_size)

    def start(self, x: Images, target: Tensor, noise: Noise) -> PGDState:
        return self._pgd.start(x, target, noise)

    def query(self, state: PGDState) -> Steering:
        taught = self._taught(state.x_adv) if self.teacher else None

        def loss(logits: Logits) -> PerExample:
            raised = CrossEntropy()(logits, state.target)
            return raised if taught is None else raised + self._distance(logits, taught)

        nobody = torch.zeros_like(state.target, dtype=torch.bool)
        return Steering(state.x_adv, loss, form="", forced=nobody, origin=state.x)

    def update(self, state: PGDState, answer: Answer, noise: Noise) -> PGDState:
        assert answer.gradient is not None
        gradient = answer.gradient
        if answer.log_odds is not None and answer.towards_clean is not None:
            slope = self.type_weight * answer.log_odds.sigmoid()  # of L_type = -log P_adv = softplus(log-odds)
            gradient = gradient + slope[:, None, None, None] * answer.towards_clean
        if self.teacher and self.through_teacher:
            # of a function of two arguments, both of which follow x: the gradients along each add up
            with torch.enable_grad():
                x = state.x_adv.detach().requires_grad_()
                apart = self._distance(answer.logits, self._taught(x))
                gradient = gradient + torch.autograd.grad(apart.sum(), x)[0]
        return self._pgd.update(state, answer._replace(gradient=gradient), noise)

    def _taught(self, x: Images) -> Logits:
        # a copy in the usual layout: somebody's network may normalise in place, or use .view
        return second_network(self.teacher, x.device)(x.clone(memory_format=torch.contiguous_format))

    def _distance(self, student: Logits, teacher: Logits) -> PerExample:
        """a_adv tau^2 KL(T_adv || S)."""
        return self.alpha * self.tau**2 * KL(tau=self.tau)(student, teacher)

    def done(self, state: PGDState) -> Hits:
        return state.step >= self.steps

    def adversarial(self, state: PGDState) -> Images:
        return state.x_adv


def adaptive_paper(threat: ThreatModel) -> PaperAdaptive:
    """The paper's own adaptive attack (Eq. 22), without a teacher (--teacher has it with one): PGD_trades on the cross-entropy
    plus L_type."""
    return PaperAdaptive(threat=threat)


def taught(threat: ThreatModel, teacher: str) -> dict[str, PaperAdaptive]:
    """The same with a teacher: "with" what it says taken as given, and "through" it, where its gradient flows too."""
    attack = PaperAdaptive(threat=threat, teacher=teacher)
    return {"with": attack, "through": replace(attack, through_teacher=True)}


ATTACKS.register("adaptive-paper")(adaptive_paper)  # a plain call: the decorator would widen its type
