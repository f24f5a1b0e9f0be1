"""What a user hands to an attack, checked before anything is computed: one sentence for each confusion that is common."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from awnet.attacks.attack import finite, frozen_for_attack
from awnet.errors import Mistake, unknown
from awnet.models.model import device_of
from awnet.threat_model import L1, L2, ROUNDING, Linf, ThreatModel
from awnet.types import Hits, Images, Labels

NORMS: dict[str, Callable[[float], ThreatModel]] = {"Linf": Linf, "L2": L2, "L1": L1}


def threat_model(norm: str, eps: float) -> ThreatModel:
    """The ball of a norm by its name.

    Raises:
        Mistake: where there is no such norm, or eps is out of its range.
    """
    if norm not in NORMS:
        raise unknown("norm", norm, NORMS)
    return NORMS[norm](float(eps))


class Batch(NamedTuple):
    """Images in [0, 1], float32, and their labels, int64; detached from whatever made them."""

    x: Images
    y: Labels


def checked(model: nn.Module, x: Tensor, y: Tensor) -> Batch:
    """The batch as the engine takes it. What leaves [0, 1] by rounding is put back.

    The model is asked once, about at most two images, how many classes it has.

    Raises:
        Mistake: where shapes, types, ranges or labels do not fit, or the model answers with NaN or infinity.
    """
    if not isinstance(model, nn.Module):
        raise Mistake(
            f"expected the model as a torch.nn.Module, whose modes can be put back, got {type(model).__name__}; hand over the "
            "network itself, or a module whose forward calls it"
        )
    if x.ndim != 4 or x.dtype != torch.float32:
        raise Mistake(f"expected images of shape (b, c, h, w) in float32, got {tuple(x.shape)} in {_type(x)}")
    if y.shape != x.shape[:1] or y.is_floating_point() or y.dtype == torch.bool:
        raise Mistake(f"expected {len(x)} labels as whole numbers, got shape {tuple(y.shape)} in {_type(y)}")
    x, y = x.detach(), y.detach().long()
    if len(x) == 0:
        return Batch(x, y)
    check_range(x)
    device = device_of(model, x.device)
    with torch.no_grad(), frozen_for_attack(model):
        logits = model(x[:2].clamp(0, 1).to(device))
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != min(len(x), 2):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise Mistake(f"expected a model that returns one row of logits an image, got {shape} for {min(len(x), 2)}")
    check_answers(finite(logits))
    if not 0 <= int(y.min()) <= int(y.max()) < logits.shape[1]:
        raise Mistake(
            f"labels must be from 0 to {logits.shape[1] - 1}, as the model has {logits.shape[1]} classes, got "
            f"{int(y.min())} to {int(y.max())}"
        )
    return Batch(x.clamp(0, 1), y)


def check_range(x: Images) -> None:
    """Refuse images that leave [0, 1] by more than rounding: no image near them is inside it, so they would look robust.

    Raises:
        Mistake: they do, or have pixels that are no finite numbers.
    """
    if not x.isfinite().all():
        raise Mistake("the images have pixels that are no finite numbers")
    low, high = float(x.min()), float(x.max())
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise Mistake(
            f"images must be in [0, 1], got [{low:.4g}, {high:.4g}]; put the normalisation into the model, as its first "
            "layer, and hand over plain pixels"
        )


def check_answers(answered: Hits) -> None:
    """Refuse a model of which there is an image that it does not answer.

    Args:
        answered: which images it gives logits that are numbers (`finite`).

    Raises:
        Mistake: there is one; how many are, of how many.
    """
    if not answered.all():
        raise Mistake(
            f"the model answers {int((~answered).sum())} of {len(answered)} images with NaN or infinity; look for a division "
            "or a logarithm"
        )


def _type(t: Tensor) -> str:
    return str(t.dtype).removeprefix("torch.")
