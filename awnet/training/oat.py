"""Once-for-all adversarial training (Wang et al., 2020, https://arxiv.org/abs/2010.11828): every balance in one training.

    (1 - lambda) CE(f(x, lambda), y) + lambda CE(f(x_adv, lambda), y),  lambda drawn anew for each image of each step

x_adv is the PGD image of the network with the same lambda. As in the published code an equal share of a batch has lambda = 0,
whose images are not attacked and meet the clean batch norms; the others draw theirs evenly from the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from awnet.attacks.frozen import frozen_for_attack
from awnet.attacks.pgd import PGD
from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import CrossEntropy
from awnet.models.oat import OAT
from awnet.noise import Noise, fold
from awnet.threat_model import ThreatModel
from awnet.training.objective import OBJECTIVES, Losses, Moment, Objective, ObjectiveConfig, maximise
from awnet.types import Images, Labels, Logits

LAMBDA = 7  # the stream of random numbers that lambdas are drawn from


@setting
@dataclass(frozen=True, kw_only=True)
class OnceForAllConfig(ObjectiveConfig):
    """OAT's loss, on a network that is conditioned on lambda.

    Args:
        steps: of the inner PGD, from a uniform start; 7 as published.
        step_size: as a fraction of eps (2/255 at eps 8/255).
    """

    steps: int = 7
    step_size: float = 1 / 4

    def build(self, threat: ThreatModel, teachers: dict[str, nn.Module]) -> OnceForAll:
        return OnceForAll(self, threat)


class OnceForAll(Objective):
    """The loss of each image under the lambda that it has drawn."""

    def __init__(self, config: OnceForAllConfig, threat: ThreatModel) -> None:
        super().__init__()
        self.attack = PGD(threat=threat, steps=config.steps, step_size=config.step_size, initial="uniform")

    def adversarial(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Images:
        """The partner of each image; an image with lambda = 0 is its own."""
        whole = _oat(model)
        return self._attacked(whole, x, y, ids, drawn(len(whole.lambdas), ids, moment), moment)

    def forward(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Losses:
        whole = _oat(model)
        which = drawn(len(whole.lambdas), ids, moment)
        x_adv = self._attacked(whole, x, y, ids, which, moment)
        rows = which > 0
        clean = CrossEntropy()(whole(x, which), y)
        adversarial = torch.zeros_like(clean)
        adversarial[rows] = CrossEntropy()(whole(x_adv[rows], which[rows]), y[rows])
        lam = torch.tensor(whole.lambdas, dtype=clean.dtype, device=x.device)[which]
        terms = {"clean": (1 - lam) * clean, "adversarial": lam * adversarial}
        return Losses(terms, {"clean": 1.0, "adversarial": 1.0}, {})

    def _attacked(self, whole: OAT, x: Images, y: Labels, ids: Tensor, which: Tensor, moment: Moment) -> Images:
        rows = which > 0
        if len(x) < 4:  # two at least have lambda = 0, and the other batch norm needs two as well
            raise Mistake(
                f"once-for-all training needs batches of 4 images or more, got {len(x)}; --training.batch-size 4"
            )

        def through(x: Images) -> Logits:
            return whole(x, which[rows])

        x_adv = x.clone()
        with frozen_for_attack(whole):
            x_adv[rows] = maximise(self.attack, through, x[rows], y[rows], ids[rows], moment)
        return x_adv


def drawn(count: int, ids: Tensor, moment: Moment) -> Tensor:
    """The place of each image's lambda among `count`, shape (b,); an equal share of the batch has place 0, two at least."""
    noise = Noise(fold(moment.seed, LAMBDA), ids)
    zeros = min(max(2, -(-len(ids) // count)), len(ids))
    rank = noise.uniform(0).argsort(stable=True).argsort()
    others = 1 + (noise.uniform(1) * (count - 1)).long()
    return torch.where(rank < zeros, 0, others)


def _oat(model: nn.Module) -> OAT:
    if not isinstance(model, OAT):
        raise Mistake(
            f"once-for-all training needs a network that is conditioned on lambda (OAT), got {type(model).__name__}"
        )
    return model


OBJECTIVES.register("oat")(OnceForAllConfig())
