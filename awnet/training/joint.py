"""Joint training of AW-Net and its router (section 4.4, Eq. 22), over PGD-AT, TRADES or MTARD:

    L_total = type_weight * L_type(P_type, y') + the losses of the objective underneath

One pass sees [clean; adversarial] side by side. The dynamic network's batch norms are those of each half (Eq. 13); the
router has ordinary batch norms and must see both halves in one batch: apart, their batch statistics would tell it the type
of the whole batch, a hint that is gone at test time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.awnet import AWNet
from awnet.models.mix_batch_norm import Branch
from awnet.models.router import ADVERSARIAL, CLEAN
from awnet.threat_model import ThreatModel
from awnet.training.mtard import MTARDConfig
from awnet.training.objective import OBJECTIVES, Losses, Moment, Objective, ObjectiveConfig, PairObjective
from awnet.training.pgd_at import PGDATConfig
from awnet.training.trades import TRADESConfig
from awnet.types import Images, Labels, Logits


@setting
@dataclass(frozen=True, kw_only=True)
class JointConfig(ObjectiveConfig):
    """AW-Net's joint loss.

    Args:
        over: the objective underneath.
        inner_branch: what the inner attack sees. "adversarial": BN_adv, as gated batch norm and AdvProp do, which makes
            that branch robust by itself. "mixture": the test-time mixture, as MTARD's model.eval() would silently give.
            The signals follow x_adv and their gradients flow in both.
        type_weight: of L_type, the two-way cross-entropy over both halves.
    """

    over: ObjectiveConfig = field(default_factory=MTARDConfig)
    inner_branch: Literal["adversarial", "mixture"] = "adversarial"
    type_weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.type_weight < inf:
            raise Mistake(f"type_weight, the weight of the router's own loss, is 0 or more, got {self.type_weight:g}")

    @property
    def teachers(self) -> dict[str, str]:
        return self.over.teachers

    def build(self, threat: ThreatModel, teachers: dict[str, nn.Module]) -> Joint:
        return Joint(self, threat, teachers)


class Joint(Objective):
    """L_type beside another objective, on an AW-Net."""

    def __init__(self, config: JointConfig, threat: ThreatModel, teachers: dict[str, nn.Module]) -> None:
        super().__init__()
        over = config.over.build(threat, teachers)
        if not isinstance(over, PairObjective):
            raise Mistake("AW-Net's joint training needs an objective with adversarial images: pgd-at, trades or mtard")
        if not over.trains_clean:
            raise Mistake(
                f"{type(config.over).__name__} gives clean images no weight, so that AW-Net's BN_nat, through which they go, "
                "would never be trained; give them some (an alpha below 1, a beta above 0)"
            )
        if not over.trains_adversarial:
            raise Mistake(
                f"{type(config.over).__name__} gives adversarial images no weight, so that AW-Net's BN_adv, through which they "
                "go, would never be trained; give them some (an alpha or a beta above 0)"
            )
        self.over: PairObjective = over
        self.inner_branch = Branch(config.inner_branch)
        self.type_weight = config.type_weight

    def adversarial(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Images:
        def through(x: Images) -> Logits:
            return model(x, self.inner_branch)

        def clean(x: Images) -> Logits:  # where the attack sees BN_adv, the clean logits come from BN_nat
            return model(x, Branch.CLEAN if self.inner_branch is Branch.ADVERSARIAL else self.inner_branch)

        return self.over.find(model, through, clean, x, y, ids, moment)

    def forward(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Losses:
        if not isinstance(model, AWNet):
            raise Mistake(f"the joint objective trains an AW-Net, got {type(model).__name__}; use its `over` alone")
        x_adv = self.adversarial(model, x, y, ids, moment)
        output = model.run(torch.cat([x, x_adv]), Branch.HALVES)
        clean, adversarial = output.logits.chunk(2)
        losses = self.over.compare(clean, adversarial, x, x_adv, y, moment)
        if model.router.type_head is None:  # an ablation, in which nobody tells the types
            return losses
        types = torch.full((2 * len(x),), CLEAN, device=x.device)
        types[len(x) :] = ADVERSARIAL
        type_clean, type_adv = F.cross_entropy(output.routing.type_logits, types, reduction="none").chunk(2)
        p_clean, p_adv = output.routing.p_clean.detach().chunk(2)
        return Losses(
            {**losses.terms, "type": (type_clean + type_adv) / 2},
            {**losses.weights, "type": self.type_weight},
            {**losses.watched, "p_type_clean": p_clean.mean(), "p_type_adversarial": p_adv.mean()},
        )


OBJECTIVES.register("joint-mtard")(JointConfig())
OBJECTIVES.register("joint-trades")(JointConfig(over=TRADESConfig()))
OBJECTIVES.register("joint-pgd-at")(JointConfig(over=PGDATConfig()))
