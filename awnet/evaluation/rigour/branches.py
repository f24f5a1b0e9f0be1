"""C7: what each frozen branch of a model that decides is worth by itself, and that the whole is not better than its parts.

An attacker who steers the decision reaches the weakest branch. If the whole withstands more than its most robust branch, or
falls to images made for a frozen form that the attack on the whole does not find, then the attack is held up by the decision
(Croce et al., 2022, https://arxiv.org/abs/2202.13711, on defences that change at test time).

Where filters are scaled image by image, the scales (omega) are held still too: at their mean over the clean images, at that
over the attacked ones, at the clean mean dealt out anew among each layer's filters, and at one, the decision being as ever.
Images made for such a form that break the whole show that the attack on the whole was held up by the scales. If there are none
and the whole withstands more than every such form all the same, either the scales are of use or every attack here was misled by
them: nobody can tell the two apart from outside, so that is a warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from awnet.attacks.adaptive.joint import joint
from awnet.attacks.adaptive.steer import Side
from awnet.attacks.attack import Attack
from awnet.evaluation.kinds import knows_the_router
from awnet.evaluation.metrics import paired_difference, worst_case
from awnet.evaluation.modulation import AVERAGED, signals
from awnet.evaluation.rigour.check import Part, Trial, check, filled, percent
from awnet.evaluation.rigour.forms import Held
from awnet.models.model import Deciding, Holding
from awnet.noise import permutation
from awnet.types import Hits, Images

SIDES: tuple[Side, ...] = ("clean", "adversarial")
UNSCALED = "unmodulated"  # where a model offers it as a frozen form: omega = 1, as it is held here
STILL = (UNSCALED, AVERAGED)  # forms that are held here too
DENIED = "detached"  # no branch: the whole, its decision denied to the gradient


class Row(NamedTuple):
    """A form under an attack of its own.

    Attributes:
        clean: the images that it gets right, shape (n,).
        attacked: those that it gets right, attacked or not.
        stands: those that the whole gets right, whichever of the two was attacked.
    """

    clean: Hits
    attacked: Hits
    stands: Hits


def steering(trial: Trial) -> dict[str, Attack]:
    """Short attacks that raise the class margin and push the decision, to one side and to the other."""
    short = {"steps": trial.steps, "then": trial.steps, "targets": 1}
    return {f"joint-{side}": replace(joint(trial.threat, side), **short) for side in SIDES}


@check("C7", "branch table")
def tabled(trial: Trial) -> Iterator[Part]:
    """Clean and robust accuracy of every frozen form, each under an attack of its own."""
    if not isinstance(trial.model, Deciding | Holding):
        yield Part("skipped", "The model decides nothing image by image: it has no branches.")
        return
    held = _held(trial)
    frozen = {name: form for name, form in trial.forms.items() if name not in STILL or not held}
    if not frozen and not held:
        yield Part("skipped", "The model has no frozen forms: there is nothing to compare it with.")
        return
    whole = trial.run(trial.attack).correct & trial.clean.correct
    rows = {name: _row(trial, form, whole) for name, form in (frozen | held).items()}
    broken = whole & ~worst_case(row.stands for row in rows.values())
    figures = {"the whole, clean, %": percent(trial.clean.correct), "the whole, attacked, %": percent(whole)}
    for name, row in rows.items():
        figures[f"{name}, clean, %"], figures[f"{name}, attacked, %"] = percent(row.clean), percent(row.attacked)
    figures["images of frozen forms that break the whole, %"] = percent(broken)
    parts = [_decision(trial, whole, {name: rows[name] for name in frozen})] if frozen else []
    parts += [_scales(whole, {name: rows[name] for name in held})] if held else []
    yield parts[0]._replace(figures=figures | parts[0].figures)
    yield from parts[1:]


def _row(trial: Trial, form: nn.Module, whole: Hits) -> Row:
    clean = trial.engine.predict(form, trial.examples).correct
    attacked = trial.run(trial.attack, form)
    return Row(clean, clean & attacked.correct, whole & trial.right(attacked.x_adv))


def _held(trial: Trial) -> dict[str, Held]:
    """The model with its scales held still; {} where it has none, or they cannot be held."""
    if not isinstance(trial.model, Holding):
        return {}
    clean = _means(trial, trial.x)
    if not clean:
        return {}
    means = {
        "omega at its clean mean": clean,
        "omega at its attacked mean": _means(trial, trial.run(trial.attack).x_adv),
        "omega dealt out anew": {name: mean[permutation(trial.seed, len(mean))] for name, mean in clean.items()},
        UNSCALED: {name: torch.ones_like(mean) for name, mean in clean.items()},
    }
    return {name: Held(trial.model, mean) for name, mean in means.items()}


def _means(trial: Trial, x: Images) -> dict[str, Tensor]:
    """Each filter's mean scale over the images, shape (filters,) for each layer."""
    size = trial.engine.batch_size
    found = signals(trial.model, x[torch.cat(filled(len(x), size))], size)
    return {name: omega[: len(x)].mean(0) for name, omega in found.items()}


