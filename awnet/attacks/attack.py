"""An attack is a frozen value that describes a state machine for one example; somebody else turns the crank.

The attack says how an example's state starts, which evaluation of the model it needs next, how the state changes from
the answer, and when it is done. It never calls the model, keeps nothing between calls and draws no random number that is
not counted, so `perturb` below (the definition: one batch in lockstep) and `awnet.attacks.engine` (full batches whose
slots are refilled as examples finish) come to the same result. States of examples at different steps share a batch:
everything in a state is a tensor whose first dimension is the example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from awnet.attacks.frozen import frozen_for_attack
from awnet.attacks.inputs import check_fits, check_ids, checked, finite
from awnet.models.model import Deciding, device_of
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


class Steering(NamedTuple):
    """The wish to know, beside that, the log-odds of clean of a model that decides (`Deciding`), and their gradient.

    Two backward passes after one forward pass, so that each gradient can be normalised before they are weighed. A model
    that does not decide answers as to a `Gradient`.

    Attributes:
        form: the frozen form in which the forced images are classified: one of the model's own, where it has it;
            "still", in which the decision is the one on the image before the attack; or "" for none.
        forced: which images; the others are put to the model as it is.
        origin: the images before the attack.
    """

    x: Images
    loss: Callable[[Logits], PerExample]
    form: str
    forced: Hits
    origin: Images


Query = Forward | Gradient | Steering


class Answer(NamedTuple):
    """What the model said. None stands for what was not asked for, or does not exist.

    Attributes:
        logits: of the images.
        loss, gradient: of the loss that was asked about.
        log_odds, towards_clean: the log-odds of clean and their gradient.
        real: which of the logits are those of the model as it is; None where all are.
    """

    logits: Logits
    loss: PerExample | None = None
    gradient: Images | None = None
    log_odds: PerExample | None = None
    towards_clean: Images | None = None
    real: Hits | None = None

    def without_nan(self) -> tuple[Answer, Hits]:
        """The answer with 0 where a gradient is NaN or infinite, and where one was though the logits are numbers.

        A NaN would spread over an image (in L2 by its length) or hold it still (its sign is 0), and a network would pass
        for robust because it divides by 0 in its backward pass.
        """
        gradients = [g for g in (self.gradient, self.towards_clean) if g is not None]
        lost = torch.zeros(len(self.logits), dtype=torch.bool, device=self.logits.device)
        for gradient in gradients:
            lost = lost | ~gradient.isfinite().flatten(1).all(1)
        if nobody(lost):
            return self, lost
        clean = [None if g is None else g.nan_to_num(0, 0, 0) for g in (self.gradient, self.towards_clean)]
        return self._replace(gradient=clean[0], towards_clean=clean[1]), lost & finite(self.logits)


class Attack(ABC):
    """What every attack offers. A final attack is a frozen dataclass with these as fields or methods.

    A state is a NamedTuple of tensors, each with the example as its first dimension: (b, ...).

    Attributes:
        threat: what the attacker may do to an image.
        stop_on_success: whether an example is finished as soon as an image of its queries, inside the threat model, is
            misclassified (as AutoAttack does), or goes on to its last step (as the PGD of the AW-Net paper does).
        queries: the largest number of evaluations that one example needs.
        exact: whether the search is in float32 whatever precision an engine searches in.
        foresees: whether it knows what comes next where an answer changes nothing, as most do late in a random search.
        scouted: whether it has runs that need nothing of each other; its state has the `run` that each example is in then.
        asks_another: whether it asks a second network too, whose answers nobody has compared in smaller batches: its batches
            stay whole.
    """

    threat: ThreatModel
    stop_on_success: bool
    queries: int
    exact = False
    foresees = False
    scouted = False
    asks_another = False

    @abstractmethod
    def start(self, x: Images, target: Tensor, noise: Noise) -> Any:
        """The state of examples before their first query; `target` is what the loss compares with, mostly the label."""

    @abstractmethod
    def query(self, state: Any) -> Query:
        """The evaluation that each example needs next; always of the same class for one attack.

        A pure function of the state, which therefore holds what is asked about (a candidate image, a drawn direction).
        """

    @abstractmethod
    def update(self, state: Any, answer: Answer, noise: Noise) -> Any:
        """The state after the answer to its query."""

    @abstractmethod
    def done(self, state: Any) -> Hits:
        """Which examples need nothing more."""

    def delicate(self, state: Any) -> Hits | None:
        """Which examples are at a query that only float32 can answer well enough; None where that is never so."""
        return None

    def looks(self, state: Any) -> Hits | None:
        """Which examples need of their query's answer the logits alone; None where that is never so.

        They may be asked by themselves, without gradients, and need more the next time. No attack has delicate queries too.
        """
        return None

    def ahead(self, state: Any, steps: Tensor, noise: Noise) -> Any:
        """The states so many evaluations later, if until then no answer changes anything; of an attack that `foresees`.

        A guess, so that several evaluations of an example can share a batch (`awnet/attacks/foresight.py`): where it is wrong
        they are made again.

        Args:
            state: of the examples.
            steps: how many evaluations, whole numbers of shape (b,); 0 is the state as it is.
            noise: their random numbers.
        """
        raise NotImplementedError

    def runs(self, state: Any) -> Tensor:
        """How many runs each example has, of an attack that is `scouted`."""
        raise NotImplementedError

    def at_run(self, state: Any, run: Tensor, noise: Noise) -> Any:
        """The states at the beginning of later runs, had those before found nothing; of an attack that is `scouted`.

        Several runs of an example can share a batch by that (`awnet/attacks/scouts.py`).

        Args:
            state: of the examples, which are in a run.
            run: a later one of each, shape (b,).
            noise: their random numbers.
        """
        raise NotImplementedError

    def joined(self, before: Any, after: Any) -> Any:
        """The states in the course of a run, with what the runs before it have found; of an attack that is `scouted`.

        Args:
            before: at the beginning of that run.
            after: what has become of `at_run`.
        """
        raise NotImplementedError

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

        Raises:
            Mistake: where images, labels, ids or the model are not what is expected.
        """
        batch, ids = checked(x, y), torch.arange(len(x)) if ids is None else ids
        check_ids(ids, len(x))
        check_fits(model, *batch)
        device = device_of(model, x.device)
        noise = Noise(seed, ids.to(device))
        with frozen_for_attack(model):
            return perturb(self, model, batch.x.to(device), batch.y.to(device), noise).to(x.device)


