"""Adversarial weight perturbation (Wu, Xia and Wang, 2020, https://arxiv.org/abs/2004.05884), over another objective.

The loss is descended at weights w + v, where v raises it most, layer by layer no longer than gamma |w|:

    v_l = gamma |w_l| g_l / |g_l|,  g = gradient of the loss on the batch at w

The published code takes one SGD step of a copy of the network uphill and scales the difference of the weights to this length;
its learning rate cancels. As there only parameters of more than one dimension that are called a weight are perturbed (a Swin's
table of position biases is not), over TRADES only from its tenth epoch on, and the copy's running statistics are thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

import torch
from torch import Tensor, nn
from torch.func import functional_call

from awnet.config import setting
from awnet.errors import Mistake
from awnet.threat_model import ThreatModel
from awnet.training.objective import (
    OBJECTIVES,
    Losses,
    Moment,
    Objective,
    ObjectiveConfig,
    PairObjective,
    statistics_kept,
)
from awnet.training.pgd_at import PGDATConfig
from awnet.training.trades import TRADESConfig
from awnet.types import Images, Labels


@setting
@dataclass(frozen=True, kw_only=True)
class AWPConfig(ObjectiveConfig):
    """AWP.

    Args:
        over: the objective, which keeps nothing between steps.
        gamma: the length of the perturbation, relative to the weights; published: 0.01 over PGD-AT, 0.005 over TRADES.
        perturbed_from: the share of the training after which weights are perturbed; published: 0 over PGD-AT, 9 epochs of
            200 over TRADES.
    """

    over: ObjectiveConfig = field(default_factory=PGDATConfig)
    gamma: float = 0.01
    perturbed_from: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < inf:
            raise Mistake(f"gamma, the length of a weight perturbation, is 0 or more, got {self.gamma:g}")
        if not 0 <= self.perturbed_from <= 1:
            raise Mistake(f"perturbed_from is a share of the training, between 0 and 1, got {self.perturbed_from:g}")

    @property
    def teachers(self) -> dict[str, str]:
        return self.over.teachers

    def build(self, threat: ThreatModel, teachers: dict[str, nn.Module]) -> AWP:
        over = self.over.build(threat, teachers)
        if not isinstance(over, PairObjective) or over.state_dict():
            raise Mistake(
                "AWP goes over an objective that compares clean with adversarial images and keeps nothing between steps, "
                f"such as pgd-at, trades or mart; got {type(self.over).__name__}"
            )
        return AWP(self, over)


class AWP(Objective):
    """Another objective's loss at perturbed weights."""

    def __init__(self, config: AWPConfig, over: PairObjective) -> None:
        super().__init__()
        self.config, self.over = config, over

    def adversarial(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Images:
        return self.over.adversarial(model, x, y, ids, moment)

    def forward(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Losses:
        x_adv = self.adversarial(model, x, y, ids, moment)

        def losses(network: nn.Module) -> Losses:
            adversarial = network(x_adv)
            clean = network(x) if self.over.uses_clean else None
            return self.over.compare(clean, adversarial, x, x_adv, y, moment)

        # in eval mode no weights are trained: batch statistics are measured, which must fit w (`awnet.training.ema`)
        if not self.training or moment.done < self.config.perturbed_from:
            return losses(model)
        weights = {
            name: p for name, p in model.named_parameters() if p.ndim > 1 and "weight" in name and p.requires_grad
        }
        with statistics_kept(model), torch.enable_grad():
            gradients = torch.autograd.grad(losses(model).total, list(weights.values()))
        raised = {
            name: p + (self.config.gamma * p.norm() / g.norm().clamp(min=1e-20) * g).detach()
            for (name, p), g in zip(weights.items(), gradients, strict=True)
        }
        return losses(_At(model, raised))


class _At(nn.Module):
    """A network at other weights, through which gradients reach its own."""

    def __init__(self, model: nn.Module, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self._model, self._weights = (model,), weights

    def forward(self, x: Images) -> Tensor:
        return functional_call(self._model[0], self._weights, (x,))


OBJECTIVES.register("awp")(AWPConfig())
# "epoch >= 10" of 200, which are counted from 1: nine go before
OBJECTIVES.register("trades-awp")(AWPConfig(over=TRADESConfig(step_size=1 / 4), gamma=0.005, perturbed_from=9 / 200))
