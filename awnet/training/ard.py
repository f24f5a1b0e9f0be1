"""ARD, adversarially robust distillation (Goldblum et al., AAAI 2020, https://arxiv.org/abs/1905.09747).

The student learns to say of adversarial images what a robust teacher says of clean ones:

    x_adv = argmax CE(S(x'), y),   alpha tau^2 KL(T^tau(x) || S^tau(x_adv)) + (1 - alpha) CE(S(x), y)

The published code averages the KL over classes too: `kd_scale` is a tenth here, which is that mean for ten classes. As there
the cross-entropy has no temperature, and clean images pass through the student even at the published alpha of 1, where they
count for its running statistics alone. There the attack is in training mode and moves those too; here it is in eval mode, as
everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from torch import nn

from awnet.attacks.pgd import PGD
from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import KL, CrossEntropy
from awnet.threat_model import ThreatModel
from awnet.training.objective import OBJECTIVES, Losses, Moment, ObjectiveConfig, PairObjective
from awnet.training.teacher import Teacher
from awnet.types import Images, Labels, Logits


@setting
@dataclass(frozen=True, kw_only=True)
class ARDConfig(ObjectiveConfig):
    """alpha tau^2 mean KL(T(x) || S(x_adv)) + (1 - alpha) mean CE(S(x), y), the KL at temperature tau.

    Args:
        robust_teacher: a checkpoint folder, or the name of a recipe that trains one first.
        alpha: of distillation; 1 in the published code.
        tau: temperature of both networks; 30 in the published code.
        kd_scale: what the KL is multiplied by.
        steps: of the inner PGD on the cross-entropy, from a uniform start.
        step_size: as a fraction of eps (2/255 at eps 8/255).
    """

    robust_teacher: str = ""
    alpha: float = 1.0
    tau: float = 30.0
    kd_scale: float = 0.1
    steps: int = 10
    step_size: float = 1 / 4

    def __post_init__(self) -> None:
        if not (0 <= self.alpha <= 1 and 0 < self.kd_scale < inf and 0 < self.tau < inf):
            raise Mistake(
                "ARD needs an alpha between 0 and 1 and a positive tau and kd_scale, got "
                f"{self.alpha:g}, {self.tau:g} and {self.kd_scale:g}"
            )

    @property
    def teachers(self) -> dict[str, str]:
        return {"robust": self.robust_teacher}

    def build(self, threat: ThreatModel, teachers: dict[str, nn.Module]) -> ARD:
        return ARD(self, threat, robust_teacher=teachers["robust"])


class ARD(PairObjective):
    """The ARD loss."""

    uses_clean = True

    def __init__(self, config: ARDConfig, threat: ThreatModel, *, robust_teacher: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.trains_clean = config.alpha < 1
        self.attack = PGD(threat=threat, steps=config.steps, step_size=config.step_size, initial="uniform")
        self.teacher = Teacher(robust_teacher)
        self.kl = KL(tau=config.tau)

    def compare(
        self, clean: Logits | None, adversarial: Logits, x: Images, x_adv: Images, y: Labels, moment: Moment
    ) -> Losses:
        assert clean is not None
        config = self.config
        taught = config.kd_scale * config.tau**2 * self.kl(adversarial, self.teacher(x))
        terms = {"adversarial": taught, "clean": CrossEntropy()(clean, y)}
        return Losses(terms, {"adversarial": config.alpha, "clean": 1 - config.alpha}, {})


OBJECTIVES.register("ard")(ARDConfig())