def backwards(query: Query, model: Callable[[Images], Logits]) -> int:
    """How many backward passes an answer to such a query costs."""
    if isinstance(query, Forward):
        return 0
    return 2 if isinstance(query, Steering) and isinstance(model, Deciding) else 1


Layout = Callable[[Images], Images]


def as_is(x: Images) -> Images:
    """The layout that images have anyway."""
    return x


def evaluate(model: Callable[[Images], Logits], query: Query, lay: Layout = as_is) -> Answer:
    """Ask the model. The losses are summed, so that the gradient of an example does not depend on its batch.

    What it says is taken as exactly as the image is given, whatever it computes in, and losses are computed so.

    Args:
        model: the network, or for any query but `Steering` a function of images.
        query: what to ask.
        lay: how images lie in memory when the model sees them.
    """
    if isinstance(query, Forward):
        with torch.no_grad():
            x = query.x.clone()  # a model may normalise in place; the state must not see it
            return Answer(model(lay(x)).to(x.dtype))
    with torch.enable_grad():
        x = query.x.detach().requires_grad_()
        if isinstance(query, Steering) and isinstance(model, Deciding):
            return _steered(model, query, x, lay)
        logits = model(lay(x.clone())).to(x.dtype)  # a copy, as a model may normalise in place
        loss = query.loss(logits)
        (gradient,) = torch.autograd.grad(loss.sum(), x)
    return Answer(logits.detach(), loss.detach(), gradient)


def _steered(model: Deciding, query: Steering, x: Images, lay: Layout) -> Answer:
    still = query.form == "still"
    form = query.form if query.form in model.forms else ""
    seen = select(query.forced, query.origin, x) if still else x
    forced = query.forced if form else torch.zeros_like(query.forced)  # a model need not look at form to know
    logits, log_odds = (said.to(x.dtype) for said in model.decide(lay(x), lay(seen), form, forced))
    loss = query.loss(logits)
    gradients = []
    for value in (loss, log_odds):
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(
                value.sum(), x, retain_graph=value is loss, allow_unused=True, materialize_grads=True
            )
        else:  # nothing of the model that is in it looks at x
            gradient = torch.zeros_like(x)
        gradients.append(gradient)
    real = ~query.forced if form or still else torch.ones_like(query.forced)
    return Answer(logits.detach(), loss.detach(), gradients[0], log_odds.detach(), gradients[1], real)


class Slots(NamedTuple):
    """A batch of examples under attack, at whatever step each of them is.

    Attributes:
        state: the attack's own state of each example.
        x: the images, shape (b, c, h, w).
        target: the labels, or what else the loss compares with.
        finished: which examples need nothing more.
        x_adv: for finished examples the attack's answer.
        lost: for which a gradient was NaN or infinite on the way, and taken as 0 there.
        hit: which of the finished are so by a success.
    """

    state: Any
    x: Images
    target: Tensor
    finished: Hits
    x_adv: Images
    lost: Hits
    hit: Hits


def fresh(attack: Attack, x: Images, target: Tensor, noise: Noise) -> Slots:
    """Slots of examples that are about to meet their first query."""
    state = attack.start(x, target, noise)
    done = attack.done(state)
    no = torch.zeros_like(done)
    return Slots(state, x, target, done, attack.adversarial(state), no, no)


