"""C9: signs that an attack fails for reasons of its own (Pintor et al., 2022, https://arxiv.org/abs/2106.09947).

PGD is followed step by step on the images that withstand it: does its loss rise, does it have a gradient at every step, does it
come by an adversarial image and end elsewhere? And from outside: do images made on a relative of the model break more, and
does an attack without a bound reach everything?
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from awnet.attacks.attack import evaluate
from awnet.evaluation.metrics import accuracy, paired_difference
from awnet.evaluation.rigour.check import Part, Trial, check, filled, percent
from awnet.noise import Noise

OFTEN = 10.0  # % of the images from which on a sign counts
IDLE = 0.05  # a share of images whose loss never rises, from which on it is no accident


class Path(NamedTuple):
    """What PGD met: of each image and step the loss, the largest slope, and whether the image was misclassified.

    The last column is of where it ended, and has no slope.
    """

    loss: Tensor  # (n, steps + 1)
    slope: Tensor  # (n, steps)
    wrong: Tensor  # (n, steps + 1)


@check("C9", "signs of failing attacks")
def failing(trial: Trial) -> Iterator[Part]:
    """Silent success, a loss that does not rise, no gradient, transfer, the unbounded attack."""
    path = _followed(trial)
    right = trial.clean.correct
    stands = right & ~path.wrong[:, -1]
    silent = percent((path.wrong[:, :-1].any(1) & stands)[right])
    best = path.loss[:, 1:].amax(1)
    idle = (best <= path.loss[:, 0])[stands]
    still, halting = percent(idle), percent((path.slope[stands] <= 0).flatten())
    falls = percent((path.loss[:, 1:] < path.loss[:, :-1])[stands].flatten())
    figures = {
        "images that withstand": float(stands.sum()),
        "adversarial on the way and not in the end, %": silent,
        "withstand, and the loss never rises, %": still,
        "steps without a gradient, %": halting,
        "steps on which the loss falls, %": falls,
    }
    unbounded = trial.run(trial.attack.within(replace(trial.threat, eps=trial.unbounded)))
    figures["right under an unbounded attack, %"] = percent(unbounded.correct & right)
    often_idle = bool(len(idle)) and accuracy(idle).low > IDLE
    signs = [
        (often_idle, f"on {still:.0f} % of the images that withstand, the loss never rises", CLIMB),
        (halting > OFTEN, f"{halting:.0f} % of the steps have no gradient", GRADIENT),
        (silent > OFTEN, f"{silent:.0f} % of the images are adversarial on the way and not in the end", SILENT),
        (
            figures["right under an unbounded attack, %"] > 0,
            "an attack without a bound does not break everything",
            GRADIENT,
        ),
    ]
    if trial.forms:
        moved, share = _transfers(trial)
        figures["made with the decision's gradient cut, break more, %"] = share
        signs.append((moved, f"images made with the decision's gradient cut break {share:.0f} % more", TRANSFER))
    found = [(text, advice) for there, text, advice in signs if there]
    if found:
        said = "; ".join(text for text, _ in found)
        yield Part(
            "fail", f"{said[:1].upper()}{said[1:]}.", " ".join(dict.fromkeys(advice for _, advice in found)), figures
        )
    elif falls > 50:
        text = f"PGD's loss falls on {falls:.0f} % of its steps: they are too long, or the surface is rough."
        yield Part("warn", text, "Take smaller steps, or Auto-PGD, which does so by itself.", figures)
    else:
        yield Part("pass", "PGD climbs, keeps what it finds, and reaches everything once it has no bound.", "", figures)


CLIMB = "Where the loss never rises, the gradient points elsewhere: attack the margin, a smoothed model, or without gradients."
GRADIENT = "Look for what cuts the gradient (C2); attack without it (Square), or through a differentiable stand-in."
SILENT = "Count the best image of the path, not the last (stop_on_success, or Auto-PGD)."
TRANSFER = "Begin the attack from such images (--attacks adaptive)."


def _followed(trial: Trial) -> Path:
    """PGD, one query after the other."""
    attack = trial.pgd
    parts = []
    for rows in filled(len(trial.x), trial.engine.batch_size):
        x, y = (t.to(trial.device) for t in trial.examples.batch(rows))
        noise = Noise(trial.seed, trial.examples.ids[rows].to(trial.device))
        state, steps = attack.start(x, y, noise), []
        for _ in range(attack.steps + 1):
            answer = evaluate(trial.model, attack.query(state))
            assert answer.loss is not None and answer.gradient is not None
            slope = answer.gradient.abs().flatten(1).amax(1)
            steps.append(
                torch.stack([answer.loss.float(), slope.float(), (answer.logits.argmax(1) != y).float()]).cpu()
            )
            with torch.no_grad():
                state = attack.update(state, answer, noise)
        parts.append(torch.stack(steps, dim=2))  # (3, b, steps + 1)
    loss, slope, wrong = torch.cat(parts, dim=1)[:, : len(trial.x)]
    return Path(loss, slope[:, :-1], wrong.bool())


def _transfers(trial: Trial) -> tuple[bool, float]:
    """Whether images made with the decision held still break more than those made on the model as it is, and how many."""
    if "detached" not in trial.forms:
        return False, 0.0
    plain = trial.run(trial.attack).correct & trial.clean.correct
    made = trial.run(trial.attack, trial.forms["detached"]).x_adv
    left = plain & trial.right(made)
    return paired_difference(plain, left).low > 0, percent(plain & ~left)
