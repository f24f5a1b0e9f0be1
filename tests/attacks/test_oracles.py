"""FGSM and PGD against independent implementations: Foolbox, and torchattacks and ART where they are installed.

All start from the image itself with the same absolute step; where a random start is drawn, no two libraries agree.
Foolbox (3.3) divides an L2 gradient by max(norm, 1e-12) and multiplies it by `abs_stepsize`; torchattacks divides by
norm + 1e-10; ART by the norm. We divide by the largest entry first, which costs the last bit. Foolbox and torchattacks
project and then clip to the box as we do; ART clips first, so it is compared away from the box.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from attacks.nets import lively, small_net
from awnet.attacks import PGD, fgsm
from awnet.attacks.attack import Attack
from awnet.threat_model import L2, Linf

foolbox = pytest.importorskip("foolbox")

STEPS = 10
EPS = [8 / 255, 0.28]


class Case(NamedTuple):
    model: nn.Module
    x: Tensor
    y: Tensor


@pytest.fixture
def case() -> Case:
    """A small network with 16 images, some pixels black or white."""
    x = (1.4 * torch.rand(16, 3, 8, 8) - 0.2).clamp(0, 1)
    return Case(lively(small_net(), x), x, torch.arange(16) % 10)


def pgd(threat: Linf | L2) -> PGD:
    return PGD(threat=threat, steps=STEPS, step_size=1 / 4, initial="zero")


def agree(attack: Attack, case: Case, theirs: Tensor) -> None:
    x_adv = attack(case.model, case.x, case.y)
    torch.testing.assert_close(x_adv, theirs, rtol=0, atol=1e-6)
    assert (x_adv - case.x).flatten(1).abs().amax(1).min() > 0


@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda eps: fgsm(Linf(eps)), lambda eps: foolbox.attacks.LinfFastGradientAttack()),
        (
            lambda eps: pgd(Linf(eps)),
            lambda eps: foolbox.attacks.LinfPGD(abs_stepsize=eps / 4, steps=STEPS, random_start=False),
        ),
        (lambda eps: fgsm(L2(eps)), lambda eps: foolbox.attacks.L2FastGradientAttack()),
        (
            lambda eps: pgd(L2(eps)),
            lambda eps: foolbox.attacks.L2PGD(abs_stepsize=eps / 4, steps=STEPS, random_start=False),
        ),
    ],
    ids=["fgsm", "pgd", "fgsm in L2", "pgd in L2"],
)
def test_agrees_with_foolbox(ours: Callable[[float], Attack], theirs: Callable, eps: float, case: Case):
    model = foolbox.PyTorchModel(case.model, bounds=(0, 1), device="cpu")
    x_adv, _, is_adv = theirs(eps)(model, case.x, case.y, epsilons=eps)
    agree(ours(eps), case, x_adv)
    with torch.no_grad():
        assert torch.equal(is_adv, case.model(ours(eps)(case.model, case.x, case.y)).argmax(1) != case.y)


@pytest.mark.parametrize("eps", EPS)
def test_agrees_with_torchattacks(eps: float, case: Case):
    torchattacks = pytest.importorskip("torchattacks")
    agree(fgsm(Linf(eps)), case, torchattacks.FGSM(case.model, eps=eps)(case.x, case.y))
    settings = {"eps": eps, "alpha": eps / 4, "steps": STEPS, "random_start": False}
    agree(pgd(Linf(eps)), case, torchattacks.PGD(case.model, **settings)(case.x, case.y))
    agree(pgd(L2(eps)), case, torchattacks.PGDL2(case.model, **settings)(case.x, case.y))


@pytest.mark.filterwarnings("ignore")  # of its own imports
@pytest.mark.parametrize("eps", EPS)
def test_agrees_with_art(eps: float, case: Case):
    evasion = pytest.importorskip("art.attacks.evasion")
    classification = pytest.importorskip("art.estimators.classification")
    case = case._replace(x=0.3 + 0.4 * case.x)
    loss = nn.CrossEntropyLoss(reduction="sum")
    theirs = classification.PyTorchClassifier(
        case.model, loss, input_shape=(3, 8, 8), nb_classes=10, clip_values=(0, 1)
    )

    def generate(attack) -> Tensor:
        return torch.from_numpy(attack.generate(case.x.numpy(), torch.eye(10)[case.y].numpy()))

    agree(fgsm(Linf(eps)), case, generate(evasion.FastGradientMethod(theirs, eps=eps)))
    for threat, norm in [(Linf(eps), "inf"), (L2(eps), 2)]:
        attack = evasion.ProjectedGradientDescentPyTorch(
            theirs, norm=norm, eps=eps, eps_step=eps / 4, max_iter=STEPS, num_random_init=0, verbose=False
        )
        agree(pgd(threat), case, generate(attack))
