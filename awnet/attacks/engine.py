"""The engine that runs every attack over a whole set.

It owns all that is not the attack's idea: full batches of one padded shape, whose slots are refilled as examples finish;
the model's modes, restored exactly; precision; costs; progress; and the verdict, which is always taken in float32 on the
images that come out. Since every batch has one shape and every random number is counted by example, neighbours, order and
the number of examples change no bit of a result; another batch size changes it by rounding only.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from awnet.attacks.attack import Attack, Slots, advance, fresh, frozen_for_attack, select, succeeds
from awnet.attacks.attack import backwards as backwards_of
from awnet.attacks.suite import Suite
from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.model import judge
from awnet.noise import Noise, fold
from awnet.threat_model import ThreatModel
from awnet.types import Hits, Images, Labels, PerExample


class Examples(Protocol):
    """What can be attacked: a `Dataset`, or tensors as `TensorExamples`."""

    @property
    def ids(self) -> Tensor: ...
    def __len__(self) -> int: ...
    def batch(self, indices: Tensor) -> tuple[Images, Labels]: ...


class TensorExamples(NamedTuple):
    """Images in [0, 1] with their labels, and a number for each that its random numbers follow."""

    x: Images
    y: Labels
    ids: Tensor

    def __len__(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        return len(self.x)

    def batch(self, indices: Tensor) -> tuple[Images, Labels]:
        return self.x[indices], self.y[indices]


class Outcome(NamedTuple):
    """What an attack did to n examples, in their order, on the CPU.

    Attributes:
        x_adv: the adversarial images, float32.
        prediction: the class of x_adv.
        correct: whether x_adv is still classified correctly (an image outside the threat model counts as correct).
        p_clean: the model's probability that x_adv is clean, or NaN for a model that offers none.
        forwards, backwards: passes spent on each example, the verdict's forward pass included.
        broken_by: the place in the suite of the attack that succeeded, 0 for an attack by itself; -1 where none did,
            because the example stands or because a suite had nothing to do: it was misclassified as it is.
        spent: forward and backward passes of each member of the suite on each example, shape (n, members, 2).
    """

    x_adv: Images
    prediction: Labels
    correct: Hits
    p_clean: PerExample
    forwards: Tensor
    backwards: Tensor
    broken_by: Tensor
    spent: Tensor


class Sweep(NamedTuple):
    """How far an attack or a suite has come over n examples: whoever has this can go on from it, to the same result.

    Attributes:
        member: the place of the attack at work in its suite; 0 for an attack by itself.
        slots: the examples under attack.
        slot_of: which example is in each slot, -1 for none.
        begun: how many examples have entered.
        left: which examples need nothing more of this member, shape (n,), on the CPU as what follows.
        x_adv: what became of those.
        passes, backwards, confirmations: of each member, shape (n, members): evaluations of the model spent on each
            example, how many of them asked for gradients, and float32 confirmations beside them.
        prediction, p_clean, correct: the verdicts that there are.
        broken_by: as in the outcome.
    """

    member: Tensor
    slots: Slots
    slot_of: Tensor
    begun: Tensor
    left: Hits
    x_adv: Images
    passes: Tensor
    backwards: Tensor
    confirmations: Tensor
    prediction: Labels
    p_clean: PerExample
    correct: Hits
    broken_by: Tensor

    @property
    def finished(self) -> int:
        """How many examples have left."""
        return int(self.left.sum())


@setting
@dataclass(frozen=True, kw_only=True)
class Engine:
    """How attacks are run.

    Args:
        batch_size: slots; every evaluation of the model has this many examples, the last ones padded.
        precision: of the search; the verdict is always float32.
        channels_last: memory layout of images.
    """

    batch_size: int = 128
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = True

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise Mistake(f"the engine's batch size must be at least 1, got {self.batch_size}")

    def begin(
        self, attack: Attack | Suite, model: nn.Module, examples: Examples, *, seed: int = 0, member: int = 0
    ) -> Sweep:
        """The sweep before its first turn: empty slots, which hold copies of example 0 that nobody looks at.

        With a `member` other than the first, what a sweep in the middle of a suite looks like.
        """
        searches = _searches(attack, seed)
        n, nobody = len(examples), torch.full((self.batch_size,), -1)
        slots = self._fresh(searches[member], examples, nobody, _device(model))
        slots = slots._replace(finished=torch.ones_like(slots.finished))
        nothing, no = torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.bool)
        return Sweep(
            member=torch.tensor(member),
            slots=slots,
            slot_of=nobody,
            begun=torch.tensor(0),
            left=no,
            x_adv=torch.zeros(n, *slots.x.shape[1:]),
            passes=nothing[:, None].repeat(1, len(searches)),
            backwards=nothing[:, None].repeat(1, len(searches)),
            confirmations=nothing[:, None].repeat(1, len(searches)),
            prediction=nothing,
            p_clean=torch.zeros(n),
            correct=~no,
            broken_by=nothing - 1,
        )

    def run(
        self,
        attack: Attack | Suite,
        model: nn.Module,
        examples: Examples,
        *,
        seed: int = 0,
        sweep: Sweep | None = None,
        watch: Callable[[Sweep], None] = lambda sweep: None,
    ) -> Outcome:
        """Attack every example.

        Args:
            attack: what to do. Of a suite, a forward pass of each image comes first: what is misclassified already needs
                no attack. Then each member meets who still stands, with random numbers of its own.
            model: maps [0, 1] images to logits; left as it was.
            examples: images and labels.
            seed: of the attack's random numbers, which follow `examples.ids`.
            sweep: where an interrupted run of the very same was, instead of the beginning; changed in place.
            watch: shown the sweep after each turn, to tell how far it is or to save it; what it raises ends the run.

        Returns:
            The outcome of each example; `attack.stop_on_success` examples cost only what they needed.
        """
        searches, is_suite = _searches(attack, seed), isinstance(attack, Suite)
        if len(examples) == 0:
            return self.predict(model, examples, members=len(searches))
        with frozen_for_attack(model), torch.no_grad():
            sweep = sweep or self.begin(attack, model, examples, seed=seed)
            if is_suite and not sweep.member and not sweep.begun:
                x, _ = examples.batch(torch.arange(len(examples)))
                sweep = self._judged(None, model, examples, sweep._replace(x_adv=x.cpu().clone()))
                sweep = sweep._replace(left=~sweep.correct)
            for place in range(int(sweep.member), len(searches)):
                if place > sweep.member:
                    anew = self.begin(attack, model, examples, seed=seed, member=place)
                    sweep = sweep._replace(member=anew.member, slots=anew.slots, slot_of=anew.slot_of, begun=anew.begun)
                    sweep = sweep._replace(left=~sweep.correct)
                sweep = self._searched(searches[place], model, examples, sweep, watch)
                sweep = self._judged(searches[place], model, examples, sweep)
        met = sweep.passes > 0  # and so had a verdict
        spent = torch.stack([sweep.passes + sweep.confirmations + met, sweep.backwards], dim=2)
        forwards, backwards = spent.sum(1).unbind(1)
        return Outcome(
            x_adv=sweep.x_adv,
            prediction=sweep.prediction,
            correct=sweep.correct,
            p_clean=sweep.p_clean,
            forwards=forwards + is_suite,
            backwards=backwards,
            broken_by=sweep.broken_by,
            spent=spent,
        )

    def _searched(
        self,
        search: Search,
        model: nn.Module,
        examples: Examples,
        sweep: Sweep,
        watch: Callable[[Sweep], None],
    ) -> Sweep:
        """The sweep when everybody has left the search."""
        attack, member, device, b = search.attack, int(sweep.member), _device(model), self.batch_size
        slots, slot_of, begun = sweep.slots, sweep.slot_of.clone(), int(sweep.begun)
        left, x_adv = sweep.left, sweep.x_adv
        # views: written to in place
        passes, backwards, confirmations = (t[:, member] for t in (sweep.passes, sweep.backwards, sweep.confirmations))
        queue = sweep.correct.nonzero()[:, 0]  # in a suite who has not been broken; by itself everybody
        noise = self._noise(search, examples, slot_of, device)
        exact = attack.exact or self.precision == "float32"
        goes_back = backwards_of(attack.query(slots.state), model)
        while not left.all():
            free = slot_of < 0
            if begun < len(queue) and free.sum() >= max(b // 16, 1):
                # Starts are computed for the whole shape too, so that they do not depend on how many enter at once.
                entering = free & (free.cumsum(0) <= len(queue) - begun)
                slot_of[entering] = queue[begun : begun + int(entering.sum())]
                begun += int(entering.sum())
                new = self._fresh(search, examples, slot_of, device)
                slots = select(entering.to(device), new, slots)
                noise = self._noise(search, examples, slot_of, device)
            passes[slot_of[slot_of >= 0]] += 1
            backwards[slot_of[slot_of >= 0]] += goes_back
            with nullcontext() if exact else torch.autocast(device.type, dtype=torch.bfloat16):
                # whatever layout a state has drifted into: the kernels, and so the last bits, depend on it
                slots = advance(attack, model, slots, noise, self._laid_out)
            if attack.stop_on_success and not exact:
                slots, asked = self._confirmed(attack, model, slots, (slot_of >= 0).to(device))
                confirmations[slot_of[asked.cpu()]] += 1
            spent = passes[slot_of.clamp(min=0)] >= attack.queries
            leaving = (slots.finished.cpu() | spent) & (slot_of >= 0)
            if leaving.any():
                x_adv[slot_of[leaving]] = slots.x_adv[leaving.to(device)].cpu()
                left[slot_of[leaving]] = True
                slot_of[leaving] = -1
            sweep = sweep._replace(slots=slots, slot_of=slot_of.clone(), begun=torch.tensor(begun))
            watch(sweep)
        return sweep

    def _judged(self, search: Search | None, model: nn.Module, examples: Examples, sweep: Sweep) -> Sweep:
        """The sweep with the verdict on who met this search, or without one on the images as they are."""
        met = sweep.correct.nonzero()[:, 0]
        prediction, p_clean, correct = (t.clone() for t in (sweep.prediction, sweep.p_clean, sweep.correct))
        broken_by = sweep.broken_by.clone()
        threat = search.attack.threat if search else None
        prediction[met], p_clean[met], correct[met] = self._verdict(threat, model, examples, sweep.x_adv, met)
        if search:
            broken_by[met[~correct[met]]] = sweep.member
        return sweep._replace(prediction=prediction, p_clean=p_clean, correct=correct, broken_by=broken_by)

    def _fresh(self, search: Search, examples: Examples, slot_of: Tensor, device: torch.device) -> Slots:
        """Starts of the examples in the slots; an empty slot holds a copy of example 0."""
        x, y = (t.to(device) for t in examples.batch(slot_of.clamp(min=0)))
        return fresh(search.attack, self._laid_out(x), y, self._noise(search, examples, slot_of, device))

    def _noise(self, search: Search, examples: Examples, slot_of: Tensor, device: torch.device) -> Noise:
        return Noise(search.seed, examples.ids[slot_of.clamp(min=0)].to(device))

    def predict(self, model: nn.Module, examples: Examples, *, members: int = 1) -> Outcome:
        """The outcome of no attack at all: what the model says of the images themselves, one forward pass each."""
        everybody = torch.arange(len(examples))
        x, _ = examples.batch(everybody)
        with frozen_for_attack(model), torch.no_grad():
            prediction, p_clean, correct = self._verdict(None, model, examples, x, everybody)
        ones, spent = torch.ones_like(everybody), torch.zeros(len(examples), members, 2, dtype=torch.int64)
        return Outcome(x, prediction, correct, p_clean, ones, 0 * ones, -ones, spent)

    def _confirmed(self, attack: Attack, model: nn.Module, slots: Slots, occupied: Hits) -> tuple[Slots, Hits]:
        """The slots less the successes that exist in the search's precision only, and which examples were asked about.

        An example that float32 still gets right goes on: stopped there, it would count as robust.
        """
        asked = slots.finished & ~attack.done(slots.state) & occupied
        if not asked.any():
            return slots, asked
        logits = model(self._laid_out(slots.x_adv).clone())
        hit = succeeds(attack.threat, slots.x, slots.x_adv, logits, slots.target)
        return slots._replace(finished=slots.finished & (hit | ~asked)), asked

    def _verdict(
        self, threat: ThreatModel | None, model: nn.Module, examples: Examples, x_adv: Tensor, of: Tensor
    ) -> tuple[Labels, PerExample, Hits]:
        """Class, P(clean) and correctness of the final images of some examples, in float32, in batches of the one shape."""
        n, b, device = len(of), self.batch_size, _device(model)
        none = torch.empty(0)
        predictions, p_cleans, corrects = [none.long()], [none], [none.bool()]
        for start in range(0, n, b):
            index = of[torch.arange(start, start + b).clamp(max=n - 1)]
            x, y = (t.to(device) for t in examples.batch(index))
            x_final = self._laid_out(x_adv[index].to(device))
            allowed = threat.contains(x, x_final) if threat else torch.ones_like(y, dtype=torch.bool)
            logits, p_clean = judge(model, x_final)
            prediction = logits.float().argmax(1)
            predictions.append(prediction.cpu())
            p_cleans.append(p_clean.cpu())
            corrects.append(((prediction == y) | ~allowed).cpu())
        return torch.cat(predictions)[:n], torch.cat(p_cleans)[:n], torch.cat(corrects)[:n]

    def _laid_out(self, x: Images) -> Images:
        return x.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)


class Search(NamedTuple):
    """An attack with the seed of its random numbers."""

    attack: Attack
    seed: int


def _searches(attack: Attack | Suite, seed: int) -> list[Search]:
    """What is to be run, one after the other; members of a suite have seeds of their own."""
    if isinstance(attack, Suite):
        return [Search(member, fold(seed, place)) for place, member in enumerate(attack.attacks)]
    return [Search(attack, seed)]


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
