"""RSLAD, robust soft label adversarial distillation (Zi et al., ICCV 2021, https://arxiv.org/abs/2108.07969).

One robust teacher's answers on clean images are the labels everywhere, in the attack and in the loss:

    x_adv = argmax KL(T(x) || S(x')),   (1 - alpha) KL(T(x) || S(x)) + alpha KL(T(x) || S(x_adv))

The paper prints KL(S, T); its code has KL(T || S), as here. The code averages the KL over classes too and multiplies by ten for
CIFAR-100, so both scripts train with a tenth of the usual mean KL: `kd_scale` (see `awnet.training.mtard`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from torch import Tensor, nn

from awnet.attacks.pgd import PGD
from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import KL
from awnet.threat_model import ThreatModel
from awnet.training.objective import OBJECTIVES, Losses, Moment, ObjectiveConfig, PairObjective
from awnet.training.teacher import Teacher
from awnet.types import Images, Labels, Logits


@setting
@dataclass(frozen=True, kw_only=True)
class RSLADConfig(ObjectiveConfig):
    """(1 - alpha) mean KL(T(x) || S(x)) + alpha mean KL(T(x) || S(x_adv)).

    Args:
        robust_teacher: a checkpoint folder, or the name of a recipe that trains one first.
        alpha: of the adversarial images; 5/6 as published.
        kd_scale: what both losses are multiplied by.
        steps: of the inner PGD on the KL to the teacher, from x + 0.001 N(0, 1).
        step_size: as a fraction of eps (2/255 at eps 8/255).
    """

    robust_teacher: str = ""
    alpha: float = 5 / 6
    kd_scale: float = 0.1
    steps: int = 10
    step_size: float = 1 / 4

    def __post_init__(self) -> None:
        if not (0 <= self.alpha <= 1 and 0 < self.kd_scale < inf):
            raise Mistake(
                "RSLAD needs an alpha between 0 and 1 and a positive kd_scale, got "
                f"{self.alpha:g} and {self.kd_scale:g}"
            )

    @property
    def teachers(self) -> dict[str, str]:
        return {"robust": self.robust_teacher}

    def build(self, threat: ThreatModel, teachers: dict[str, nn.Module]) -> RSLAD:
        return RSLAD(self, threat, robust_teacher=teachers["robust"])


class RSLAD(PairObjective):
    """The RSLAD loss."""

    uses_clean = True

    def __init__(self, config: RSLADConfig, threat: ThreatModel, *, robust_teacher: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.trains_clean, self.trains_adversarial = config.alpha < 1, config.alpha > 0
        self.attack = PGD(threat=threat, loss=KL(), steps=config.steps, step_size=config.step_size, initial="gaussian")
        self.teacher = Teacher(robust_teacher)

    def inner_target(self, model: Callable[[Images], Logits], x: Images, y: Labels) -> Tensor:
        return self.teacher(x)

    def compare(
        self, clean: Logits | None, adversarial: Logits, x: Images, x_adv: Images, y: Labels, moment: Moment
    ) -> Losses:
        assert clean is not None
        target, scale = self.teacher(x), self.config.kd_scale
        terms = {"adversarial": scale * KL()(adversarial, target), "clean": scale * KL()(clean, target)}
        return Losses(terms, {"adversarial": self.config.alpha, "clean": 1 - self.config.alpha}, {})


OBJECTIVES.register("rslad")(RSLADConfig())
