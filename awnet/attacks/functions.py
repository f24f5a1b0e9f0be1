"""The attacks as plain functions: images and labels in, adversarial images out, nothing else changed.

    from awnet.attacks.functions import apgd
    x_adv = apgd(model, x, y, eps=8 / 255)

For any loop of anybody's. The model maps [0, 1] images to logits and is evaluated in eval mode, whatever mode it is in, and
left as it was; x_adv is on the device of x, float32, in [0, 1] and within eps. The results are those of `Engine.run` with the
attack of the same settings: functions of the seed and of each image's place in x.

In all of them `eps` is the radius in the norm "Linf", "L2" or "L1", and a loss is "ce", "dlr" or "margin".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from awnet.attacks.adaptive import adaptive_suite
from awnet.attacks.apgd import APGD
from awnet.attacks.attack import Attack
from awnet.attacks.auto_attack import auto_attack as auto_attack_suite
from awnet.attacks.engine import Engine, TensorExamples
from awnet.attacks.fab import FAB
from awnet.attacks.fgsm import fgsm as fgsm_of
from awnet.attacks.inputs import check_module, checked, threat_model
from awnet.attacks.pgd import PGD
from awnet.attacks.square import Square
from awnet.attacks.suite import Suite
from awnet.errors import unknown
from awnet.losses import DLR, CrossEntropy, Loss, Margin, TargetedDLR, TargetedMargin
from awnet.types import Images, Labels

LARGEST_BATCH = 256  # where nobody says

LOSSES: dict[str, Loss] = {"ce": CrossEntropy(), "dlr": DLR(), "margin": Margin()}
TARGETED: dict[str, Loss] = {"dlr": TargetedDLR(), "margin": TargetedMargin()}


def run(
    attack: Attack | Suite, model: nn.Module, x: Tensor, y: Tensor, *, seed: int = 0, batch_size: int | None = None
) -> Images:
    """Any attack, or suite of attacks, on images and labels.

    Args:
        attack: a value such as `PGD(threat=Linf(8 / 255))`.
        model: maps [0, 1] images to logits.
        x: images in [0, 1], shape (b, c, h, w), float32.
        y: labels, shape (b,).
        seed: of its random numbers.
        batch_size: how many images the model sees at a time; by default all of them, up to 256. Another one changes
            results by rounding only.

    Raises:
        Mistake: where the images, labels or model are not what is expected.
    """
    check_module(model)
    batch: tuple[Images, Labels] = checked(x, y)
    if len(x) == 0:
        return batch[0].clone()
    engine = Engine(batch_size=min(len(x), LARGEST_BATCH) if batch_size is None else batch_size)
    outcome = engine.run(attack, model, TensorExamples(*batch, torch.arange(len(x))), seed=seed)
    return outcome.x_adv.to(x.device)


def fgsm(
    model: nn.Module, x: Tensor, y: Tensor, *, eps: float = 8 / 255, norm: str = "Linf", batch_size: int | None = None
) -> Images:
    """One step of size eps on the cross-entropy (`awnet.attacks.fgsm`)."""
    return run(fgsm_of(threat_model(norm, eps)), model, x, y, batch_size=batch_size)


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 8 / 255,
    norm: str = "Linf",
    steps: int = 20,
    step_size: float = 1 / 4,
    loss: str = "ce",
    initial: Literal["zero", "uniform", "gaussian"] = "uniform",
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """Projected gradient ascent, to its last step; `step_size` is a fraction of eps (`awnet.attacks.pgd`)."""
    ball = threat_model(norm, eps)
    attack = PGD(threat=ball, loss=_loss(loss), steps=steps, step_size=step_size, initial=initial)
    return run(attack, model, x, y, seed=seed, batch_size=batch_size)


def cw(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 8 / 255,
    norm: str = "Linf",
    steps: int = 30,
    step_size: float = 1 / 4,
    kappa: float = 50.0,
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """The margin of Carlini and Wagner, raised by PGD until it exceeds kappa (`awnet.attacks.cw`)."""
    attack = PGD(threat=threat_model(norm, eps), loss=Margin(kappa=kappa), steps=steps, step_size=step_size)
    return run(attack, model, x, y, seed=seed, batch_size=batch_size)


def apgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 8 / 255,
    norm: str = "Linf",
    steps: int = 100,
    loss: str = "ce",
    targets: int = 0,
    restarts: int = 1,
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """Auto-PGD (`awnet.attacks.apgd`); with `targets`, towards each of the likeliest other classes, on "dlr" or "margin"."""
    attack = APGD(
        threat=threat_model(norm, eps),
        loss=_loss(loss, targeted=targets > 0),
        targets=targets,
        restarts=restarts,
        steps=steps,
    )
    return run(attack, model, x, y, seed=seed, batch_size=batch_size)


def fab(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 8 / 255,
    norm: str = "Linf",
    steps: int = 100,
    targets: int = 9,
    restarts: int = 1,
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """The nearest misclassified image that all steps find, where there is one within eps, otherwise x (`awnet.attacks.fab`)."""
    attack = FAB(threat=threat_model(norm, eps), targets=targets, restarts=restarts, steps=steps, stop_on_success=False)
    return run(attack, model, x, y, seed=seed, batch_size=batch_size)


def square(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 8 / 255,
    norm: str = "Linf",
    steps: int = 5000,
    p: float = 0.8,
    rescale: bool = False,
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """Random search that asks for logits only (`awnet.attacks.square`)."""
    attack = Square(threat=threat_model(norm, eps), steps=steps, p=p, rescale=rescale)
    return run(attack, model, x, y, seed=seed, batch_size=batch_size)


def auto_attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 8 / 255,
    norm: str = "Linf",
    version: str | Sequence[str] = "standard",
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """AutoAttack: "standard", "plus", "rand", or the names of attacks (`awnet.attacks.auto_attack`).

    An image that is misclassified as it is comes back as it is.
    """
    suite = auto_attack_suite(threat_model(norm, eps), version)
    return run(suite, model, x, y, seed=seed, batch_size=batch_size)


def adaptive(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 8 / 255,
    norm: str = "Linf",
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """Every attack on models that route (`awnet.attacks.adaptive`), each on the images that still stand."""
    return run(adaptive_suite(threat_model(norm, eps)), model, x, y, seed=seed, batch_size=batch_size)


def _loss(name: str, *, targeted: bool = False) -> Loss:
    known = TARGETED if targeted else LOSSES
    if name not in known:
        raise unknown("targeted loss" if targeted else "loss", name, known)
    return known[name]
