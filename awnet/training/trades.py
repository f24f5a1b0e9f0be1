"""TRADES (Zhang et al., 2019, https://arxiv.org/abs/1901.08573): accuracy on clean images, and predictions that stay.

The published code runs the clean images twice in training mode, which moves the running statistics twice; here once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from torch import Tensor, nn

from awnet.attacks.pgd import PGD
from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import KL, CrossEntropy
from awnet.threat_model import ThreatModel
from awnet.training.objective import OBJECTIVES, Losses, Moment, ObjectiveConfig, PairObjective
from awnet.types import Images, Labels, Logits


@setting
@dataclass(frozen=True, kw_only=True)
class TRADESConfig(ObjectiveConfig):
    """mean CE(f(x), y) + beta * mean KL(f(x) || f(x_adv)), gradients through both arguments.

    Args:
        beta: 6 for CIFAR-10, as published.
        steps: of the inner PGD on the KL, from x + 0.001 N(0, 1).
        step_size: as a fraction of eps; published: 0.007 at 0.031.
    """

    beta: float = 6.0
    steps: int = 10
    step_size: float = 0.007 / 0.031

    def __post_init__(self) -> None:
        if not 0 <= self.beta < inf:
            raise Mistake(f"beta, the weight of stability in TRADES, is 0 or more, got {self.beta:g}")

    def build(self, threat: ThreatModel, teachers: dict[str, nn.Module]) -> TRADES:
        return TRADES(self, threat)


class TRADES(PairObjective):
    """The TRADES loss."""

    uses_clean = True

    def __init__(self, config: TRADESConfig, threat: ThreatModel) -> None:
        super().__init__()
        self.beta = config.beta
        self.trains_adversarial = config.beta > 0
        self.attack = PGD(threat=threat, loss=KL(), steps=config.steps, step_size=config.step_size, initial="gaussian")

    def inner_target(self, model: Callable[[Images], Logits], x: Images, y: Labels) -> Tensor:
        return model(x).detach()

    def compare(
        self, clean: Logits | None, adversarial: Logits, x: Images, x_adv: Images, y: Labels, moment: Moment
    ) -> Losses:
        assert clean is not None
        terms = {"clean": CrossEntropy()(clean, y), "stability": KL()(adversarial, clean)}
        return Losses(terms, {"clean": 1.0, "stability": self.beta}, {})


OBJECTIVES.register("trades")(TRADESConfig())
