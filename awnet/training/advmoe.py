"""The bi-level training of ADVMOE (Zhang et al., ICCV 2023, https://arxiv.org/abs/2308.10110), on an `AdvMoEResNet`.

    experts:  CE(f(x), y) + beta KL(f(x) || f(x_adv))
    router:   alpha CE(r(x), y mod n) + beta KL(r(x) || r(x_adv))
    x_adv:    ascends KL(f(x) || f(x_adv)) + KL(r(x) || r(x_adv))

The two levels share a step. The experts' loss takes the route as given, the router's knows nothing of the experts, so on the
same x_adv one step on their sum is a step on each in turn. The published code attacks the network once more in between; here
both levels see the same images, for half the cost. It also compares the router's scores in the attack with those of the
clean images in training mode; here with those in eval mode, as everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor, nn

from awnet.attacks.frozen import frozen_for_attack
from awnet.attacks.pgd import PGD
from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import KL, CrossEntropy
from awnet.models.advmoe import AdvMoEResNet
from awnet.threat_model import ThreatModel
from awnet.training.objective import OBJECTIVES, Losses, Moment, Objective, ObjectiveConfig, maximise
from awnet.types import Images, Labels, Logits, PerExample


@setting
@dataclass(frozen=True, kw_only=True)
class AdvMoEConfig(ObjectiveConfig):
    """ADVMOE's training.

    Args:
        beta: of the stability of both levels, as in TRADES.
        alpha: of the expert that each class is meant for, 6 in the last published code; 1 in the first.
        steps: of the inner PGD, from x + 0.001 N(0, 1).
        step_size: as a fraction of eps (5/255 at eps 8/255).
    """

    beta: float = 6.0
    alpha: float = 6.0
    steps: int = 2
    step_size: float = 5 / 8

    def __post_init__(self) -> None:
        if not (0 <= self.beta < inf and 0 <= self.alpha < inf):
            raise Mistake(f"ADVMOE needs beta and alpha of 0 or more, got {self.beta:g} and {self.alpha:g}")

    def build(self, threat: ThreatModel, teachers: dict[str, nn.Module]) -> AdvMoE:
        return AdvMoE(self, threat)


@setting
@dataclass(frozen=True, kw_only=True)
class KLOfBoth:
    """The sum of two KL, of the logits and of the router's scores, which lie side by side: (b, classes + experts)."""

    experts: int

    def __call__(self, logits: Logits, target: Logits) -> PerExample:
        of_classes, of_experts = slice(-self.experts), slice(-self.experts, None)
        return KL()(logits[:, of_classes], target[:, of_classes]) + KL()(logits[:, of_experts], target[:, of_experts])


class AdvMoE(Objective):
    """The losses of both levels."""

    def __init__(self, config: AdvMoEConfig, threat: ThreatModel) -> None:
        super().__init__()
        self.config = config
        self.attack = PGD(threat=threat, steps=config.steps, step_size=config.step_size, initial="gaussian")

    def adversarial(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Images:
        network = _of_experts(model)

        def side_by_side(x: Images) -> Logits:
            return torch.cat(network.run(x), dim=1)

        attack = replace(self.attack, loss=KLOfBoth(experts=network.experts))
        with frozen_for_attack(network):
            return maximise(attack, side_by_side, x, side_by_side(x).detach(), ids, moment)

    def forward(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Losses:
        network = _of_experts(model)
        x_adv = self.adversarial(network, x, y, ids, moment)
        adversarial = network.run(x_adv, straight_through=False)
        clean = network.run(x, straight_through=False)
        terms = {
            "clean": CrossEntropy()(clean.logits, y),
            "stability": KL()(adversarial.logits, clean.logits),
            "route": CrossEntropy()(clean.scores, y % network.experts),
            "route_stability": KL()(adversarial.scores, clean.scores),
        }
        weights: dict[str, Tensor | float] = {"clean": 1.0, "route": self.config.alpha}
        weights["stability"] = weights["route_stability"] = self.config.beta
        stays = clean.scores.argmax(1) == adversarial.scores.argmax(1)
        return Losses(terms, weights, {"routes_kept": stays.double().mean()})


def _of_experts(model: nn.Module) -> AdvMoEResNet:
    if not isinstance(model, AdvMoEResNet):
        raise Mistake(f"ADVMOE's objective trains a network of experts (advmoe-resnet18), got {type(model).__name__}")
    return model


OBJECTIVES.register("advmoe")(AdvMoEConfig())