def _decision(trial: Trial, whole: Hits, rows: Mapping[str, Row]) -> Part:
    """The whole against its branches, and against those who push the decision to either side."""
    steered = worst_case(trial.run(attack).correct & trial.clean.correct for attack in steering(trial).values())
    branches = {name: row for name, row in rows.items() if name != DENIED}
    said = [*_above(whole, branches, "its most robust branch"), *_fallen(whole, rows)]
    if paired_difference(whole, whole & steered).low > 0 and not _knows(trial):
        said.append(f"who steers the decision breaks {percent(whole & ~steered):.0f} points more than who does not")
    figures = {"steered, attacked, %": percent(steered)}
    if said:
        text = f"{_sentence(said)}: an attack on the whole is held up by the decision."
        return Part("fail", text, "Run --attacks adaptive, which starts from the frozen forms.", figures)
    floor = min(rows, key=lambda name: int(rows[name].attacked.sum()))
    least = f"whoever steers the decision to {floor} leaves {percent(rows[floor].attacked):.0f} %"
    return Part("pass", f"The whole is no better than its branches; {least}.", "", figures)


def _scales(whole: Hits, rows: Mapping[str, Row]) -> Part:
    """The whole against itself with its scales held still."""
    fallen = [*_fallen(whole, rows)]
    above = [*_above(whole, rows, "every form with its scales held still")]
    if fallen:
        text = f"{_sentence(fallen + above)}: an attack on the whole is held up by the scales of its filters."
        return Part("fail", text, "Go on from images made with the scales held still (--attacks adaptive has some).")
    if above:
        text = f"{_sentence(above)}: the scales of its filters are of use, or mislead every attack here."
        return Part("warn", text, LOOK)
    most = f"{percent(rows[best := _best(rows)].attacked):.0f} % ({best})"
    return Part("pass", f"With its scales held still it withstands no less: {most}.")


LOOK = "Add attacks without gradients (--attacks square rays) and from other networks (--surrogates)."


def _knows(trial: Trial) -> bool:
    """Whether the record has attacks that know the router."""
    attacks = trial.record.attacks if trial.record else {}
    return any(knows_the_router(name, result.settings) for name, result in attacks.items())


def _above(whole: Hits, rows: Mapping[str, Row], what: str) -> Iterator[str]:
    """Says so where the whole withstands more than the most robust of these forms."""
    if rows and paired_difference(whole, rows[best := _best(rows)].attacked).low > 0:
        yield f"the whole withstands more than {what} ({best}, {percent(rows[best].attacked):.0f} %)"


def _fallen(whole: Hits, rows: Mapping[str, Row]) -> Iterator[str]:
    """Says which form's images break the most of what the attack on the whole does not."""
    name = min(rows, key=lambda name: int(rows[name].stands.sum()))
    if paired_difference(whole, rows[name].stands).low > 0:
        yield f"images made for the form {name} break {percent(whole & ~rows[name].stands):.0f} points more of the whole"


def _best(rows: Mapping[str, Row]) -> str:
    """The most robust form."""
    return max(rows, key=lambda name: int(rows[name].attacked.sum()))


def _sentence(said: list[str]) -> str:
    text = "; ".join(said)
    return text[:1].upper() + text[1:]
