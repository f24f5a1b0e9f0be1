"""Adversarial training with one gradient a batch: FGSM-RS (Wong, Rice and Kolter, 2020, https://arxiv.org/abs/2001.03994) and
N-FGSM (de Jorge et al., 2022, https://arxiv.org/abs/2202.01181).

FGSM-RS starts uniformly in the ball, steps 1.25 eps along the sign of the gradient and projects. N-FGSM starts uniformly in a
ball k = 2 times as large and steps eps; as in its published code its images are not projected onto the ball but clipped to
[0, 1], so that they lie up to 3 eps away; they train the network and judge nobody. Both may fail from one epoch to the next by
catastrophic overfitting: the network learns to bend its loss so that the one step leads nowhere. It shows at once, and without
another pass, in the share of images whose loss the step has *lowered* (Lin et al., 2024, https://arxiv.org/abs/2404.08154):
`abnormal` in the log.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Literal

import torch
from torch import Tensor, nn

from awnet.attacks.attack import Gradient, evaluate
from awnet.attacks.frozen import frozen_for_attack
from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import CrossEntropy
from awnet.noise import Noise
from awnet.threat_model import ThreatModel
from awnet.training.objective import OBJECTIVES, Losses, Moment, Objective, ObjectiveConfig, statistics_kept
from awnet.types import Images, Labels


@setting
@dataclass(frozen=True, kw_only=True)
class FastATConfig(ObjectiveConfig):
    """mean CE(f(x_adv), y) on the images of one step.

    Args:
        project: whether start and step stay in the ball, as in FGSM-RS; otherwise they are
            not projected onto the ball, but clipped to [0, 1].
        start: radius of the uniform start, as a fraction of eps.
        step_size: likewise.
        mode: in which the gradient is taken; published: "train", in which batch norm sees the batch (there it moves the
            running statistics once more, here it does not).
    """

    project: bool = False
    start: float = 2.0
    step_size: float = 1.0
    mode: Literal["train", "eval"] = "train"

    def __post_init__(self) -> None:
        if not (0 <= self.start < inf and 0 < self.step_size < inf):
            raise Mistake(
                "one-step training needs a start of 0 or more and a positive step_size, both finite, got "
                f"{self.start:g} and {self.step_size:g}"
            )

    def build(self, threat: ThreatModel, teachers: dict[str, nn.Module]) -> FastAT:
        return FastAT(self, threat)


class FastAT(Objective):
    """The loss of one-step adversarial training."""

    def __init__(self, config: FastATConfig, threat: ThreatModel) -> None:
        super().__init__()
        self.config, self.threat = config, threat

    def _step(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> tuple[Images, Tensor]:
        """The images to train on, and the loss where the step began."""
        eps = moment.eps_factor * self.threat.eps
        ball, noise = replace(self.threat, eps=eps), Noise(moment.seed, ids)

        def within(images: Images) -> Images:
            return ball.project(images, x) if self.config.project else images.clamp(0, 1)

        delta = self.config.start * ball.uniform(noise, 0, tuple(x.shape[1:])).to(x)
        start = within(x + delta)
        as_it_is = statistics_kept(model) if self.config.mode == "train" else frozen_for_attack(model)
        with as_it_is, torch.no_grad():
            answer = evaluate(model, Gradient(start, lambda logits: CrossEntropy()(logits, y)))
        assert answer.loss is not None and answer.gradient is not None
        x_adv = within(start + self.config.step_size * eps * ball.ascend(answer.gradient))
        return x_adv.detach(), answer.loss

    def adversarial(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Images:
        return self._step(model, x, y, ids, moment)[0]

    def forward(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Losses:
        x_adv, before = self._step(model, x, y, ids, moment)
        loss = CrossEntropy()(model(x_adv), y)
        return Losses(
            {"adversarial": loss}, {"adversarial": 1.0}, {"abnormal": (loss.detach() < before).double().mean()}
        )


OBJECTIVES.register("n-fgsm")(FastATConfig())
OBJECTIVES.register("fgsm-rs")(FastATConfig(project=True, start=1.0, step_size=1.25))
