"""The engine that runs every attack over a whole set.

It owns all that is not the attack's idea: full batches of one padded shape, whose slots are refilled as examples finish;
the model's modes, restored exactly; precision; costs; progress; and the verdict, which is always taken in float32 on the
images that come out. Since every batch has one shape and every random number is counted by example, neighbours, order and
the number of examples change no bit of a result; another batch size changes it by rounding only.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from awnet.attacks.attack import Attack, Gradient, Slots, advance, fresh, frozen_for_attack, select, succeeds
from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.model import judge
from awnet.noise import Noise
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
    """

    x_adv: Images
    prediction: Labels
    correct: Hits
    p_clean: PerExample
    forwards: Tensor
    backwards: Tensor


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

    def run(
        self,
        attack: Attack,
        model: nn.Module,
        examples: Examples,
        *,
        seed: int = 0,
        progress: Callable[[int], None] = lambda finished: None,
    ) -> Outcome:
        """Attack every example.

        Args:
            attack: what to do.
            model: maps [0, 1] images to logits; left as it was.
            examples: images and labels.
            seed: of the attack's random numbers, which follow `examples.ids`.
            progress: called with the number of examples finished so far.

        Returns:
            The outcome of each example; `attack.stop_on_success` examples cost only what they needed.
        """
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        n, b = len(examples), self.batch_size
        slot_of = torch.full((b,), -1)  # which example is in each slot; -1: none
        x_adv = torch.empty((n, *examples.batch(torch.arange(0))[0].shape[1:]))
        passes, confirmations = torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.int64)
        backwards_a_pass = 0
        slots: Slots | None = None
        noise = Noise(seed, torch.zeros(b, dtype=torch.int64))
        waiting, finished = 0, 0  # the next example of the queue; how many have left
        with frozen_for_attack(model), torch.no_grad():
            while finished < n:
                free = slot_of < 0
                if waiting < n and free.sum() >= max(b // 16, 1):
                    # Starts are computed for the whole shape too, so that they do not depend on how many enter at once.
                    entering = free & (free.cumsum(0) <= n - waiting)
                    slot_of[entering] = torch.arange(waiting, waiting + int(entering.sum()))
                    waiting += int(entering.sum())
                    # An empty slot holds a copy of example 0, never looked at.
                    index = slot_of.clamp(min=0)
                    x, y = (t.to(device) for t in examples.batch(index))
                    noise = Noise(seed, examples.ids[index].to(device))
                    new = fresh(attack, self._laid_out(x), y, noise)
                    slots = new if slots is None else select(entering.to(device), new, slots)
                    slots = slots._replace(finished=slots.finished | (slot_of < 0).to(device))
                assert slots is not None
                passes[slot_of[slot_of >= 0]] += 1
                backwards_a_pass = int(isinstance(attack.query(slots.state), Gradient))
                with self._search_precision(device):
                    # whatever layout a state has drifted into: the kernels, and so the last bits, depend on it
                    slots = advance(attack, lambda x: model(self._laid_out(x)), slots, noise)
                if attack.stop_on_success and self.precision != "float32":
                    slots, asked = self._confirmed(attack, model, slots, (slot_of >= 0).to(device))
                    confirmations[slot_of[asked.cpu()]] += 1
                spent = passes[slot_of.clamp(min=0)] >= attack.queries
                leaving = (slots.finished.cpu() | spent) & (slot_of >= 0)
                if leaving.any():
                    x_adv[slot_of[leaving]] = slots.x_adv[leaving.to(device)].cpu()
                    slot_of[leaving] = -1
                    finished += int(leaving.sum())
                    progress(finished)
            prediction, p_clean, correct = self._verdict(attack, model, examples, x_adv, device)
        return Outcome(x_adv, prediction, correct, p_clean, passes + confirmations + 1, passes * backwards_a_pass)

    def predict(self, model: nn.Module, examples: Examples) -> Outcome:
        """The outcome of no attack at all: what the model says of the images themselves, one forward pass each."""
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        x, _ = examples.batch(torch.arange(len(examples)))
        with frozen_for_attack(model), torch.no_grad():
            prediction, p_clean, correct = self._verdict(None, model, examples, x, device)
        ones = torch.ones(len(examples), dtype=torch.int64)
        return Outcome(x, prediction, correct, p_clean, ones, 0 * ones)

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
        self, attack: Attack | None, model: nn.Module, examples: Examples, x_adv: Images, device: torch.device
    ) -> tuple[Labels, PerExample, Hits]:
        """Class, P(clean) and correctness of each final image, in float32, in batches of the one shape."""
        n, b = len(examples), self.batch_size
        none = torch.empty(0)
        predictions, p_cleans, corrects = [none.long()], [none], [none.bool()]
        for start in range(0, n, b):
            index = torch.arange(start, start + b).clamp(max=n - 1)
            x, y = (t.to(device) for t in examples.batch(index))
            x_final = self._laid_out(x_adv[index].to(device))
            allowed = attack.threat.contains(x, x_final) if attack else torch.ones_like(y, dtype=torch.bool)
            logits, p_clean = judge(model, x_final)
            prediction = logits.float().argmax(1)
            predictions.append(prediction.cpu())
            p_cleans.append(p_clean.cpu())
            corrects.append(((prediction == y) | ~allowed).cpu())
        return torch.cat(predictions)[:n], torch.cat(p_cleans)[:n], torch.cat(corrects)[:n]

    def _laid_out(self, x: Images) -> Images:
        return x.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)

    def _search_precision(self, device: torch.device) -> AbstractContextManager[object]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)
