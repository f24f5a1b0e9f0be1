"""A watch for catastrophic overfitting in one-step adversarial training (Wong, Rice and Kolter, 2020,
https://arxiv.org/abs/2001.03994).

From one epoch to the next the network may learn to bend its loss so that one step leads nowhere: its accuracy under FGSM rises
while that under several steps falls to nothing. So after each epoch the same training images meet both. The published code
stops where the accuracy under PGD falls by 0.2 within an epoch; a gap between the two is as plain, and needs no memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from awnet.attacks.engine import Engine
from awnet.attacks.fgsm import fgsm
from awnet.attacks.pgd import PGD
from awnet.config import setting
from awnet.data.dataset import Dataset
from awnet.errors import Mistake
from awnet.threat_model import ThreatModel


@setting
@dataclass(frozen=True, kw_only=True)
class OverfittingConfig:
    """How closely a training is watched.

    Args:
        images: training images that are attacked after each epoch; 0: none, no watch.
        steps: of PGD, of eps/4 from a uniform start.
        gap: the accuracy under FGSM less that under PGD from which on a warning is given.
        stop: whether the training then ends; best/ holds the best epoch before.
    """

    images: int = 0
    steps: int = 10
    gap: float = 0.2
    stop: bool = False

    def __post_init__(self) -> None:
        if self.images < 0 or self.steps < 1 or not 0 < self.gap <= 1:
            raise Mistake(
                "the watch for overfitting needs 0 or more images, 1 or more steps and a gap above 0 and at most 1, got "
                f"{self.images}, {self.steps} and {self.gap:g}"
            )


class Watched(NamedTuple):
    """What was seen of a network after an epoch.

    Attributes:
        numbers: for the log.
        alarm: a sentence where something is wrong; "" otherwise.
        stop: whether the training should end.
    """

    numbers: dict[str, float]
    alarm: str = ""
    stop: bool = False


class Overfitting:
    """Attacks the same images after each epoch.

    Args:
        config: the settings.
        threat: against whom the network is trained.
        dataset: the training images; a seeded subset is watched.
        seed: of subset and attack.
    """

    def __init__(self, config: OverfittingConfig, threat: ThreatModel, dataset: Dataset, seed: int) -> None:
        self.config, self.seed = config, seed
        self.images = dataset.sample(config.images, seed=seed)
        self.attacks = fgsm(threat), PGD(threat=threat, steps=config.steps, step_size=1 / 4, initial="uniform")

    def __call__(self, model: nn.Module) -> Watched:
        engine = Engine(batch_size=min(256, len(self.images)))
        one, several = (
            engine.run(attack, model, self.images, seed=self.seed).correct.float().mean().item()
            for attack in self.attacks
        )
        numbers = {"training_fgsm": one, "training_pgd": several}
        if one - several < self.config.gap:
            return Watched(numbers)
        alarm = (
            f"the network overfits to one step: {one:.1%} right under FGSM, {several:.1%} under {self.config.steps} steps "
            "of PGD; try n-fgsm or gat, a smaller eps or a lower learning rate"
        )
        return Watched(numbers, alarm, self.config.stop)
