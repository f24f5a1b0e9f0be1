"""A look at a model and its images before hours of attacks: what cannot work is refused, what is odd is said.

What a classifier has to be is little: [0, 1] images of shape (b, c, h, w) to logits of shape (b, classes), on one device, with
finite numbers and a gradient. This file says in one sentence which of it a user's model is not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from awnet.attacks.frozen import frozen_for_attack
from awnet.attacks.inputs import check_answers, finite
from awnet.attacks.sweep import Examples, TensorExamples
from awnet.errors import Mistake
from awnet.evaluation.conventions import (
    LogOdds,
    LogProbabilities,
    are_probabilities,
    are_separate_probabilities,
    better_convention,
)
from awnet.models.model import Deciding, Detecting
from awnet.noise import permutation
from awnet.types import Images

FEW, MOST = 8, 200  # images for what one batch shows, and for accuracies
ROUNDING = 1e-6  # by which pixels may leave [0, 1] and are put back
RANDOM = "the model draws random numbers"  # so begins the remark on such a model
CHANGE = 1e-3  # of the largest logit, between two answers of a model that draws no random numbers


class Cleared(NamedTuple):
    """What may be attacked.

    Attributes:
        model: the one that was given, or one of its logarithm or log-odds where it returns probabilities.
        remarks: a sentence each; () where nothing is odd.
    """

    model: nn.Module
    remarks: tuple[str, ...] = ()


def preflight(
    model: nn.Module, examples: Examples, *, classes: int, trust_range: bool = False, gradients: bool = True
) -> Cleared:
    """Look at a model and the images that it is to be judged on.

    Args:
        model: left as it was.
        examples: images and labels.
        classes: how many the labels tell apart.
        trust_range: whether to attack a model that is right much more often on images in another range.
        gradients: whether attacks will ask for gradients.

    Raises:
        Mistake: there is no image; the model has no place, raises, returns anything but finite logits of these classes, has
            no gradient, or expects another range of pixels.
    """
    if len(examples) == 0:
        raise Mistake("there are no images to attack; choose another split or another set")
    device = _place(model)
    places = permutation(0, len(examples))[:MOST].sort().values
    x, y = (t.to(device) for t in examples.batch(places))
    remarks: list[str] = []
    with frozen_for_attack(model):
        few = x[torch.arange(FEW) % len(x)]
        logits = _asked(model, few)
        _check_logits(logits, len(few), classes)
        if gradients:
            _check_gradient(model, few)
        remarks += _random(model, few, logits) or _alone(model, few, logits)
        together, each = are_probabilities(logits.float()), are_separate_probabilities(logits.float())
        if together or each:
            what = "the outputs are probabilities" if together else "the outputs lie in [0, 1], as a sigmoid's do"
            if isinstance(model, (Detecting, Deciding)):
                remarks.append(f"{what}, which losses take for logits: attacks on it are held up")
            else:
                instead = "their logarithm is" if together else "their log-odds are"
                remarks.append(f"{what}: {instead} attacked, which is as good as logits")
                model = LogProbabilities(model) if together else LogOdds(model)

        def right(images: Images) -> Tensor:
            logits = _asked(model, images)
            return (logits.argmax(1) == y) & finite(logits)

        if isinstance(model, Detecting) and not isinstance(model, Deciding):
            remarks.append(UNSTEERED)

        better = None if trust_range else better_convention(right, x)
        if better:
            raise Mistake(
                f"{better.sentence[:1].lower()}{better.sentence[1:]} Let the model do it, by a first layer, so that eps means "
                "pixels, or say --trust-range (trust_range=True) if [0, 1] is meant"
            )
    return Cleared(model, tuple(remarks))


UNSTEERED = (
    "the model tells attacked images (detect) but offers no decision to steer (awnet.models.model.Deciding): to the adaptive "
    "attacks it is any classifier"
)


def tensor_examples(x: Tensor, y: Tensor, *, classes: int, ids: Tensor | None = None) -> TensorExamples:
    """Images and labels of a user, checked; pixels that leave [0, 1] by rounding are put back.

    Args:
        x: floating, shape (n, c, h, w), in [0, 1].
        y: whole numbers from 0 to classes - 1, shape (n,).
        classes: how many there are.
        ids: a number for each example that its random numbers follow; by default its place.

    Raises:
        Mistake: other shapes or types, no example, pixels or labels out of range.
    """
    if x.ndim != 4 or not x.is_floating_point():
        hint = "; divide uint8 images by 255" if x.dtype == torch.uint8 else ""
        raise Mistake(
            f"images are floating numbers of shape (n, c, h, w), got {x.dtype} of shape {tuple(x.shape)}{hint}"
        )
    if y.shape != x.shape[:1] or y.is_floating_point() or y.dtype == torch.bool:
        raise Mistake(f"labels are {len(x)} whole numbers, one an image, got {y.dtype} of shape {tuple(y.shape)}")
    if len(x) == 0:
        raise Mistake("there are no images to attack")
    low, high = float(x.min()), float(x.max())
    if not -ROUNDING <= low <= high <= 1 + ROUNDING:  # also refuses NaN
        raise Mistake(
            f"images lie in [0, 1], got {low:.4g} to {high:.4g}; undo the normalisation and let the model do it, so that eps "
            "means pixels"
        )
    if not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise Mistake(f"labels go from 0 to {classes - 1}, got {int(y.min())} to {int(y.max())}")
    return TensorExamples(x.float().clamp(0, 1), y.long(), torch.arange(len(x)) if ids is None else ids)


def _place(model: nn.Module) -> torch.device:
    """The one device that a model is on."""
    places = {t.device for t in (*model.parameters(), *model.buffers())}
    if len(places) > 1 or torch.device("meta") in places:
        said = " and ".join(sorted(map(str, places)))
        raise Mistake(f"the model's tensors lie on {said}; expected one device, as model.to(device) makes it")
    return places.pop() if places else torch.device("cpu")


def _asked(model: nn.Module, x: Images) -> Any:
    """What the model returns, whatever it is."""
    try:
        with torch.no_grad():
            return model(x.clone())
    except Mistake:
        raise
    except Exception as error:  # a user's code can raise anything
        text = f"the model raises {type(error).__name__} on images of shape {tuple(x.shape)} on {x.device}: {_first(error)}"
        hint = (
            "; is every tensor of it on this device (a buffer, not a plain attribute)?"
            if "device" in str(error)
            else ""
        )
        raise Mistake(text + hint) from None


def _first(error: Exception) -> str:
    return (str(error).strip() or "it says no more").splitlines()[0]


def _check_logits(logits: Any, n: int, classes: int) -> None:
    if not isinstance(logits, Tensor):
        raise Mistake(
            f"the model returns a {type(logits).__name__}, expected a tensor of logits; wrap it so that it does"
        )
    if logits.ndim != 2 or len(logits) != n or not logits.is_floating_point():
        raise Mistake(
            f"the model returns {logits.dtype} of shape {tuple(logits.shape)} for {n} images, expected logits of shape "
            f"({n}, {classes})"
        )
    if logits.shape[1] != classes:
        raise Mistake(f"the model has {logits.shape[1]} classes, the images {classes}; they must be the same")
    check_answers(finite(logits))


def _check_gradient(model: nn.Module, x: Images) -> None:
    """Refuse a model through which nothing can be differentiated, or not to numbers; that a gradient is 0 is for C2 to say."""
    try:
        with torch.enable_grad():
            at = x.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(model(at.clone()).sum(), at, allow_unused=True)
    except RuntimeError as error:
        raise Mistake(
            f"the logits have no gradient with respect to the image ({_first(error)}); make forward differentiable (no "
            "torch.no_grad, no detach), or attack with square alone"
        ) from None
    if gradient is not None and not gradient.isfinite().any():  # where some are, the engine says how many are not
        raise Mistake(
            "the logits are numbers and their gradient with respect to the image is not (NaN or infinity), so that no attack "
            "could climb and the model would pass for robust; look for a square root, a logarithm or a division in the "
            "backward pass, or attack with square alone"
        )


def _random(model: nn.Module, x: Images, logits: Tensor) -> list[str]:
    if differ(_asked(model, x), logits):
        return [
            f"{RANDOM}: its accuracies change from run to run, and attacks on single draws are weak; use "
            "--attacks aa-rand (EOT)"
        ]
    return []


def _alone(model: nn.Module, x: Images, logits: Tensor) -> list[str]:
    """What a batch of one shows."""
    try:
        with torch.no_grad():
            one = model(x[:1].clone())
    except Exception as error:  # a user's code can raise anything
        return [f"the model raises {type(error).__name__} on a batch of one: it is asked in full batches only"]
    if not isinstance(one, Tensor) or one.shape != logits[:1].shape:
        return ["the model returns another shape for a batch of one: it is asked in full batches only"]
    if differ(one, logits[:1]):
        return [
            "the model's answer to an image depends on the others of its batch: accuracies mean little; see --rigour, C1"
        ]
    return []


def differ(a: Tensor, b: Tensor) -> bool:
    """Whether two answers to the same images differ by more than rounding."""
    return not bool(((a - b).abs().max() <= CHANGE * b.abs().max().clamp(min=1e-30)).item())
