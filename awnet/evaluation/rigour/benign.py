"""C6: changes that nobody attacks with cost next to nothing: noise of the attack's size, JPEG, blur, brightness.

Carlini et al. (2019), section 4.9. A model that says whether an image was attacked must not say so of noise either: a
detector of noise is evaded by an attack that is smooth, and false alarms are paid for in clean accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from awnet.evaluation.benign import BENIGN
from awnet.evaluation.rigour.check import Part, Trial, check, filled, percent
from awnet.models.model import judge
from awnet.types import Images, PerExample

LOSES = 10.0  # points of accuracy to benign noise inside the ball, from which on it is said
ALARMS = 20.0  # points of false alarms more than on clean images


@check("C6", "benign changes")
def unharmed(trial: Trial) -> Iterator[Part]:
    """Accuracy and false alarms under each."""
    base = percent(trial.clean.correct)
    figures = {"images": float(len(trial.x)), "accuracy as they are, %": base}
    changed = benign(trial)
    accuracies = {name: percent(trial.right(x)) for name, x in changed.items()}
    figures |= {f"accuracy under {name}, %": value for name, value in accuracies.items()}
    noise = min(INSIDE, key=lambda name: accuracies[name])
    lost = base - accuracies[noise]
    if lost > LOSES:
        text = f"{noise} of size eps, which is no attack, takes {lost:.0f} points of accuracy."
        yield Part(
            "warn", text.capitalize(), "Report it beside attacks: what noise breaks says nothing of an attack.", figures
        )
    else:
        yield Part("pass", "Noise of the attack's size takes next to no accuracy.", "", figures)
    if not trial.clean.p_clean.isnan().any():
        yield _alarms(trial, changed)


INSIDE = ("uniform noise", "sign noise")


def benign(trial: Trial) -> dict[str, Images]:
    """The images after each harmless change."""
    return {name: change(trial.x, trial.threat, trial.noise.stream(6)) for name, change in BENIGN.items()}


def _alarms(trial: Trial, changed: dict[str, Images]) -> Part:
    """How often the model calls a benign image attacked."""
    base = percent(trial.clean.p_clean < 0.5)
    alarms = {name: percent(_p_clean(trial, x) < 0.5) for name, x in changed.items()}
    figures = {
        "false alarms as they are, %": base,
        **{f"false alarms under {name}, %": v for name, v in alarms.items()},
    }
    worst = max(alarms, key=lambda name: alarms[name])
    more = alarms[worst] - base
    if more <= ALARMS:
        return Part("pass", "The router takes no benign change for an attack.", "", figures)
    text = f"The router calls {alarms[worst]:.0f} % of the images attacked after {worst}, against {base:.0f} % as they are."
    advice = (
        "Train or calibrate the router with benign changes among its clean images, and attack it (--attacks adaptive)."
    )
    return Part("fail" if alarms[worst] > 50 else "warn", text, advice, figures)


@torch.no_grad()
def _p_clean(trial: Trial, x: Images) -> PerExample:
    parts = filled(len(x), trial.engine.batch_size)
    return torch.cat([judge(trial.model, x[rows].to(trial.device))[1].cpu() for rows in parts])[: len(x)]
