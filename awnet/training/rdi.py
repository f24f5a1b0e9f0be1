"""Adversarial training of a network with many exits (RDI: Hu et al., 2020, "Triple wins", https://arxiv.org/abs/2002.10025).

    1/2 sum_k CE(f_k(x), y) + 1/2 sum_k CE(f_k(x_adv), y)    over all exits k

The exits are compared as they are, whoever would have left before: the thresholds play no part in training. They are set on
the images that choose the best checkpoint, each time before these judge it, so that a trained network leaves at its exits.

The published code attacks in training mode, where an image's attack depends on its batch; here in eval mode, as everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from awnet.attacks.attack import select
from awnet.attacks.frozen import frozen_for_attack
from awnet.attacks.pgd import PGD
from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import CrossEntropy
from awnet.models.rdi import EXITS, RDIResNet
from awnet.noise import fold
from awnet.threat_model import ThreatModel
from awnet.training.objective import OBJECTIVES, Losses, Moment, Objective, ObjectiveConfig, maximise
from awnet.types import Images, Labels, Logits, PerExample


@setting
@dataclass(frozen=True, kw_only=True)
class RDIConfig(ObjectiveConfig):
    """RDI's training.

    Args:
        inner: "max-average", as published: an attack on each exit alone, which runs no further than that exit, and of each
            image the one whose loss is largest, summed over all exits. "average": one attack on that sum, at a quarter of
            the cost.
        steps: of each inner PGD, from a uniform start.
        step_size: as a fraction of eps; published: 0.00784 at 0.03137.
    """

    inner: Literal["max-average", "average"] = "max-average"
    steps: int = 10
    step_size: float = 1 / 4

    def build(self, threat: ThreatModel, teachers: dict[str, nn.Module]) -> RDI:
        return RDI(self, threat)


@setting
@dataclass(frozen=True)
class AllExits:
    """The sum of the cross-entropies of all exits, whose logits lie side by side: shape (b, exits * classes)."""

    def __call__(self, logits: Logits, y: Labels) -> PerExample:
        return over_exits(logits.unflatten(1, (EXITS, -1)).transpose(0, 1), y)


def over_exits(exits: Tensor, y: Labels) -> PerExample:
    """sum_k CE(f_k, y), for logits of shape (exits, b, classes)."""
    return torch.stack([CrossEntropy()(logits, y) for logits in exits]).sum(0)


class RDI(Objective):
    """Both sums over the exits of an `RDIResNet`."""

    def __init__(self, config: RDIConfig, threat: ThreatModel) -> None:
        super().__init__()
        self.inner = config.inner
        self.attack = PGD(threat=threat, steps=config.steps, step_size=config.step_size, initial="uniform")

    def adversarial(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Images:
        network = _with_exits(model)
        with frozen_for_attack(network):
            return (self._average if self.inner == "average" else self._max_average)(network, x, y, ids, moment)

    def _average(self, model: RDIResNet, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Images:
        def side_by_side(x: Images) -> Logits:
            return model.exits(x).transpose(0, 1).flatten(1)

        return maximise(replace(self.attack, loss=AllExits()), side_by_side, x, y, ids, moment)

    def _max_average(self, model: RDIResNet, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Images:
        worst, largest = x, torch.full_like(x[:, 0, 0, 0], -torch.inf)
        for k in range(EXITS):
            own_start = moment._replace(seed=fold(moment.seed, k))
            x_adv = maximise(self.attack, partial(model.exit, number=k), x, y, ids, own_start)
            with torch.no_grad():
                loss = over_exits(model.exits(x_adv), y).to(largest)
            worst, largest = select(loss > largest, x_adv, worst), largest.maximum(loss)
        return worst

    def forward(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Losses:
        network = _with_exits(model)
        x_adv = self.adversarial(network, x, y, ids, moment)
        adversarial, clean = network.exits(x_adv), network.exits(x)
        terms = {"clean": over_exits(clean, y), "adversarial": over_exits(adversarial, y)}
        last = (adversarial[-1].argmax(1) == y).double().mean()
        return Losses(terms, {"clean": 0.5, "adversarial": 0.5}, {"last_exit_robust": last})


def _with_exits(model: nn.Module) -> RDIResNet:
    if not isinstance(model, RDIResNet):
        raise Mistake(f"RDI's objective trains a network with exits (rdi-resnet38), got {type(model).__name__}")
    return model


OBJECTIVES.register("rdi")(RDIConfig())
