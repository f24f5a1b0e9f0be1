"""A part of C10: what a number owes to the seed of the attack, of which a record has one.

An attack draws where it begins, and its number is worth as much as it keeps under other draws. The record's strongest attack of
those that are cheap, or else the checks' own, is run from three seeds: their accuracies are compared with each other, and what
withstands all of them with what withstood the record. If it has converged, next to nothing of that falls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from awnet.attacks.attack import Attack
from awnet.evaluation.metrics import paired_difference, worst_case
from awnet.evaluation.rigour.check import Part, Trial, percent, surely_more
from awnet.evaluation.rigour.recorded import shared, strongest
from awnet.noise import fold
from awnet.types import Hits

CHEAP = 3  # times the steps of the checks' own attack


def seeded(trial: Trial) -> Iterator[Part]:
    """The same attack from three seeds."""
    name, attack, stood = _attack(trial)
    seeds = (trial.seed, fold(trial.seed, 1), fold(trial.seed, 2))
    hits = [trial.run(attack, seed=seed).correct & trial.clean.correct for seed in seeds]
    yield compared(name, hits, stood & ~worst_case(hits))


def compared(name: str, hits: Sequence[Hits], fell: Hits) -> Part:
    """What three seeds say of an attack.

    Args:
        name: of the attack.
        hits: for each seed the images that withstood it, shape (n,).
        fell: those that withstood the record and not every seed.
    """
    least, most = (pick(hits, key=lambda of: int(of.sum())) for pick in (min, max))
    low, high, worst = (percent(of) for of in (least, most, worst_case(hits)))
    figures = {f"{name} from three seeds, lowest, %": low, "highest, %": high, "what withstands all three, %": worst}
    figures["withstood the record and fall to a seed, %"] = percent(fell)
    text = f"Three seeds of {name} leave {low:.1f} to {high:.1f} %, and {worst:.1f} % withstand all"
    if surely_more(int(fell.sum()), len(fell)):
        more = f"{int(fell.sum())} of {len(fell)} images withstood the record by its seed alone: it has not converged"
        return Part("warn", f"{text}; {more}.", RESTARTS, figures)
    if paired_difference(most, least).low > 0:
        return Part("warn", f"{text}: one seed says too little.", SEVERAL, figures)
    return Part("pass", f"{text}.", "", figures)


RESTARTS = "Give it more restarts, or count what withstands it under several seeds."
SEVERAL = "Report mean and deviation over seeds."


def _attack(trial: Trial) -> tuple[str, Attack, Hits]:
    """The attack, by its name, and what withstood it in the record, or the suite that it is from; shape (n,)."""
    stood, (rows, of) = torch.zeros_like(trial.clean.correct), shared(trial)
    for name, attack, correct in strongest(trial):
        if attack.queries <= CHEAP * trial.steps:
            stood[rows] = correct[of] & trial.clean.correct[rows]
            return name, attack, stood
    return "the checks' own attack", trial.attack, stood
