"""HAT (Rade and Moosavi-Dezfooli, 2022, https://openreview.net/forum?id=Azh9QBQ4tR7): helper examples reduce excessive margins.

    CE(f(x), y) + beta KL(f(x) || f(x_adv)) + gamma CE(f(x + h (x_adv - x)), y_helper)

A helper example lies h times as far along the attack, and its label is what a network trained on clean images says of x_adv.
As in the published code it is not clipped to [0, 1], the attack is on the KL to the prediction before it, and the three sorts
of images pass one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from torch import Tensor, nn

from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import CrossEntropy
from awnet.threat_model import ThreatModel
from awnet.training.objective import OBJECTIVES, Losses, Moment, Objective, ObjectiveConfig
from awnet.training.teacher import Teacher
from awnet.training.trades import TRADES, TRADESConfig
from awnet.types import Images, Labels


@setting
@dataclass(frozen=True, kw_only=True)
class HATConfig(ObjectiveConfig):
    """HAT.

    Args:
        helper: a checkpoint of a network trained on clean images, or the name of a recipe that trains it first.
        beta: of stability; 2.5 for CIFAR-10.
        gamma: of the helper examples; 0.5.
        reach: h, how far a helper example lies along the attack; 2.
        steps: of the inner PGD, from x + 0.001 N(0, 1).
        step_size: as a fraction of eps (2/255 at eps 8/255).
    """

    helper: str = ""
    beta: float = 2.5
    gamma: float = 0.5
    reach: float = 2.0
    steps: int = 10
    step_size: float = 1 / 4

    def __post_init__(self) -> None:
        if not (0 <= self.beta < inf and 0 <= self.gamma < inf and 0 < self.reach < inf):
            raise Mistake(
                "HAT needs beta and gamma of 0 or more and a positive reach, all finite, got "
                f"{self.beta:g}, {self.gamma:g} and {self.reach:g}"
            )

    @property
    def teachers(self) -> dict[str, str]:
        return {"helper": self.helper}

    def build(self, threat: ThreatModel, teachers: dict[str, nn.Module]) -> HAT:
        return HAT(self, threat, helper=teachers["helper"])


class HAT(Objective):
    """The HAT loss."""

    def __init__(self, config: HATConfig, threat: ThreatModel, *, helper: nn.Module) -> None:
        super().__init__()
        self.config = config
        settings = TRADESConfig(beta=config.beta, steps=config.steps, step_size=config.step_size)
        self.pair = TRADES(settings, threat)  # HAT without its helper examples
        self.helper = Teacher(helper)

    def adversarial(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Images:
        return self.pair.adversarial(model, x, y, ids, moment)

    def forward(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Losses:
        x_adv = self.adversarial(model, x, y, ids, moment)
        y_helper = self.helper(x_adv).argmax(1)
        clean, adversarial = model(x), model(x_adv)
        helped = model(x + self.config.reach * (x_adv - x))
        losses = self.pair.compare(clean, adversarial, x, x_adv, y, moment)
        terms = {**losses.terms, "helper": CrossEntropy()(helped, y_helper)}
        return Losses(terms, {**losses.weights, "helper": self.config.gamma}, {})


OBJECTIVES.register("hat")(HATConfig())
