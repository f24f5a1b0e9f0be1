"""What an objective is: a module that turns a model and a batch into losses, one number an example, and their weights.

Most objectives compare the logits of clean images with those of adversarial ones (`PairObjective`): they say how the
adversarial images are found and what is compared. How the two sorts of images pass through the network is another matter:
a static network sees them one after the other; AW-Net sees them side by side, each through its own batch norms
(`awnet.training.joint`), over any of these objectives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor, nn

from awnet.attacks.attack import Attack, perturb
from awnet.attacks.frozen import frozen_for_attack
from awnet.noise import Noise
from awnet.registry import Registry
from awnet.threat_model import ThreatModel
from awnet.types import Images, Labels, Logits, PerExample


class Moment(NamedTuple):
    """When in its training a model is.

    Attributes:
        seed: of this step's random numbers.
        lr_factor: the learning rate as a fraction of its base, for what falls with it.
        eps_factor: the radius of the inner attack as a fraction of the threat model's, below 1 while it warms up.
        step: how many steps lie behind.
        done: which share of the training lies behind, for what changes on the way.
    """

    seed: int
    lr_factor: float = 1.0
    eps_factor: float = 1.0
    step: int = 0
    done: float = 1.0


class Losses(NamedTuple):
    """Terms of the loss, each of shape (b,), their weights, and numbers to watch.

    The training loss is sum_k weight_k mean(term_k).
    """

    terms: dict[str, PerExample]
    weights: dict[str, Tensor | float]
    watched: dict[str, Tensor]

    @property
    def total(self) -> Tensor:
        """The scalar to descend."""
        first, *others = (self.weights[name] * term.mean() for name, term in self.terms.items())
        return sum(others, start=first)


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Every buffer is afterwards what it was, running statistics among them."""
    before = {name: t.clone() for name, t in model.named_buffers()}
    try:
        yield
    finally:
        for name, t in model.named_buffers():
            t.copy_(before[name])


def maximise(
    attack: Attack, through: Callable[[Images], Logits], x: Images, target: Tensor, ids: Tensor, moment: Moment
) -> Images:
    """The inner maximisation on a model that is frozen (`frozen_for_attack`); its radius warms up with the moment."""
    if moment.eps_factor != 1:
        attack = attack.within(replace(attack.threat, eps=moment.eps_factor * attack.threat.eps))
    return perturb(attack, through, x, target, Noise(moment.seed, ids))


class Objective(nn.Module, ABC):
    """A training loss. What it remembers between steps (MTARD's weights) are buffers, so that a resume is exact."""

    def prepare(self, model: nn.Module) -> None:
        """What a model is given before its first step, where an objective trains a part of it beside finished ones."""

    @abstractmethod
    def forward(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Losses:
        """Losses of a batch; the model is in training mode and stays there."""

    def adversarial(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Images | None:
        """The adversarial partner of each image, or None for an objective without."""
        return None


class PairObjective(Objective):
    """An objective over clean images and their adversarial partners.

    Attributes:
        attack: the inner maximisation.
        uses_clean: whether the clean images pass through the network, as over AW-Net they always do.
        trains_clean: whether their logits count in the loss, where they are there.
        trains_adversarial: whether those of their partners do.
    """

    attack: Attack
    uses_clean: bool
    trains_clean: bool = True
    trains_adversarial: bool = True

    def inner_target(self, model: Callable[[Images], Logits], x: Images, y: Labels) -> Tensor:
        """What the attack's loss compares with; the model is in eval mode here."""
        return y

    @abstractmethod
    def compare(
        self, clean: Logits | None, adversarial: Logits, x: Images, x_adv: Images, y: Labels, moment: Moment
    ) -> Losses:
        """Losses from the logits of both sorts of images; `clean` is None only where `uses_clean` is False."""

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
        """Adversarial partners for a model that is attacked as `through` and whose clean logits come by `clean`."""
        with frozen_for_attack(model):
            return maximise(self.attack, through, x, self.inner_target(clean, x, y), ids, moment)

    def adversarial(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Images:
        return self.find(model, model, model, x, y, ids, moment)

    def forward(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Losses:
        x_adv = self.adversarial(model, x, y, ids, moment)
        # The order matters to running statistics alone; MTARD's code has the adversarial images first.
        adversarial = model(x_adv)
        clean = model(x) if self.uses_clean else None
        return self.compare(clean, adversarial, x, x_adv, y, moment)


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(ABC):
    """Settings of an objective."""

    @property
    def teachers(self) -> dict[str, str]:
        """Role to recipe or checkpoint of every network that it needs beside the one in training."""
        return {}

    @abstractmethod
    def build(self, threat: ThreatModel, teachers: dict[str, nn.Module]) -> Objective:
        """The objective for a threat model, given its teachers by role."""


OBJECTIVES: Registry[ObjectiveConfig] = Registry("objective")
