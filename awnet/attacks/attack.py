"""An attack is a frozen value that describes a state machine for one example; somebody else turns the crank.

The attack says how an example's state starts, which evaluation of the model it needs next, how the state changes from
the answer, and when it is done. It never calls the model, keeps nothing between calls and draws no random number that is
not counted, so `perturb` below (the definition: one batch in lockstep) and `awnet.attacks.engine` (full batches whose
slots are refilled as examples finish) come to the same result. States of examples at different steps share a batch:
everything in a state is a tensor whose first dimension is the example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from awnet.noise import Noise
from awnet.threat_model import ThreatModel
from awnet.types import Hits, Images, Logits, PerExample


class Forward(NamedTuple):
    """The wish to know the logits at x."""

    x: Images


class Gradient(NamedTuple):
    """The wish to know, at x, the logits, the loss of each example and its gradient with respect to the image."""

    x: Images
    loss: Callable[[Logits], PerExample]


Query = Forward | Gradient


class Answer(NamedTuple):
    """What the model said. `loss` and `gradient` are None where only a forward pass was asked for."""

    logits: Logits
    loss: PerExample | None
    gradient: Images | None


class Attack(ABC):
    """What every attack offers. A final attack is a frozen dataclass with these as fields or methods.

    A state is a NamedTuple of tensors, each with the example as its first dimension: (b, ...).

    Attributes:
        threat: what the attacker may do to an image.
        stop_on_success: whether an example is finished as soon as an image of its queries, inside the threat model, is
            misclassified (as AutoAttack does), or goes on to its last step (as the PGD of the AW-Net paper does).
        queries: the largest number of evaluations that one example needs.
    """

    threat: ThreatModel
    stop_on_success: bool
    queries: int

    @abstractmethod
    def start(self, x: Images, target: Tensor, noise: Noise) -> Any:
        """The state of examples before their first query; `target` is what the loss compares with, mostly the label."""

    @abstractmethod
    def query(self, state: Any) -> Query:
        """The evaluation that each example needs next; always a `Forward`, or always a `Gradient`, for one attack.

        A pure function of the state, which therefore holds what is asked about (a candidate image, a drawn direction).
        """

    @abstractmethod
    def update(self, state: Any, answer: Answer, noise: Noise) -> Any:
        """The state after the answer to its query."""

    @abstractmethod
    def done(self, state: Any) -> Hits:
        """Which examples need nothing more."""

    @abstractmethod
    def adversarial(self, state: Any) -> Images:
        """The attack's answer for each example, inside the threat model at any time."""

    def within(self, threat: ThreatModel) -> Attack:
        """The same attack in another threat model."""
        return replace(cast(Any, self), threat=threat)

    def __call__(self, model: nn.Module, x: Images, y: Tensor, *, seed: int = 0, ids: Tensor | None = None) -> Images:
        """The attack as a plain function on one batch: images in [0, 1] and labels to adversarial images.

        Args:
            model: maps [0, 1] images to logits; evaluated in eval mode and left exactly as it was.
            x: shape (b, c, h, w).
            y: the labels, shape (b,).
            seed: of the attack's random numbers.
            ids: which example each row is, shape (b,); by default its place in the batch.
        """
        ids = torch.arange(len(x), device=x.device) if ids is None else ids
        with frozen_for_attack(model):
            return perturb(self, model, x, y, Noise(seed, ids))


def evaluate(model: Callable[[Images], Logits], query: Query) -> Answer:
    """Ask the model. The losses are summed, so that the gradient of an example does not depend on its batch."""
    if isinstance(query, Forward):
        with torch.no_grad():
            return Answer(
                model(query.x.clone()), None, None
            )  # a model may normalise in place; the state must not see it
    with torch.enable_grad():
        x = query.x.detach().requires_grad_()
        logits = model(x)
        loss = query.loss(logits)
        (gradient,) = torch.autograd.grad(loss.sum(), x)
    return Answer(logits.detach(), loss.detach(), gradient)


class Slots(NamedTuple):
    """A batch of examples under attack, at whatever step each of them is.

    Attributes:
        state: the attack's own state of each example.
        x: the images, shape (b, c, h, w).
        target: the labels, or what else the loss compares with.
        finished: which examples need nothing more.
        x_adv: for finished examples the attack's answer.
    """

    state: Any
    x: Images
    target: Tensor
    finished: Hits
    x_adv: Images


def fresh(attack: Attack, x: Images, target: Tensor, noise: Noise) -> Slots:
    """Slots of examples that are about to meet their first query."""
    state = attack.start(x, target, noise)
    return Slots(state, x, target, attack.done(state), attack.adversarial(state))


def advance(attack: Attack, model: Callable[[Images], Logits], slots: Slots, noise: Noise) -> Slots:
    """One query, one answer and one update for every example that is not finished; no synchronisation with the device."""
    query = attack.query(slots.state)
    answer = evaluate(model, query)
    state = select(slots.finished, slots.state, attack.update(slots.state, answer, noise))
    finished = slots.finished | attack.done(state)
    x_adv = select(slots.finished, slots.x_adv, attack.adversarial(state))
    if attack.stop_on_success:
        success = ~slots.finished & succeeds(attack.threat, slots.x, query.x, answer.logits, slots.target)
        x_adv = select(success, query.x, x_adv)
        finished = finished | success
    return Slots(state, slots.x, slots.target, finished, x_adv)


def perturb(attack: Attack, model: Callable[[Images], Logits], x: Images, target: Tensor, noise: Noise) -> Images:
    """Run an attack on one batch, all examples in lockstep: the definition of what an attack computes.

    Training uses it for its inner maximisation. The model's modes are the caller's business (`frozen_for_attack`).
    """
    with torch.no_grad():
        slots = fresh(attack, x, target, noise)
        for _ in range(attack.queries):
            slots = advance(attack, model, slots, noise)
        return slots.x_adv


def succeeds(threat: ThreatModel, x: Images, x_adv: Images, logits: Logits, y: Tensor) -> Hits:
    """Whether x_adv is misclassified and allowed: no attack is trusted to have stayed inside its threat model."""
    return (logits.argmax(1) != y) & threat.contains(x, x_adv)


Pytree = TypeVar("Pytree", bound=Any)


def select(mask: Hits, yes: Pytree, no: Pytree) -> Pytree:
    """`yes` for the examples in the mask and `no` for the others, in a tensor or in every tensor of a NamedTuple."""
    if isinstance(yes, Tensor):
        return cast(Pytree, torch.where(mask.view(-1, *[1] * (yes.ndim - 1)), yes, no))
    return type(yes)(*(select(mask, a, b) for a, b in zip(yes, no, strict=True)))


@contextmanager
def frozen_for_attack(model: nn.Module) -> Iterator[None]:
    """Eval mode and no parameter gradients while it lasts; afterwards every module's mode and every flag as before."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        model.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in flags:
            parameter.requires_grad_(requires_grad)
