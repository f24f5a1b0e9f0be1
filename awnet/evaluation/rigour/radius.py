"""C4: accuracy falls as the attacker may do more: with eps, down to nothing; and no further with steps and restarts.

Carlini et al. (2019), sections 4.3 and 5.4: an unbounded attacker reaches 0 %, and an attack that has not converged says how
long somebody waited, not how robust the model is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from torch import Tensor

from awnet.evaluation.metrics import accuracy, paired_difference
from awnet.evaluation.rigour.check import Part, Trial, check, percent
from awnet.evaluation.rigour.doubling import own_doubled, recorded_doubled

GRID = (0.25, 0.5, 1.0, 2.0, 4.0)  # of eps


@check("C4", "eps, steps and restarts")
def converged(trial: Trial) -> Iterator[Part]:
    """Along eps, at the largest eps, and with twice the steps and the runs, of the check's own attack and of the record's."""
    eps, all_of_it = trial.threat.eps, trial.unbounded
    radii = [factor * eps for factor in GRID if 0 < factor * eps < all_of_it / 2]
    found = {radius: _correct(trial, radius) for radius in (*radii, all_of_it / 2, all_of_it)}
    figures = {"images": float(len(trial.x)), "accuracy at eps 0, %": percent(trial.clean.correct)}
    figures |= {f"accuracy at eps {_text(trial, radius)}, %": percent(hits) for radius, hits in found.items()}
    steps = list({0.0: trial.clean.correct, **found}.items())
    rises = [(a, b) for (a, few), (b, many) in pairwise(steps) if paired_difference(many, few).low > 0]
    if rises:
        said = " and ".join(f"from eps {_text(trial, a)} to {_text(trial, b)}" for a, b in rises)
        yield Part("fail", f"Accuracy rises {said}, where the attacker may do more.", MASKED, figures)
    else:
        yield Part("pass", "Accuracy falls with eps.", "", figures)

    chance = 1 / trial.classes
    left, half = percent(found[all_of_it]), accuracy(found[all_of_it / 2])
    if left > 0:
        yield Part("fail", f"An attack that may change everything leaves {left:.0f} % of the images right.", MASKED)
    elif half.low > chance:
        text = (
            f"At half of the whole range, where every image can be made grey, {100 * half.value:.0f} % are still right."
        )
        yield Part("warn", text, MASKED)
    else:
        yield Part("pass", "An attack that may change everything leaves nothing.")
    yield from own_doubled(trial)
    yield from recorded_doubled(trial)


MASKED = "The gradient may be masked: add attacks without gradients, other losses, restarts, and look at C2 and C9."


def _correct(trial: Trial, radius: float) -> Tensor:
    return trial.run(trial.attack.within(replace(trial.threat, eps=radius))).correct & trial.clean.correct


def _text(trial: Trial, radius: float) -> str:
    return str(replace(trial.threat, eps=radius)).split(" ", 1)[1]
