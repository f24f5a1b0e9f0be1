"""PGD adversarial training (Madry et al., 2018, https://arxiv.org/abs/1706.06083): cross-entropy on PGD's images."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from torch import nn

from awnet.attacks.pgd import PGD
from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import CrossEntropy
from awnet.threat_model import ThreatModel
from awnet.training.objective import OBJECTIVES, Losses, Moment, ObjectiveConfig, PairObjective
from awnet.types import Images, Labels, Logits


@setting
@dataclass(frozen=True, kw_only=True)
class PGDATConfig(ObjectiveConfig):
    """mean CE(f(x_adv), y) + clean_weight * mean CE(f(x), y).

    Args:
        steps: of the inner PGD, from a uniform start.
        step_size: as a fraction of eps (2/255 at eps 8/255).
        clean_weight: 0 as published. Over AW-Net it must be positive, or BN_nat, which the test mixture uses, would never
            be trained; there clean images always count, with weight 1 where this is 0.
    """

    steps: int = 10
    step_size: float = 1 / 4
    clean_weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.clean_weight < inf:
            raise Mistake(f"clean_weight, the weight of the clean loss, is 0 or more, got {self.clean_weight:g}")

    def build(self, threat: ThreatModel, teachers: dict[str, nn.Module]) -> PGDAT:
        return PGDAT(self, threat)


class PGDAT(PairObjective):
    """Madry's loss, and the clean one where the clean logits are there."""

    def __init__(self, config: PGDATConfig, threat: ThreatModel) -> None:
        super().__init__()
        self.attack = PGD(threat=threat, steps=config.steps, step_size=config.step_size, initial="uniform")
        self.uses_clean = config.clean_weight > 0
        self.clean_weight = config.clean_weight or 1.0

    def compare(
        self, clean: Logits | None, adversarial: Logits, x: Images, x_adv: Images, y: Labels, moment: Moment
    ) -> Losses:
        terms, weights = {"adversarial": CrossEntropy()(adversarial, y)}, {"adversarial": 1.0}
        if clean is not None:
            terms["clean"], weights["clean"] = CrossEntropy()(clean, y), self.clean_weight
        return Losses(terms, {**weights}, {})


OBJECTIVES.register("pgd-at")(PGDATConfig())
