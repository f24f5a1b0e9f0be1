"""Training of adaptive smoothing's mixing network (Bai et al., 2023, https://arxiv.org/abs/2301.12554) over two finished ones.

    a CE(f(x), y) + b BCE(gamma(x), attacked) + c CE(f(x), y) BCE(gamma(x), attacked),  on x and x_adv alike

x_adv attacks the whole of f, the mixing network included. The paper attacks by APGD with random settings, aims at nine targets
beside, and adds clean images as many; here it is PGD and as many of either. Weights are those of its published models:
a = 0, b = 1.5, c = 0.2, so that gamma is learnt and its errors weigh more where they do harm.

As for Separate-Net's detector (`awnet.training.type_detector`) both networks are put into the model before the first step and
never move, and both sorts of images pass the mixing network side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from awnet.attacks.frozen import frozen_for_attack
from awnet.attacks.pgd import PGD
from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import CrossEntropy
from awnet.models.adaptive_smoothing import AdaptiveSmoothing
from awnet.threat_model import ThreatModel
from awnet.training.finished_parts import BesideFinished
from awnet.training.objective import OBJECTIVES, Losses, Moment, ObjectiveConfig, maximise
from awnet.types import Images, Labels


@setting
@dataclass(frozen=True, kw_only=True)
class MixingConfig(ObjectiveConfig):
    """The loss of adaptive smoothing's mixing network.

    Args:
        clean_teacher, robust_teacher: a checkpoint, or the name of a recipe that trains it first: the two networks.
        accuracy: a, the weight of the cross-entropy of the mixture.
        type: b, of telling attacked images.
        product: c, of both multiplied.
        steps: of the PGD on the whole, from a uniform start.
        step_size: as a fraction of eps (2/255 at eps 8/255).
    """

    clean_teacher: str = ""
    robust_teacher: str = ""
    accuracy: float = 0.0
    type: float = 1.5
    product: float = 0.2
    steps: int = 10
    step_size: float = 1 / 4

    def __post_init__(self) -> None:
        weights = (self.accuracy, self.type, self.product)
        if not (all(0 <= weight < inf for weight in weights) and any(weights)):
            said = ", ".join(f"{weight:g}" for weight in weights)
            raise Mistake(f"the weights accuracy, type and product are 0 or more, and not all of them 0, got {said}")

    @property
    def teachers(self) -> dict[str, str]:
        return {"clean": self.clean_teacher, "robust": self.robust_teacher}

    def build(self, threat: ThreatModel, teachers: dict[str, nn.Module]) -> Mixing:
        return Mixing(self, threat, clean=teachers["clean"], robust=teachers["robust"])


class Mixing(BesideFinished):
    """The mixing network's loss; of the networks behind it, it needs the weights once."""

    def __init__(self, config: MixingConfig, threat: ThreatModel, *, clean: nn.Module, robust: nn.Module) -> None:
        super().__init__(clean=clean, robust=robust)
        self.weights = {"accuracy": config.accuracy, "type": config.type, "product": config.product}
        self.attack = PGD(threat=threat, steps=config.steps, step_size=config.step_size, initial="uniform")

    def whole(self, model: nn.Module) -> AdaptiveSmoothing:
        if not isinstance(model, AdaptiveSmoothing):
            raise Mistake(
                f"the mixing objective trains the mixing network of adaptive smoothing, got {type(model).__name__}"
            )
        return model

    def adversarial(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Images:
        with frozen_for_attack(model):
            return maximise(self.attack, model, x, y, ids, moment)

    def forward(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Losses:
        whole = self.whole(model)
        self.compare(whole, x)
        both = torch.cat([x, self.adversarial(whole, x, y, ids, moment)])
        attacked = (torch.arange(2 * len(x), device=x.device) >= len(x)).to(x.dtype)
        seen = whole.normalize(both)
        clean, robust = (F.log_softmax(teacher(both), dim=1) for teacher in (self.clean, self.robust))  # in eval mode
        gamma = whole.mixer(seen, clean, robust)
        accuracy = CrossEntropy()(whole.mix(clean, robust, gamma), y.repeat(2))
        types = F.binary_cross_entropy_with_logits(gamma, attacked.to(gamma.dtype), reduction="none")
        terms = {"accuracy": accuracy, "type": types, "product": accuracy * types}
        told = ((gamma > 0) == (attacked > 0)).double().mean()
        halves = {name: (term[: len(x)] + term[len(x) :]) / 2 for name, term in terms.items()}
        return Losses(halves, {**self.weights}, {"types_told": told})


OBJECTIVES.register("mixing")(MixingConfig())
