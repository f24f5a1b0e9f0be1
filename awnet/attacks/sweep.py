"""What an engine is given, how far it has come, and what it found: examples, the sweep over them, and their outcome."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from awnet.attacks.attack import Slots
from awnet.attacks.scouts import Scouts
from awnet.types import Hits, Images, Labels, PerExample

NEAR = 5 / 256  # of the largest logit, of which bfloat16 resolves 1/256


class Examples(Protocol):
    """What can be attacked: a `Dataset`, or tensors as `TensorExamples`."""

    @property
    def ids(self) -> Tensor: ...
    @property
    def labels(self) -> Labels: ...
    def __len__(self) -> int: ...
    def batch(self, indices: Tensor) -> tuple[Images, Labels]: ...


class TensorExamples(NamedTuple):
    """Images in [0, 1] with their labels, and a number for each that its random numbers follow."""

    x: Images
    y: Labels
    ids: Tensor

    def __len__(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        return len(self.x)

    @property
    def labels(self) -> Labels:
        return self.y

    def batch(self, indices: Tensor) -> tuple[Images, Labels]:
        return self.x[indices], self.y[indices]


class Outcome(NamedTuple):
    """What an attack did to n examples, in their order, on the CPU.

    Attributes:
        x_adv: the adversarial images, float32.
        prediction: the class of x_adv.
        correct: whether x_adv is still classified correctly (an image outside the threat model counts as correct, and so does
            one that the model answers with NaN or infinity).
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
        again: whether it is at work for the second time, in float32.
        slots: the examples under attack.
        slot_of: which example is in each slot, -1 for none.
        scouts: which slots make a later run of theirs ahead.
        begun: how many examples have entered.
        left: which examples need nothing more of this member, shape (n,), on the CPU as what follows.
        fallen: which of those left it with a success, on which the verdict is still to come.
        x_adv: what became of those.
        most: how many evaluations of this member each may have had when it leaves, shape (n,), on the CPU as what follows.
        passes, backwards, confirmations: of each member, shape (n, members): evaluations of the model spent on each
            example, how many of them asked for gradients, and float32 confirmations beside them.
        prediction, p_clean, correct: the verdicts that there are.
        lost: who met a gradient that was NaN or infinite.
        margin: the most by which an image was misclassified in the verdicts that there are, as a share of its largest logit;
            who is furthest from it begins first, for it will take longest.
        broken_by: as in the outcome.
    """

    member: Tensor
    again: Tensor
    slots: Slots
    slot_of: Tensor
    scouts: Scouts
    begun: Tensor
    left: Hits
    fallen: Hits
    x_adv: Images
    most: Tensor
    passes: Tensor
    backwards: Tensor
    confirmations: Tensor
    prediction: Labels
    p_clean: PerExample
    correct: Hits
    lost: Hits
    margin: PerExample
    broken_by: Tensor

    @property
    def finished(self) -> int:
        """How many examples have left."""
        return int(self.left.sum())

    @property
    def meets(self) -> Hits:
        """Whom the attack at work is for: who is not broken, and if it is at work again, by a hair."""
        return self.correct & (self.margin > -NEAR) if self.again else self.correct