def advance(
    attack: Attack,
    model: Callable[[Images], Logits],
    slots: Slots,
    noise: Noise,
    lay: Layout = as_is,
    seen: Callable[[], AbstractContextManager[None]] = nullcontext,
    look: bool = False,
) -> Slots:
    """One query, one answer and one update for every example that is not finished; no synchronisation with a GPU.

    The model is asked inside of the context `seen`, as a search may see it otherwise than it is; for logits alone if all
    that are not finished merely `look`.
    """
    query = attack.query(slots.state)
    query = Forward(query.x) if look else query
    with seen():
        answer, lost = evaluate(model, query, lay).without_nan()
    state = select(slots.finished, slots.state, attack.update(slots.state, answer, noise))
    ended = ~slots.finished & attack.done(state)
    x_adv = slots.x_adv if nobody(ended) else select(ended, attack.adversarial(state), slots.x_adv)
    finished, hit = slots.finished | ended, slots.hit
    if attack.stop_on_success:
        success = ~slots.finished & succeeds(attack.threat, slots.x, query.x, answer.logits, slots.target)
        success = success if answer.real is None else success & answer.real
        x_adv = select(success, query.x, x_adv)
        finished, hit = finished | success, hit | success
    return Slots(state, slots.x, slots.target, finished, x_adv, slots.lost | (lost & ~slots.finished), hit)


def perturb(attack: Attack, model: Callable[[Images], Logits], x: Images, target: Tensor, noise: Noise) -> Images:
    """Run an attack on one batch, all examples in lockstep: the definition of what an attack computes.

    Training uses it for its inner maximisation. The model's modes are the caller's business (`frozen_for_attack`).
    """
    with torch.no_grad():
        slots = fresh(attack, x, target, noise)
        for _ in range(attack.queries):
            looking = attack.looks(slots.state)
            look = looking is not None and bool((looking | slots.finished).all())
            slots = advance(attack, model, slots, noise, look=look)
        return slots.x_adv.clone() if slots.x_adv is x else slots.x_adv


def succeeds(threat: ThreatModel, x: Images, x_adv: Images, logits: Logits, y: Tensor) -> Hits:
    """Whether x_adv is misclassified and allowed: no attack is trusted to have stayed inside its threat model.

    Where the model overflows it names no class, and nothing is misclassified.
    """
    wrong = (logits.argmax(1) != y) & finite(logits)
    return wrong if nobody(wrong) else wrong & threat.contains(x, x_adv)


Pytree = TypeVar("Pytree", bound=Any)


def select(mask: Hits, yes: Pytree, no: Pytree) -> Pytree:
    """`yes` for the examples in the mask and `no` for the others, in a tensor or in every tensor of a NamedTuple."""
    if nobody(mask):
        return no
    return yes if nobody(~mask) else _where(mask, yes, no)


def _where(mask: Hits, yes: Pytree, no: Pytree) -> Pytree:
    if isinstance(yes, Tensor):
        return cast(Pytree, torch.where(mask.view(-1, *[1] * (yes.ndim - 1)), yes, no))
    return type(yes)(*(_where(mask, a, b) for a, b in zip(yes, no, strict=True)))


def nobody(mask: Hits) -> bool:
    """Whether the mask is known to be empty, so that what it would select need not be computed.

    On a GPU that is never known: to ask would be to wait for all that it has been given to do.
    """
    return mask.device.type == "cpu" and not mask.any()


def take(index: Tensor, tree: Pytree) -> Pytree:
    """Some rows of a tensor or of every tensor of a NamedTuple, in the memory layout that they had."""
    if isinstance(tree, Tensor):
        return cast(Pytree, tree[index].contiguous(memory_format=_layout(tree)))
    return type(tree)(*(take(index, part) for part in tree))


def put(index: Tensor, rows: Pytree, tree: Pytree) -> Pytree:
    """The tree with those of its rows replaced, in the memory layout that it had: in another one sums round otherwise."""
    if isinstance(tree, Tensor):
        return cast(Pytree, tree.index_copy(0, index, rows).contiguous(memory_format=_layout(tree)))
    return type(tree)(*(put(index, new, old) for new, old in zip(rows, tree, strict=True)))


def _layout(t: Tensor) -> torch.memory_format:
    return torch.channels_last if by_channels(t) else torch.contiguous_format


def by_channels(t: Tensor) -> bool:
    """Whether its memory runs over channels first."""
    return t.ndim == 4 and not t.is_contiguous() and t.is_contiguous(memory_format=torch.channels_last)


def per_image(t: Tensor) -> Tensor:
    """One number an example, to be multiplied with images; shape (b, 1, 1, 1)."""
    return t[:, None, None, None]
