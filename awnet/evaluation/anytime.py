"""An upper bound on the robust accuracy for whatever time there is: it falls as long as one waits, and is valid at any moment.

Images come in a random order that no result changes, so those that have been looked at are a fair sample. Each meets the
cheapest attack first; then those that still stand meet the next, and so on. A share of images that no attack has broken yet
can only fall; its interval (Wilson, 1927) is that of the share which these attacks would leave of all images.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import NamedTuple

import torch
from torch import Tensor, nn

from awnet.attacks.apgd import APGD
from awnet.attacks.attack import Attack
from awnet.attacks.engine import Engine
from awnet.attacks.square import Square
from awnet.attacks.suite import Suite
from awnet.attacks.sweep import Outcome, Sweep
from awnet.data.dataset import Dataset
from awnet.errors import Mistake
from awnet.evaluation.metrics import Accuracy, accuracy
from awnet.losses import TargetedDLR
from awnet.noise import fold, permutation
from awnet.threat_model import ThreatModel
from awnet.types import Hits

IMAGES = 1000  # tell the share to three points
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(text: str) -> float:
    """A duration as people write it: 90s, 10m, 1.5h.

    Raises:
        Mistake: where it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not found or not 0 < float(found[1]) < inf:
        raise Mistake(f"expected a time such as 90s, 10m or 1.5h, got {text!r}")
    return float(found[1]) * UNITS[found[2]]


def ladder(threat: ThreatModel) -> dict[str, Attack | Suite]:
    """Attacks from cheap to strong: together AutoAttack's two strongest, and Square."""
    return {
        "apgd-ce of 10 steps": APGD(threat=threat, steps=10),
        "apgd-t of 20 steps, 3 classes": APGD(threat=threat, loss=TargetedDLR(), targets=3, steps=20),
        "apgd-ce": APGD(threat=threat),
        "apgd-t": APGD(threat=threat, loss=TargetedDLR(), targets=9),
        "square": Square(threat=threat),
    }


class Point(NamedTuple):
    """The bound at one moment.

    Attributes:
        seconds: since the beginning.
        passes: forward and backward passes of the model so far.
        attack: that was at work last; "" for none, the images as they are.
        accuracy: the share of the images looked at that stands, with its interval.
    """

    seconds: float
    passes: int
    attack: str
    accuracy: Accuracy


@dataclass(frozen=True, kw_only=True)
class Anytime:
    """What was found in the time that there was.

    Attributes:
        attacks: the names of the ladder's rungs.
        places: of the m images looked at in the data set, in the order in which they came, shape (m,).
        ids: of those images.
        outcome: what became of them, as of a suite whose members are the rungs; the image of one that stands is as the last
            attack left it.
        met: how many rungs each of them has met, at most until it was broken.
        curve: the bound over time; the last point is the result.
    """

    attacks: tuple[str, ...]
    places: Tensor
    ids: Tensor
    outcome: Outcome
    met: Tensor
    curve: tuple[Point, ...]

    @property
    def stands(self) -> Hits:
        """Which of them are classified correctly and not broken."""
        return self.outcome.correct

    @property
    def broken_by(self) -> Tensor:
        """The rung that broke each of them; -1 where none did, or where it is misclassified as it is."""
        return self.outcome.broken_by

    @property
    def bound(self) -> Accuracy:
        """The upper bound, with its interval."""
        return accuracy(self.stands)


class _Over(Exception):
    """The time is over in the middle of an attack, whose half is dropped."""


def anytime(
    model: nn.Module,
    dataset: Dataset,
    threat: ThreatModel,
    *,
    seconds: float,
    attacks: Mapping[str, Attack | Suite] | None = None,
    engine: Engine | None = None,
    images: int = IMAGES,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
    watch: Callable[[Point], None] = lambda point: None,
) -> Anytime:
    """Bound the robust accuracy within a time.

    Args:
        model: maps [0, 1] images to logits; left as it was.
        dataset: the examples.
        threat: what the attacker may do.
        seconds: after how long to end, by the clock; looked at after each turn of the engine.
        attacks: from cheap to strong; `ladder` by default.
        engine: how they are run; its batch size is how many images enter at once.
        images: at most so many, chosen by the seed.
        seed: of the order and of the attacks.
        clock: the time in seconds.
        watch: told each point of the curve.

    Raises:
        Mistake: the time is no positive number, there are no images, or the model answers some with NaN or infinity.
    """
    if not 0 < seconds < inf or not isfinite(seconds):
        raise Mistake(f"the time for a bound must be positive, got {seconds:g} seconds")
    if len(dataset) == 0 or images < 1:
        raise Mistake(f"a bound needs at least one image, got {min(len(dataset), images)}")
    engine = engine or Engine()
    rungs = dict(attacks or ladder(threat))
    order = permutation(fold(seed, 0), len(dataset))[:images]
    chunks = [place for place in torch.arange(len(order)).split(engine.batch_size)]
    began = clock()
    met = torch.zeros(len(order), dtype=torch.int64)
    found: Outcome | None = None  # of all of them, those not looked at yet being blank
    curve: list[Point] = []
    looked, passes = 0, 0

    def over() -> bool:
        return clock() - began >= seconds

    def stop(sweep: Sweep) -> None:
        if over():
            raise _Over

    def mark(name: str) -> None:
        assert found is not None
        curve.append(Point(clock() - began, passes, name, accuracy(found.correct[:looked])))
        watch(curve[-1])

    for chunk in chunks:  # the first at any rate, so that there is a bound
        outcome = engine.predict(model, dataset.subset(order[chunk]), members=len(rungs))
        found = _blank(outcome, len(order)) if found is None else found
        for whole, part in zip(found, outcome, strict=True):
            whole[chunk] = part
        looked += len(chunk)
        passes += int((outcome.forwards + outcome.backwards).sum())
        mark("")
        if over():
            break
    assert found is not None
    try:
        for rung, (name, attack) in enumerate(rungs.items()):
            for chunk in chunks:
                up = chunk[(chunk < looked) & found.correct[chunk]]
                if len(up) == 0:
                    continue
                if over():
                    raise _Over
                outcome = engine.run(attack, model, dataset.subset(order[up]), seed=fold(seed, rung + 1), watch=stop)
                met[up] = rung + 1
                _note(found, outcome, up, rung)
                passes += int((outcome.forwards + outcome.backwards).sum())
                mark(name)
    except _Over:
        pass
    return Anytime(
        attacks=tuple(rungs),
        places=order[:looked],
        ids=dataset.ids[order[:looked]],
        outcome=Outcome(*(whole[:looked] for whole in found)),
        met=met[:looked],
        curve=tuple(curve),
    )


def _blank(part: Outcome, n: int) -> Outcome:
    """Room for n images."""
    return Outcome(*(t.new_zeros(n, *t.shape[1:]) for t in part))


def _note(found: Outcome, outcome: Outcome, at: Tensor, rung: int) -> None:
    """Write what a rung made of some images into what is known of all."""
    for name in ("x_adv", "prediction", "correct", "p_clean"):
        getattr(found, name)[at] = getattr(outcome, name)
    for name in ("forwards", "backwards"):
        getattr(found, name)[at] += getattr(outcome, name)
    found.broken_by[at[~outcome.correct]] = rung
    found.spent[at, rung] = torch.stack([outcome.forwards, outcome.backwards], dim=1)
