"""A thousand classes and 224 pixels: the usual attacks, in memory that does not grow with the number of images."""

from __future__ import annotations

import resource
import sys

import pytest
import torch
from torch import Tensor, nn

from awnet.attacks import APGD, Attack, Engine, Square
from awnet.losses import TargetedDLR
from awnet.noise import Noise
from awnet.threat_model import Linf

BALL = Linf(4 / 255)
PIXELS, CLASSES = 224, 1000


class Images:
    """Images that are made when they are asked for; the label is what the network says."""

    def __init__(self, n: int, model: nn.Module) -> None:
        self.ids = torch.arange(n)
        with torch.no_grad():
            self.labels = torch.cat([model(self.pixels(index)).argmax(1) for index in self.ids.split(4)])

    def __len__(self) -> int:
        return len(self.ids)

    def pixels(self, indices: Tensor) -> Tensor:
        coarse = Noise(1, indices).uniform(0, (3, 7, 7))
        return nn.functional.interpolate(coarse, size=(PIXELS, PIXELS), mode="bilinear")

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.pixels(indices), self.labels[indices]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, 4),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, 4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 14**2, CLASSES),
    ).eval()


def peak() -> float:
    """MiB of this process at its largest."""
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


@pytest.mark.slow
@pytest.mark.parametrize(
    "attack",
    [
        APGD(threat=BALL, loss=TargetedDLR(), targets=9, steps=4, stop_on_success=False),
        Square(threat=BALL, steps=40, stop_on_success=False),
    ],
    ids=["apgd-t", "square"],
)
def test_many_classes_and_large_images(attack: Attack):
    model, engine = network(), Engine(batch_size=4)
    few, many = Images(4, model), Images(16, model)
    first = engine.run(attack, model, few)  # whatever is set up once is set up now
    before = peak()
    outcome = engine.run(attack, model, many)
    images = 16 * 3 * PIXELS**2 * 4 / 2**20
    assert peak() - before < 3 * images + 50, "beyond the images themselves, memory is that of a batch"
    assert outcome.correct.float().mean() < 1 and BALL.contains(many.pixels(many.ids), outcome.x_adv).all()
    assert torch.equal(outcome.x_adv[:4], first.x_adv), "and neighbours change nothing"
    assert outcome.prediction.max() < CLASSES and len(many.labels.unique()) > 1
