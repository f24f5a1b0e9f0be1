"""C3: pixels lie in [0, 1], the model takes them so and gives logits, and eps is what it says.

The confusions that users of every attack library report most: images normalised before the attack, softmax at the end, 0.031
for 8/255, a budget that is left when images are cast or saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import torch

from awnet.attacks.pgd import PGD
from awnet.evaluation.conventions import are_probabilities, are_separate_probabilities, better_convention
from awnet.evaluation.rigour.check import Part, Trial, check, percent
from awnet.evaluation.rigour.recorded import matched
from awnet.threat_model import Linf
from awnet.types import Images

NEARLY = 0.15  # of a 255th
CHUNK = 500  # images that are measured together


@check("C3", "range of inputs and outputs")
def in_range(trial: Trial) -> Iterator[Part]:
    """Pixels, conventions, outputs, eps."""
    x = trial.x
    beyond = max(0.0, -float(x.min()), float(x.max()) - 1)
    if beyond > 0:
        yield Part(
            "fail", f"The images leave [0, 1] by {beyond:.2g}.", "Hand images over in [0, 1].", {"beyond": beyond}
        )
        return
    better = better_convention(trial.right, x)
    figures = {"accuracy in [0, 1], %": percent(trial.clean.correct)}
    if better:
        figures["accuracy in another range, %"] = 100 * better.accuracy
        yield Part(
            "fail",
            better.sentence,
            "Normalise inside the model, as its first layer, so that eps means pixels.",
            figures,
        )
    else:
        yield Part("pass", "The model takes pixels in [0, 1].", "", figures)
    if are_separate_probabilities(trial.logits(x)):
        yield Part(
            "warn",
            "The outputs lie in [0, 1], as a sigmoid's do: losses take them for logits, and gradients vanish where it is sure.",
            "Leave the sigmoid out, or return its log-odds (awnet.evaluation.conventions.LogOdds).",
        )
    if are_probabilities(trial.logits(x)):
        yield Part(
            "warn",
            "The outputs are probabilities: losses take them for logits, and their gradients vanish where the model is sure.",
            "Return logits, or the logarithm of the probabilities (awnet.evaluation.conventions.LogProbabilities).",
        )
    yield from _eps(trial)
    yield _cast(trial)


def _eps(trial: Trial) -> Iterator[Part]:
    """The radius as papers write it."""
    if isinstance(trial.threat, Linf):
        in_255ths = 255 * trial.threat.eps
        off = abs(in_255ths - round(in_255ths))
        if in_255ths > 0.5 and 1e-4 < off < NEARLY:
            text = f"eps is {in_255ths:.4g}/255, and numbers of the literature are at {round(in_255ths)}/255."
            yield Part("warn", text, f"Say --eps {round(in_255ths)}/255 to compare with them.")


def _cast(trial: Trial) -> Part:
    """The budget, measured again in float64 on what an attack and a record hand over; and after saving as 8-bit images."""
    step = trial.run(PGD(threat=trial.threat, steps=1, step_size=1.0, initial="zero"))
    radius = trial.threat.eps

    def beyond(x: Images, x_adv: Images) -> float:
        distance = trial.threat.distance(x.double(), x_adv.double())
        return float(distance.nan_to_num(inf).max()) - radius  # of a pixel that is no number too

    over, inside, count = beyond(trial.x, step.x_adv), _inside(step.x_adv), 0
    for x, x_adv in _handed_over(trial):
        over, inside, count = max(over, beyond(x, x_adv)), inside and _inside(x_adv), count + len(x)
    saved = (255 * step.x_adv).round() / 255
    figures = {
        "attacked images of the record measured": float(count),
        "beyond eps in float64": max(over, 0.0),
        "beyond eps once saved in 8 bits": max(beyond(trial.x, saved), 0.0),
        "accuracy after one step, %": percent(step.correct),
        "the same once saved in 8 bits, %": percent(trial.right(saved)),
    }
    theirs = f", {count} of the record" if trial.record else ""
    measured = f"measured again in float64 ({len(trial.x)} of one step here{theirs})"
    if over <= trial.threat.rounding(trial.x[0].numel()) + torch.finfo(torch.float32).eps and inside:
        return Part("pass", f"Attacked images stay within eps and [0, 1], {measured}.", "", figures)
    text = f"Attacked images leave the threat model by {over:.2g}, {measured}."
    return Part("fail", text, "The attack or what was saved of it has a bug: its successes do not count.", figures)


def _inside(x_adv: Images) -> bool:
    return bool(((x_adv >= 0) & (x_adv <= 1)).all())


def _handed_over(trial: Trial) -> Iterator[tuple[Images, Images]]:
    """Images, and what the record's attacks made of them: all that were saved, or else the few that it shows."""
    if trial.saved and trial.whole:
        found = matched(trial.saved.ids, trial.whole.ids.cpu())
        for rows, places in zip(*(t.split(CHUNK) for t in found), strict=True):
            yield trial.whole.batch(places)[0].cpu(), trial.saved.x_adv[rows]
    elif trial.record and trial.record.samples:
        yield trial.record.samples.x, trial.record.samples.x_adv
