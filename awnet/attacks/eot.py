"""Expectation over transformation (Athalye et al., 2018, https://arxiv.org/abs/1707.07397), for models that draw at random.

The attack within meets, at each of its queries, the mean loss and the mean gradient of several evaluations at the same image.
The logits are those of the last one, as in AutoAttack's code. The attack goes to its last step, since one lucky draw is no
success. Such a model's numbers follow torch's global generator: its results, unlike all others, are not repeatable here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from awnet.attacks.apgd import APGD
from awnet.attacks.attack import Answer, Attack, Query, select
from awnet.attacks.pgd import PGD
from awnet.config import setting
from awnet.errors import Mistake
from awnet.noise import Noise
from awnet.threat_model import ThreatModel
from awnet.types import Hits, Images, PerExample


class EOTState(NamedTuple):
    """The state of the attack within, and the sums over the answers to its present query."""

    within: Any
    answers: Tensor  # how many, (b,)
    loss: PerExample
    gradient: Images


@setting
@dataclass(frozen=True, kw_only=True)
class EOT(Attack):
    """An attack by gradients, each of them a mean.

    Args:
        attack: the attack within.
        samples: evaluations for each of its queries.
    """

    attack: APGD | PGD
    samples: int = 20

    stop_on_success = False

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise Mistake(f"EOT needs at least one sample, got {self.samples}")

    @property
    def threat(self) -> ThreatModel:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.attack.threat

    @property
    def queries(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.samples * self.attack.queries

    def within(self, threat: ThreatModel) -> EOT:
        return replace(self, attack=replace(self.attack, threat=threat))

    def start(self, x: Images, target: Tensor, noise: Noise) -> EOTState:
        zero = torch.zeros(len(x), device=x.device)
        return EOTState(self.attack.start(x, target, noise), zero.long(), zero, torch.zeros_like(x))

    def query(self, state: EOTState) -> Query:
        return self.attack.query(state.within)

    def update(self, state: EOTState, answer: Answer, noise: Noise) -> EOTState:
        assert answer.loss is not None and answer.gradient is not None
        answers, loss, gradient = state.answers + 1, state.loss + answer.loss, state.gradient + answer.gradient
        mean = answer._replace(loss=loss / self.samples, gradient=gradient / self.samples)
        asked = EOTState(state.within, answers, loss, gradient)
        moved = self.attack.update(state.within, mean, noise)
        return select(
            answers == self.samples, EOTState(moved, 0 * answers, 0 * loss, torch.zeros_like(gradient)), asked
        )

    def done(self, state: EOTState) -> Hits:
        return self.attack.done(state.within)

    def delicate(self, state: EOTState) -> Hits | None:
        return self.attack.delicate(state.within)

    def adversarial(self, state: EOTState) -> Images:
        return self.attack.adversarial(state.within)
