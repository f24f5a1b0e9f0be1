"""On any classifier: those that follow gradients, and those that do without (awnet/attacks/functions/__init__.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from awnet.attacks.apgd import APGD
from awnet.attacks.auto_attack import auto_attack as auto_attack_suite
from awnet.attacks.diversified import Diversified
from awnet.attacks.eot import EOT
from awnet.attacks.fab import FAB
from awnet.attacks.fgsm import fgsm as fgsm_of
from awnet.attacks.functions.beside import beside
from awnet.attacks.functions.run import run
from awnet.attacks.inputs import threat_model
from awnet.attacks.pgd import PGD
from awnet.attacks.rays import RayS
from awnet.attacks.registry import ATTACKS
from awnet.attacks.square import Square
from awnet.attacks.transfer import Transfer
from awnet.errors import Mistake, unknown
from awnet.losses import DLR, CrossEntropy, Loss, Margin, TargetedDLR, TargetedMargin, Unsure
from awnet.types import Images

LOSSES: dict[str, Loss] = {"ce": CrossEntropy(), "dlr": DLR(), "margin": Margin()}
TARGETED: dict[str, Loss] = {"dlr": TargetedDLR(), "margin": TargetedMargin()}


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


def deep_sloth(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 8 / 255,
    norm: str = "Linf",
    steps: int = 30,
    step_size: float = 0.002 / 0.03125,
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """DeepSloth on the one output: towards an even prediction, whatever y is (`awnet.attacks.deep_sloth`)."""
    ball = threat_model(norm, eps)
    attack = PGD(threat=ball, loss=Unsure(), steps=steps, step_size=step_size, initial="step")
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


def diversified(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 8 / 255,
    norm: str = "Linf",
    start_steps: int = 4,
    steps: int = 25,
    restarts: int = 36,
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """Short runs of Auto-PGD on the margin, each from a start of its own (`awnet.attacks.diversified`)."""
    attack = Diversified(threat=threat_model(norm, eps), start_steps=start_steps, steps=steps, restarts=restarts)
    return run(attack, model, x, y, seed=seed, batch_size=batch_size)


def eot(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 8 / 255,
    norm: str = "Linf",
    samples: int = 20,
    steps: int = 100,
    loss: str = "ce",
    restarts: int = 1,
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """Auto-PGD on a model that draws random numbers, each of its gradients a mean of `samples` draws (`awnet.attacks.eot`).

    What is drawn follows torch's global generator, and so does the result.
    """
    within = APGD(threat=threat_model(norm, eps), loss=_loss(loss), restarts=restarts, steps=steps)
    return run(EOT(attack=within, samples=samples), model, x, y, seed=seed, batch_size=batch_size)


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


def rays(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 8 / 255,
    norm: str = "Linf",
    steps: int = 10_000,
    batch_size: int | None = None,
) -> Images:
    """A search along rays that asks for the predicted class only (`awnet.attacks.rays`); without chance."""
    return run(RayS(threat=threat_model(norm, eps), steps=steps), model, x, y, batch_size=batch_size)


def transfer(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    surrogate: nn.Module | str,
    attack: str = "pgd-sat",
    eps: float = 8 / 255,
    norm: str = "Linf",
    seed: int = 0,
    batch_size: int | None = None,
) -> Images:
    """The adversarial images of another network, made without a look at this one (`awnet.attacks.transfer`).

    Args:
        model, x, y, eps, norm, seed, batch_size: as everywhere here.
        surrogate: the other network, left as it was; or the name of one, a checkpoint, `package.module:attribute` or
            `timm:NAME`.
        attack: the registered name of one by APGD or PGD that is run on the surrogate, such as pgd-sat, cw-inf or apgd-ce.

    Raises:
        Mistake: as `run` does; or the surrogate does not fit, or no such attack is known.
    """
    within = ATTACKS[attack](threat_model(norm, eps))
    if not isinstance(within, APGD | PGD):
        raise Mistake(
            f"images that transfer are made by one attack with gradients, such as pgd-sat or apgd-ce; got {attack}"
        )
    with beside(surrogate, "surrogate", model, x, y) as name:
        return run(Transfer(attack=within, surrogate=name), model, x, y, seed=seed, batch_size=batch_size)


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


def _loss(name: str, *, targeted: bool = False) -> Loss:
    known = TARGETED if targeted else LOSSES
    if name not in known:
        raise unknown("targeted loss" if targeted else "loss", name, known)
    return known[name]
