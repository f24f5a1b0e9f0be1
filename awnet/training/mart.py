"""MART (Wang et al., 2020, https://openreview.net/forum?id=rklOg6EFwS): misclassified images weigh more.

    BCE(x_adv) = -log p_y(x_adv) - log(1 - max_{k != y} p_k(x_adv))
    mean BCE(x_adv) + beta * mean KL(p(x) || p(x_adv)) (1 - p_y(x))

The published code adds 1.0001 and 1e-12 inside the logarithm of 1 - max p, which keep it finite; here it is computed from the
logits, finite by itself. Gradients flow through every p, as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import nn

from awnet.attacks.pgd import PGD
from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import KL, CrossEntropy
from awnet.threat_model import ThreatModel
from awnet.training.objective import OBJECTIVES, Losses, Moment, ObjectiveConfig, PairObjective
from awnet.types import Images, Labels, Logits, PerExample


@setting
@dataclass(frozen=True, kw_only=True)
class MARTConfig(ObjectiveConfig):
    """MART.

    Args:
        beta: 5 for ResNet-18, 6 for WideResNet-34-10, as published.
        steps: of the inner PGD on the cross-entropy, from x + 0.001 N(0, 1).
        step_size: as a fraction of eps; published: 0.007 at 0.031.
    """

    beta: float = 5.0
    steps: int = 10
    step_size: float = 0.007 / 0.031

    def __post_init__(self) -> None:
        if not 0 <= self.beta < inf:
            raise Mistake(f"beta, the weight of stability in MART, is 0 or more, got {self.beta:g}")

    def build(self, threat: ThreatModel, teachers: dict[str, nn.Module]) -> MART:
        return MART(self, threat)


class MART(PairObjective):
    """The MART loss."""

    uses_clean = True

    def __init__(self, config: MARTConfig, threat: ThreatModel) -> None:
        super().__init__()
        self.beta = config.beta
        self.trains_clean = config.beta > 0
        self.attack = PGD(threat=threat, steps=config.steps, step_size=config.step_size, initial="gaussian")

    def compare(
        self, clean: Logits | None, adversarial: Logits, x: Images, x_adv: Images, y: Labels, moment: Moment
    ) -> Losses:
        assert clean is not None
        boosted = CrossEntropy()(adversarial, y) + less_the_runner_up(adversarial, y)
        unsure = 1 - clean.softmax(1).gather(1, y[:, None])[:, 0]
        terms = {"adversarial": boosted, "stability": KL()(adversarial, clean) * unsure}
        return Losses(terms, {"adversarial": 1.0, "stability": self.beta}, {})


def less_the_runner_up(logits: Logits, y: Labels) -> PerExample:
    """-log(1 - max_{k != y} p_k), as the logarithm of the sum of all other probabilities."""
    log_p = logits.log_softmax(1)
    runner_up = log_p.scatter(1, y[:, None], -inf).argmax(1)
    others = log_p.scatter(1, runner_up[:, None], -inf)
    return -torch.logsumexp(others, dim=1)


OBJECTIVES.register("mart")(MARTConfig())
