"""C1: the same image gets the same answer, whenever it is asked about and whoever is in its batch.

Predictions that change with the batch are how claims of robustness fail in public: an attack meets one model and the
verdict another. Models that draw random numbers need attacks on the expectation (https://arxiv.org/abs/1802.00420).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from awnet.evaluation.kinds import kinds_within
from awnet.evaluation.rigour.check import Part, Trial, check, percent
from awnet.noise import permutation
from awnet.types import Images

MOST = 50  # images
TOLERANCE = 1e-3  # of the largest logit; rounding stays far below
SIZES = (1, 7)


@check("C1", "batch independence")
def independent(trial: Trial) -> Iterator[Part]:
    """Asked twice; alone, in sevens, shuffled."""
    x = trial.x[:MOST]
    size = max(len(x), 2)
    whole = trial.logits(x, size)
    if not whole.isfinite().all():
        share = percent(~whole.isfinite().all(1))
        figures = {"images with logits that are no number, %": share}
        yield Part("fail", f"The model answers {share:.0f} % of the images with NaN or infinity.", NAN, figures)
        return
    scale = float(whole.abs().max()) or 1.0

    def change(other: Tensor) -> float:
        return float((other - whole).abs().max()) / scale

    again = change(trial.logits(x, size))
    figures = {"images": float(len(x)), "change when asked again, of the largest logit": again}
    if again > TOLERANCE:
        said = "The model draws random numbers: asked twice, it gives different answers."
        averaged = trial.record is not None and any(
            "EOT" in kinds_within(r.settings) for r in trial.record.attacks.values()
        )
        yield Part("warn" if averaged else "fail", said, "" if averaged else EOT, figures)
        return
    changes = {f"in batches of {few}": _sized(trial, x, few) for few in SIZES}
    order = permutation(trial.seed, len(x))
    changes["shuffled"] = trial.logits(x[order], size)[order.argsort()]
    for where, other in changes.items():
        if other is None:
            yield Part("warn", f"The model raises {where}.", "Attack it in full batches, as the engine does anyway.")
        else:
            figures[f"change {where}"] = change(other)
            if not figures[f"change {where}"] <= TOLERANCE:
                flips = percent(other.argmax(1) != whole.argmax(1))
                text = (
                    f"Asked {where}, the model gives other answers, and other classes to {flips:.0f} % of the images."
                )
                yield Part("fail", text, NEIGHBOURS)
    if (low := _rounded(trial, x)) is not None:
        figures["same class in bfloat16, %"] = percent(low == whole.argmax(1))
    yield Part(
        "pass", "Each image gets the same answer whenever it is asked about, alone or in any batch.", "", figures
    )


NAN = "Find where it comes from (a division, a logarithm, weights): no attack and no verdict means anything before."
EOT = "Attack its expectation: --attacks aa-rand, or EOT around an attack by gradients."
NEIGHBOURS = (
    "Judge each image by itself: batch norms by their running statistics, nothing that is computed over the batch, no state "
    "that is kept between calls."
)


def _sized(trial: Trial, x: Images, size: int) -> Tensor | None:
    """The logits in batches of this size; None where the model raises or loses a dimension."""
    try:
        found = trial.logits(x, size)
    except (RuntimeError, ValueError, IndexError, TypeError):
        return None
    return found if found.shape[0] == len(x) and found.ndim == 2 else None


def _rounded(trial: Trial, x: Images) -> Tensor | None:
    """The classes where layers compute in bfloat16; None where the model cannot."""
    try:
        with torch.autocast(trial.device.type, dtype=torch.bfloat16):
            return trial.logits(x, max(len(x), 2)).argmax(1)
    except (RuntimeError, TypeError):
        return None
