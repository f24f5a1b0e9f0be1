"""MTARD: two teachers for one student (Zhao et al., "Enhanced accuracy and robustness via multi-teacher adversarial
distillation", ECCV 2022), the objective over which AW-Net is trained (section 4.4, Eq. 20-22).

The clean teacher is followed on clean images, the robust one on adversarial images; the weights of the two losses move
so that the loss which has fallen less since the first batch gets more:

    r_k = (L_k / L_k at the first batch)^balance,   a_nat <- a_nat - lr_w (a_nat - r_nat / (r_nat + r_adv)),   a_adv = 1 - a_nat

Where the papers and the code differ: the code averages the KL over classes too and multiplies by ten for CIFAR-100, so
both scripts train with a tenth of the usual mean KL, to which their learning rate was tuned: `kd_scale` = 1/10 here, 1
as AW-Net's Eq. 20-21 print it. The code has KL(teacher || student), Eq. 20-21 print KL(student, teacher): `reverse`. The
code uses no temperature, AW-Net's paper tau on both with tau^2 in front: as the paper. The code adds 1e-5 to the teacher's
probability inside the logarithm, which keeps the exact KL finite where it is finite anyway: left out.

B-MTARD (Zhao et al., TPAMI 2024, https://arxiv.org/abs/2306.16170) is the same with teachers whose temperatures move
(`awnet.training.entropy_balance`): `temperature_lr` above 0, 0.001 as published. Its code moves both weights on their own,
clips them at 0 and divides them by their sum, which comes to the rule above: they start at a sum of 1 and keep it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import nn

from awnet.attacks.pgd import PGD
from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import KL
from awnet.threat_model import ThreatModel
from awnet.training.entropy_balance import EntropyBalance
from awnet.training.objective import OBJECTIVES, Losses, Moment, ObjectiveConfig, PairObjective
from awnet.training.teacher import Teacher
from awnet.types import Images, Labels, Logits, PerExample


@setting
@dataclass(frozen=True, kw_only=True)
class MTARDConfig(ObjectiveConfig):
    """a_adv tau^2 KL(T_adv(x_adv) || S(x_adv)) + a_nat tau^2 KL(T_nat(x) || S(x)).

    Args:
        clean_teacher: a checkpoint folder, or the name of a recipe that trains one first.
        robust_teacher: likewise.
        tau: temperature; 1 for CIFAR-10, 5 for CIFAR-100 and Tiny-ImageNet.
        kd_scale: what both losses are multiplied by.
        reverse: KL(student || teacher) instead.
        weight_lr: lr_w, how fast the weights move; falls with the learning rate.
        balance: the power of the relative losses.
        temperature_lr: how fast the teachers' temperatures move; falls with the learning rate. 0: they stay at tau.
        steps: of the inner PGD on the cross-entropy with the true label, from x + 0.001 N(0, 1).
        step_size: as a fraction of eps (2/255 at eps 8/255).
    """

    clean_teacher: str = ""
    robust_teacher: str = ""
    tau: float = 1.0
    kd_scale: float = 0.1
    reverse: bool = False
    weight_lr: float = 0.025
    balance: float = 1.0
    temperature_lr: float = 0.0
    steps: int = 10
    step_size: float = 1 / 4

    def __post_init__(self) -> None:
        if not (0 < self.tau < inf and 0 < self.kd_scale < inf):
            raise Mistake(f"tau and kd_scale must be positive and finite, got {self.tau:g} and {self.kd_scale:g}")
        if not (0 <= self.weight_lr <= 1 and 0 <= self.balance < inf):
            raise Mistake(
                "the two losses are weighed with 0 <= weight_lr <= 1 and a balance of 0 or more, got "
                f"{self.weight_lr:g} and {self.balance:g}"
            )
        if not 0 <= self.temperature_lr < inf or (self.temperature_lr and self.tau != 1):
            raise Mistake(
                "temperature_lr is 0 or more, and temperatures that move begin at a tau of 1, got "
                f"{self.temperature_lr:g} and {self.tau:g}"
            )

    @property
    def teachers(self) -> dict[str, str]:
        return {"clean": self.clean_teacher, "robust": self.robust_teacher}

    def build(self, threat: ThreatModel, teachers: dict[str, nn.Module]) -> MTARD:
        return MTARD(self, threat, clean_teacher=teachers["clean"], robust_teacher=teachers["robust"])


class MTARD(PairObjective):
    """The MTARD loss with its two weights."""

    uses_clean = True
    a_nat: torch.Tensor
    first_nat: torch.Tensor
    first_adv: torch.Tensor

    def __init__(
        self, config: MTARDConfig, threat: ThreatModel, *, clean_teacher: nn.Module, robust_teacher: nn.Module
    ) -> None:
        super().__init__()
        self.config = config
        self.attack = PGD(threat=threat, steps=config.steps, step_size=config.step_size, initial="gaussian")
        self.clean_teacher, self.robust_teacher = Teacher(clean_teacher), Teacher(robust_teacher)
        self.temperatures = EntropyBalance(config.temperature_lr) if config.temperature_lr else None
        self.kl = KL(tau=config.tau, reverse=config.reverse)
        self.register_buffer("a_nat", torch.tensor(0.5, dtype=torch.float64))
        self.register_buffer("first_nat", torch.tensor(float("nan"), dtype=torch.float64))
        self.register_buffer("first_adv", torch.tensor(float("nan"), dtype=torch.float64))

    def _distil(self, student: Logits, target: Logits) -> PerExample:
        """tau^2 KL, Eq. 20-21."""
        return self.config.kd_scale * self.config.tau**2 * self.kl(student, target)

    def _move_weights(self, nat: PerExample, adv: PerExample, lr_factor: float) -> None:
        """The weights move before they are used, so the first step leaves them at one half."""
        nat_mean, adv_mean = nat.detach().double().mean(), adv.detach().double().mean()
        self.first_nat.copy_(torch.where(self.first_nat.isnan(), nat_mean, self.first_nat))
        self.first_adv.copy_(torch.where(self.first_adv.isnan(), adv_mean, self.first_adv))
        r_nat = (nat_mean / self.first_nat) ** self.config.balance
        r_adv = (adv_mean / self.first_adv) ** self.config.balance
        self.a_nat.sub_(self.config.weight_lr * lr_factor * (self.a_nat - r_nat / (r_nat + r_adv)))

    def compare(
        self, clean: Logits | None, adversarial: Logits, x: Images, x_adv: Images, y: Labels, moment: Moment
    ) -> Losses:
        assert clean is not None
        of_clean, of_robust = self.clean_teacher(x), self.robust_teacher(x_adv)
        watched: dict[str, torch.Tensor] = {}
        if self.temperatures:
            watched = self.temperatures.watched()
            of_clean, of_robust = self.temperatures(of_clean, of_robust, moment.lr_factor)
        nat, adv = self._distil(clean, of_clean), self._distil(adversarial, of_robust)
        if self.training:
            self._move_weights(nat, adv, moment.lr_factor)
        a_nat = self.a_nat.float()
        return Losses(
            {"adversarial": adv, "clean": nat},
            {"adversarial": 1 - a_nat, "clean": a_nat},
            {"alpha_nat": a_nat.clone(), "alpha_adv": 1 - a_nat, **watched},
        )


OBJECTIVES.register("mtard")(MTARDConfig())
OBJECTIVES.register("b-mtard")(MTARDConfig(temperature_lr=0.001))
