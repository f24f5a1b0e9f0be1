"""A part of C4: whether an attack has converged, by how much more it takes with twice the steps and the runs.

Carlini et al. (2019), section 5.4. Of the checks' own attack, which is short; and of the record's strongest, whose number is
the one that is claimed, as far as it can be doubled in the time of the checks. An image that falls only to more effort has
stood too long for certain, so their share is held against the bar there, not a difference that may go either way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from awnet.attacks.attack import Attack
from awnet.attacks.effort import more
from awnet.attacks.sweep import TensorExamples
from awnet.evaluation.metrics import accuracy, paired_difference
from awnet.evaluation.rigour.check import MOVES, Part, Trial, surely_more
from awnet.evaluation.rigour.recorded import shared, strongest
from awnet.noise import permutation
from awnet.types import Hits

SURELY = 0.05  # of accuracy, from which on a number that has not converged is none
SPENT = 4  # times the steps of the checks' own attack: what may be asked for each image of the trial
FEWEST = 12  # images that withstand the record's attack, of which its doubling would show too little


def own_doubled(trial: Trial) -> Iterator[Part]:
    """Of the checks' own attack: twice the steps, twice the runs."""
    once = trial.run(trial.attack).correct & trial.clean.correct
    for what, effort in (("steps", more(trial.attack, steps=2)), ("restarts", more(trial.attack, runs=2))):
        gap = paired_difference(once, once & trial.run(effort).correct)
        figures = {f"points that twice the {what} take": 100 * gap.value}
        if gap.value <= MOVES or gap.low <= 0:
            reach = (
                f"at most {100 * max(gap.high, 0):.1f} points" if gap.value > MOVES else f"{100 * gap.value:.1f} points"
            )
            yield Part("pass", f"Twice the {what} take {reach}.", "", figures)
        else:
            text = f"Twice the {what} take {100 * gap.value:.1f} points more: the attack has not converged."
            yield Part("fail" if gap.low > SURELY else "warn", text, _advice(what), figures)


def recorded_doubled(trial: Trial) -> Iterator[Part]:
    """Of the record's strongest attack: both at once, on images that withstood it."""
    claims = [*_claims(trial)]
    claim = next(filter(None, (_in_time(trial, claim) for claim in claims)), None)
    if claim is None:
        if claims:
            yield Part("pass", "There is no time here to double an attack of the record.")
        return
    rows, stands = claim.rows[claim.stood], torch.zeros_like(claim.stood)
    effort, again = more(claim.attack, steps=2, runs=2), TensorExamples(*(t[rows] for t in trial.examples))
    stands[claim.stood] = trial.engine.run(effort, trial.model, again, seed=trial.seed).correct
    fell = claim.stood & ~stands
    took, count = accuracy(fell), int(fell.sum())
    figures = {
        f"points that {claim.name} takes once doubled": 100 * took.value,
        "images on which it was doubled": float(len(fell)),
    }
    who = f"{claim.name}, the strongest of the record that there is time to double,"
    text = f"{who} breaks {count} of {len(fell)} images more so"
    if surely_more(count, len(fell)):
        advice = _advice("steps and restarts")
        yield Part("fail" if took.low > SURELY else "warn", f"{text}: it has not converged.", advice, figures)
    else:
        unsure = f", too few to be told from {100 * MOVES:g} points" if count else ""
        yield Part("pass", f"{text}{unsure}.", "", figures)


def _advice(what: str) -> str:
    return f"Run the attacks with more {what}, until doubling takes less than {100 * MOVES:g} points."


class Claim(NamedTuple):
    """An attack of the record on images of the trial.

    Attributes:
        name: of the attack.
        attack: itself.
        rows: places of the images in the trial, shape (k,).
        stood: which of them withstood it, or the whole suite that it is from, shape (k,).
    """

    name: str
    attack: Attack
    rows: Tensor
    stood: Hits


def _claims(trial: Trial) -> Iterator[Claim]:
    """The record's attacks, the strongest first, on its images in the trial in some order; each is withstood by some."""
    rows, of = shared(trial)
    order = permutation(trial.seed, len(rows))
    rows, of = rows[order], of[order]
    right = trial.clean.correct[rows]
    for name, attack, correct in strongest(trial):
        stood = right & correct[of]
        if stood.any():
            yield Claim(name, attack, rows, stood)


def _in_time(trial: Trial, claim: Claim) -> Claim | None:
    """On the first images, for as many of which there is time; None where too few of these withstand it."""
    most = SPENT * trial.steps * len(trial.x) // more(claim.attack, steps=2, runs=2).queries
    early = claim.stood.cumsum(0) <= most
    enough = int(claim.stood[early].sum()) >= min(FEWEST, int(claim.stood.sum()))
    return claim._replace(rows=claim.rows[early], stood=claim.stood[early]) if enough else None
