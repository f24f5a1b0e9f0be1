"""A check: a small experiment on a model that shows whether numbers of its robustness can be believed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import comb, inf
from typing import NamedTuple

import torch
from torch import Tensor, nn

from awnet.attacks.apgd import APGD
from awnet.attacks.attack import Attack
from awnet.attacks.engine import Engine
from awnet.attacks.pgd import PGD
from awnet.attacks.sweep import Examples, Outcome, TensorExamples
from awnet.evaluation.adversarials import Adversarials
from awnet.evaluation.finding import STATUSES, Finding, Status
from awnet.evaluation.record import Record
from awnet.evaluation.rigour.forms import Form
from awnet.models.model import Deciding, device_of
from awnet.noise import Noise
from awnet.registry import Registry
from awnet.threat_model import L2, Linf, ThreatModel
from awnet.types import Images, Logits

MOVES = 0.002  # of accuracy: what more effort, or another seed, may move once an attack has converged


class Part(NamedTuple):
    """One thing that a check looked at.

    Attributes:
        status: as a `Finding` has it.
        meaning: one sentence.
        advice: what to do.
        figures: by a name with its unit.
    """

    status: Status
    meaning: str
    advice: str = ""
    figures: dict[str, float] = {}  # noqa: RUF012 - never written to


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """What a check works with; the model is in eval mode, without gradients of its parameters.

    Attributes:
        model: from [0, 1] images to logits.
        examples: the images that the checks look at, on the CPU, at most as many as were allowed.
        threat: of the evaluation.
        engine: runs the attacks, as those of the evaluation.
        seed: of all random numbers.
        steps: of the checks' own attacks.
        record: the evaluation that is to be believed; None where there is none yet.
        whole: the examples of which those are a part; None where nobody said.
        saved: the adversarial images of the record; None where they are not at hand.
    """

    model: nn.Module
    examples: TensorExamples
    threat: ThreatModel
    engine: Engine
    seed: int
    steps: int
    record: Record | None
    whole: Examples | None = None
    saved: Adversarials | None = None
    known: dict[tuple[nn.Module, Attack, int], Outcome] = field(default_factory=dict, repr=False)

    @property
    def x(self) -> Images:
        """The images."""
        return self.examples.x

    @property
    def noise(self) -> Noise:
        """Random numbers of the images."""
        return Noise(self.seed, self.examples.ids)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return device_of(self.model)

    @cached_property
    def clean(self) -> Outcome:
        """What the model says of the images as they are."""
        return self.engine.predict(self.model, self.examples)

    @cached_property
    def classes(self) -> int:
        """How many the model tells apart."""
        return self.logits(self.x[:1]).shape[1]

    @cached_property
    def forms(self) -> dict[str, Form]:
        """The frozen forms of a model that decides, by name; the same ones for every check, so that `run` knows them."""
        names = self.model.forms if isinstance(self.model, Deciding) else ()
        return {name: Form(self.model, name) for name in names}

    @property
    def attack(self) -> Attack:
        """The checks' own attack: Auto-PGD on the cross-entropy, short."""
        return APGD(threat=self.threat, steps=self.steps)

    @property
    def pgd(self) -> PGD:
        """Plain PGD of as many steps, together two and a half times eps, so that it can cross the ball."""
        return PGD(threat=self.threat, steps=self.steps, step_size=max(0.1, 2.5 / self.steps))

    @property
    def unbounded(self) -> float:
        """The radius at which the threat model allows every image."""
        pixels = float(self.x[0].numel())
        radius = 1.0 if isinstance(self.threat, Linf) else pixels**0.5 if isinstance(self.threat, L2) else pixels
        return min(radius, self.threat.largest_eps)

    def run(self, attack: Attack, model: nn.Module | None = None, seed: int | None = None) -> Outcome:
        """What an attack does to the images, by a relative of the model or another seed if need be; none is run twice."""
        key = (model or self.model, attack, self.seed if seed is None else seed)
        if key not in self.known:
            self.known[key] = self.engine.run(attack, key[0], self.examples, seed=key[2])
        return self.known[key]

    @torch.no_grad()
    def logits(self, x: Images, batch: int | None = None) -> Logits:
        """The model's, in full batches of this size or of the engine's; float32, on the CPU."""
        parts = filled(len(x), batch or self.engine.batch_size)
        return torch.cat([self.model(x[rows].to(self.device)).float().cpu() for rows in parts])[: len(x)]

    def right(self, x: Images) -> Tensor:
        """Which images are classified correctly, shape (n,)."""
        return self.logits(x).argmax(1) == self.examples.y


Looks = Callable[[Trial], Iterator[Part]]


@dataclass(frozen=True)
class Check:
    """A code, a name, and what is looked at."""

    code: str
    name: str
    looks: Looks

    def __call__(self, trial: Trial) -> Finding:
        parts = list(self.looks(trial))
        status = STATUSES[max(STATUSES.index(part.status) for part in parts)]
        told = [part for part in parts if part.status == status]
        if status == "fail":
            told += [part for part in parts if part.status == "warn"]
        return Finding(
            code=self.code,
            name=self.name,
            status=status,
            figures={name: value for part in parts for name, value in part.figures.items() if abs(value) < inf},
            meaning=" ".join(part.meaning for part in told),
            advice=" ".join(dict.fromkeys(part.advice for part in told if part.advice)),
        )


CHECKS: Registry[Check] = Registry("check")


def check(code: str, name: str) -> Callable[[Looks], Check]:
    """Decorator of a function that yields at least one part: enters it as a check."""
    return lambda looks: CHECKS.register(code)(Check(code, name, looks))


def filled(n: int, size: int) -> list[Tensor]:
    """Places 0 to n - 1 in batches of one size, the last filled up with the last place, as the engine does.

    A model may raise on a batch of one, as the rest of a set may be, and be sound in full ones. What it says of the batches
    is cut at n.
    """
    return [torch.arange(start, start + size).clamp(max=n - 1) for start in range(0, n, size)]


def percent(hits: Tensor) -> float:
    """The share of True in percent; 0 of none."""
    return 100 * hits.double().mean().item() if len(hits) else 0.0


def surely_more(count: int, n: int) -> bool:
    """Whether so many of n images are more than effort may move; wrongly so one time in twenty, by the binomial tail."""
    below = sum(comb(n, k) * MOVES**k * (1 - MOVES) ** (n - k) for k in range(count))
    return 1 - below < 0.05


def column(t: Tensor) -> Tensor:
    """A number an image, so that it multiplies images."""
    return t.view(-1, 1, 1, 1)
