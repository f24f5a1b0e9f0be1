"""What a user hands to an attack, checked before anything is computed: one sentence for each confusion that is common."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from awnet.attacks.frozen import frozen_for_attack
from awnet.errors import Mistake, unknown
from awnet.models.model import device_of
from awnet.threat_model import L1, L2, ROUNDING, Linf, ThreatModel
from awnet.types import Hits, Images, Labels, Logits

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


def checked(x: Tensor, y: Tensor) -> Batch:
    """The batch as the engine takes it. What leaves [0, 1] by rounding is put back.

    Raises:
        Mistake: where types, shapes or ranges do not fit.
    """
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        got = f"{type(x).__name__} and {type(y).__name__}"
        raise Mistake(
            f"expected images and labels as tensors, got {got}; torch.as_tensor makes one of an array or a list"
        )
    if x.ndim != 4 or x.dtype != torch.float32:
        raise Mistake(f"expected images of shape (b, c, h, w) in float32, got {tuple(x.shape)} in {_type(x)}")
    if y.shape != x.shape[:1] or y.is_floating_point() or y.dtype == torch.bool:
        raise Mistake(f"expected {len(x)} labels as whole numbers, got shape {tuple(y.shape)} in {_type(y)}")
    x, y = x.detach(), y.detach().long()
    if len(x):
        check_range(x)
    return Batch(x.clamp(0, 1), y)


def check_fits(model: nn.Module, x: Images, y: Tensor) -> None:
    """Refuse a model that does not answer these images with logits, or labels, of these or more, that it has no class for.

    Raises:
        Mistake: as said; or it is no module, or answers all of these images with NaN or infinity.
    """
    check_module(model)
    if not len(x):
        return
    logits = answers_of(model, x)
    if not finite(logits).any():
        check_answers(finite(logits))
    check_labels(y, logits.shape[1])


def check_module(model: object) -> None:
    """Refuse what is no module.

    Raises:
        Mistake: it is none.
    """
    if not isinstance(model, nn.Module):
        raise Mistake(
            f"expected the model as a torch.nn.Module, whose modes can be put back, got {type(model).__name__}; hand over the "
            "network itself, or a module whose forward calls it"
        )


def answers_of(model: nn.Module, x: Images) -> Logits:
    """What a model says of some images, on whatever device it is: logits of shape (b, classes).

    Raises:
        Mistake: it cannot be asked about such images, does not answer one row of logits for each, or knows
            fewer than two classes, of which none could be mistaken for another.
    """
    try:
        with torch.no_grad(), frozen_for_attack(model):
            logits = model(x.to(device_of(model, x.device)))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else "RuntimeError"
        raise Mistake(f"the model cannot be asked about images of shape {tuple(x.shape[1:])}: {said}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise Mistake(f"expected a model that returns one row of logits an image, got {shape} for {len(x)}")
    if logits.shape[1] < 2:
        raise Mistake(
            f"expected a model with two or more classes, got {logits.shape[1]}: it can never be wrong; of one logit z for yes "
            "or no, make the two logits (0, z)"
        )
    return logits


def check_labels(y: Labels, classes: int) -> None:
    """Refuse labels that the model has no class for.

    Raises:
        Mistake: there are some.
    """
    if not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise Mistake(
            f"labels must be from 0 to {classes - 1}, as the model has {classes} classes, got {int(y.min())} to {int(y.max())}"
        )


def check_ids(ids: Tensor, n: int) -> None:
    """Refuse ids that do not name each of n examples.

    Raises:
        Mistake: they do not.
    """
    if ids.shape != (n,) or ids.is_floating_point() or ids.dtype == torch.bool:
        raise Mistake(f"expected {n} ids as whole numbers, one an image, got shape {tuple(ids.shape)} in {_type(ids)}")


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


def finite(logits: Logits) -> Hits:
    """Which rows are numbers throughout; the argmax of any other may be the place of a NaN, which is no class."""
    return logits.isfinite().all(1)
