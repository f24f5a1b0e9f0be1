"""Verdicts of a model that draws random numbers: none of them can be had again, their mean over many draws can.

An accuracy that was measured in one draw is compared with those of further draws, of which it should be one more: their
deviation tells how far from their mean it may be, also where a draw is one for a whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from awnet.attacks.engine import Engine
from awnet.attacks.float32 import in_float32
from awnet.attacks.frozen import frozen_for_attack
from awnet.attacks.sweep import Examples
from awnet.evaluation.preflight import FEW, differ
from awnet.models.model import device_of
from awnet.noise import fold
from awnet.types import Hits

DRAWS = 20
SURE = 4.0  # deviations: with twenty draws, one time in a thousand by chance
ROUNDING = 1e-9  # of a share

Right = Bool[Tensor, "draws n"]  # whether the model is right on each example, draw by draw


def draws_numbers(model: nn.Module, examples: Examples) -> bool:
    """Whether a model answers the first examples twice by different numbers."""
    x, _ = examples.batch(torch.arange(min(FEW, len(examples))))
    x = x.to(device_of(model))
    with in_float32(model), frozen_for_attack(model), torch.no_grad(), _seeded(model, 0):
        return differ(model(x.clone()), model(x.clone()))


def in_draws(engine: Engine, model: nn.Module, examples: Examples) -> Right:
    """Whether it is right on each example in each of `DRAWS` draws, the same ones whenever torch's generator decides them."""
    found = []
    for draw in range(DRAWS):
        with _seeded(model, fold(0, draw)):
            found.append(engine.predict(model, examples).correct)
    return torch.stack(found)


class Average(NamedTuple):
    """An accuracy over draws.

    Attributes:
        value: on average.
        spread: how far from that the accuracy in one more draw may be.
        draws: how many there were.
    """

    value: float
    spread: float
    draws: int

    def __str__(self) -> str:
        return f"{100 * self.value:.2f} % on average over {self.draws} draws (one draw: ± {100 * self.spread:.2f})"

    def agrees(self, correct: Hits) -> bool:
        """Whether the accuracy in one draw is as near as chance explains."""
        return abs(self.value - _share(correct)) <= self.spread + ROUNDING

    def exceeds(self, correct: Hits) -> bool:
        """Whether it is higher than the accuracy in one draw, by more than chance explains."""
        return self.value > _share(correct) + self.spread + ROUNDING


def average(right: Right) -> Average:
    """The accuracy of several draws."""
    shares = right.double().mean(1)
    return Average(shares.mean().item(), SURE * shares.std().item() * sqrt(1 + 1 / len(shares)), len(shares))


def _share(correct: Hits) -> float:
    return correct.double().mean().item()


@contextmanager
def _seeded(model: nn.Module, seed: int) -> Iterator[None]:
    """While it lasts, torch's generators follow the seed; afterwards they go on as if nobody had drawn."""
    device = device_of(model)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed % 2**63)
        yield
