"""The kit for attacks: ours pass, and each way of being wrong is found under its own name."""

from __future__ import annotations

from itertools import count

import pytest
import torch
from torch import Tensor, nn

from awnet.attacks import APGD, ATTACKS, PGD, adaptive_suite
from awnet.conformance import Finding, assert_conforms, check_attack
from awnet.errors import Mistake
from awnet.threat_model import L1, L2, Linf


def failed(findings: list[Finding]) -> set[str]:
    return {finding.name for finding in findings if not finding.passed}


@pytest.mark.parametrize("norm", [Linf, L2, L1])
def test_apgd_conforms(norm: type[Linf | L2 | L1]):
    found = check_attack(lambda m, x, y, eps: APGD(threat=norm(eps), steps=20)(m, x, y), norm=norm.__name__)
    assert not failed(found) and len(found) >= 8
    assert_conforms(found)


@pytest.mark.parametrize("name", ["fgsm", "pgd-sat"])
def test_registered_attacks_conform(name: str):
    def attack(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        attack = ATTACKS[name](Linf(eps))

        return attack(model, x, y)

    assert not failed(check_attack(attack))


def pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """As in a tutorial: no care, no harm."""
    x_adv = x + eps * (2 * torch.rand_like(x) - 1)
    for _ in range(10):
        x_adv = x_adv.detach().requires_grad_()
        loss = nn.functional.cross_entropy(model(x_adv), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x_adv)
        x_adv = (x + (x_adv + eps / 3 * gradient.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    return x_adv.detach()


def test_a_tutorial_s_pgd_conforms():
    assert not failed(check_attack(pgd))


def leaves_the_ball(model, x, y, eps):
    return pgd(model, x, y, 1.01 * eps)


def leaves_the_box(model, x, y, eps):
    return x + eps * torch.ones_like(x)


def trains(model, x, y, eps):
    model.train()
    return pgd(model, x, y, eps)


def fills_gradients(model, x, y, eps):
    x.requires_grad_()
    nn.functional.cross_entropy(model(x), y).backward()
    return (x + eps * x.grad.sign()).clamp(0, 1).detach()


def in_place(model, x, y, eps):
    x_adv = pgd(model, x, y, eps)
    x.copy_(x_adv)
    return x_adv


CALLS = count()


def draws_from_the_clock(model, x, y, eps):
    torch.manual_seed(next(CALLS))
    return pgd(model, x, y, eps)


def by_the_mean_gradient(model, x, y, eps):
    """One perturbation for the whole batch."""
    return (x + (pgd(model, x, y, eps) - x).mean(0, keepdim=True)).clamp(0, 1)


def downhill(model, x, y, eps):
    return (2 * x - pgd(model, x, y, eps)).clamp(0, 1)


def nothing(model, x, y, eps):
    return x.clone()


def stops_at_ties(model, x, y, eps):
    x_adv = x.clone()
    for _ in range(100):
        with torch.no_grad():
            logits = model(x_adv)
            label = logits.gather(1, y[:, None])[:, 0]
            done = logits.scatter(1, y[:, None], -torch.inf).amax(1) >= label
        moved = pgd_step(model, x, x_adv, y, eps)
        x_adv = torch.where(done[:, None, None, None], x_adv, moved)
    return x_adv


def pgd_step(model, x, x_adv, y, eps):
    x_adv = x_adv.detach().requires_grad_()
    loss = nn.functional.cross_entropy(model(x_adv), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x_adv)
    return (x + (x_adv + eps / 50 * gradient.sign() - x).clamp(-eps, eps)).clamp(0, 1).detach()


def the_first_image_only(model, x, y, eps):
    return pgd(model, x[:1], y[:1], eps)


def in_numpy(model, x, y, eps):
    return pgd(model, x, y, eps).double()


def raises(model, x, y, eps):
    raise RuntimeError("out of ideas")


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        (leaves_the_ball, "stays inside the threat model"),
        (leaves_the_box, "stays inside the threat model"),
        (trains, "leaves the model as it was"),
        (fills_gradients, "leaves the model as it was"),
        (fills_gradients, "leaves the images as they were"),
        (in_place, "leaves the images as they were"),
        (draws_from_the_clock, "repeats itself"),
        (by_the_mean_gradient, "neighbours do not matter"),
        (downhill, "finds what is there"),
        (nothing, "finds what is there"),
        (stops_at_ties, "does not take a tie for a success"),
        (the_first_image_only, "returns images"),
        (in_numpy, "returns images"),
    ],
)
def test_each_way_of_being_wrong_is_found(attack, name: str):
    assert name in failed(check_attack(attack))


def test_what_raises_fails_every_check_and_raises_nothing():
    found = check_attack(raises)
    assert all(not finding.passed and "RuntimeError: out of ideas" in finding.sentence for finding in found)
    with pytest.raises(Mistake, match="9 of 9 checks failed; returns images: raises RuntimeError"):
        assert_conforms(found)


def test_only_who_knows_of_routers_finds_what_is_behind_them():
    def blind(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        return PGD(threat=Linf(eps))(model, x, y)

    assert failed(check_attack(blind, routing=True)) == {"finds what is there behind a router"}


@pytest.mark.slow
def test_the_adaptive_suite_finds_what_is_behind_routers():
    def aware(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        return adaptive_suite(Linf(eps))(model, x, y)

    (last,) = [f for f in check_attack(aware, routing=True) if "behind" in f.name]
    assert last.passed, last.sentence
