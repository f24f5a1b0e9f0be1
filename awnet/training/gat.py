"""GAT, guided adversarial training with one gradient a batch (Sriramanan et al., NeurIPS 2020, https://arxiv.org/abs/2011.14969).

Beside the cross-entropy, attack and loss look at how far the probabilities move, which leads the one step uphill even where the
cross-entropy is bent (`awnet.training.fast_at`):

    x' = x + eps/2 b, b = +-1 a pixel;   x_adv = project(x' + eps sign grad (CE(f(x'), y) + lambda |p(x') - p(x)|^2))
    CE(f(x), y) + lambda |p(x_adv) - p(x)|^2,   p = softmax(f)

As in the published code lambda is 0 in every other step's attack, so that the images differ, and grows towards the end. Its
attack compares with probabilities of training mode, which move the running statistics once more; here all is in eval mode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor, nn

from awnet.attacks.attack import Gradient, evaluate
from awnet.attacks.frozen import frozen_for_attack
from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import CrossEntropy
from awnet.noise import Noise
from awnet.threat_model import ThreatModel
from awnet.training.objective import OBJECTIVES, Losses, Moment, ObjectiveConfig, PairObjective
from awnet.types import Images, Labels, Logits, PerExample


@setting
@dataclass(frozen=True, kw_only=True)
class GATConfig(ObjectiveConfig):
    """mean CE(f(x), y) + weight * mean |softmax(f(x_adv)) - softmax(f(x))|^2.

    Args:
        weight: lambda; 10 for CIFAR-10, as published.
        growth: what lambda is multiplied by at the end; 4.
        grown_from: the share of the training after which it is; 86 epochs of 100, as published.
        start: how far each pixel starts from the image, as a fraction of eps.
    """

    weight: float = 10.0
    growth: float = 4.0
    grown_from: float = 0.86
    start: float = 0.5

    def __post_init__(self) -> None:
        if not (
            0 <= self.weight < inf and 0 < self.growth < inf and 0 <= self.grown_from <= 1 and 0 <= self.start <= 1
        ):
            raise Mistake(
                "GAT needs a weight of 0 or more, a positive growth, and grown_from and start between 0 and 1, got "
                f"{self.weight:g}, {self.growth:g}, {self.grown_from:g} and {self.start:g}"
            )

    def build(self, threat: ThreatModel, teachers: dict[str, nn.Module]) -> GAT:
        return GAT(self, threat)


class GAT(PairObjective):
    """The GAT loss and its attack of one step."""

    uses_clean = True

    def __init__(self, config: GATConfig, threat: ThreatModel) -> None:
        super().__init__()
        self.config, self.threat = config, threat
        self.trains_adversarial = config.weight > 0

    def _weight(self, moment: Moment) -> float:
        return self.config.weight * (self.config.growth if moment.done >= self.config.grown_from else 1.0)

    def find(
        self,
        model: nn.Module,
        through: Callable[[Images], Logits],
        clean: Callable[[Images], Logits],
        x: Images,
        y: Labels,
        ids: Tensor,
        moment: Moment,
    ) -> Images:
        ball = replace(self.threat, eps=moment.eps_factor * self.threat.eps)
        coin = Noise(moment.seed, ids).uniform(0, tuple(x.shape[1:])) < 0.5
        start = ball.project(x + self.config.start * ball.eps * torch.where(coin, -1.0, 1.0).to(x), x)
        weight = self._weight(moment) if moment.step % 2 else 0.0
        with frozen_for_attack(model), torch.no_grad():
            p = clean(x).softmax(1)
            answer = evaluate(
                through,
                Gradient(start, lambda logits: CrossEntropy()(logits, y) + weight * apart(logits.softmax(1), p)),
            )
        assert answer.gradient is not None
        return ball.project(start + ball.eps * ball.ascend(answer.gradient), x)

    def compare(
        self, clean: Logits | None, adversarial: Logits, x: Images, x_adv: Images, y: Labels, moment: Moment
    ) -> Losses:
        assert clean is not None
        terms = {"clean": CrossEntropy()(clean, y), "stability": apart(adversarial.softmax(1), clean.softmax(1))}
        return Losses(terms, {"clean": 1.0, "stability": self._weight(moment)}, {})


def apart(p: Tensor, q: Tensor) -> PerExample:
    """|p - q|^2, the squared distance of two distributions."""
    return ((p - q) ** 2).sum(1)


OBJECTIVES.register("gat")(GATConfig())
