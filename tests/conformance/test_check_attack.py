"""The kit for attacks: ours pass, and each way of being wrong is found under its own name."""

from __future__ import annotations

import random
from itertools import count

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from awnet.attacks import APGD, ATTACKS, PGD, adaptive_suite
from awnet.conformance import Finding, assert_conforms, check_attack
from awnet.conformance.generators import generator_states
from awnet.conformance.known import Quarters, Valley, among_neighbours, leads
from awnet.errors import Mistake
from awnet.threat_model import L1, L2, Linf, ThreatModel


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


def ignores_labels(model, x, y, eps):
    return pgd(model, x, torch.zeros_like(y), eps)


def believes_the_model(model, x, y, eps):
    return pgd(model, x, model(x).argmax(1), eps)


def label_zero_only(model, x, y, eps):
    return torch.where((y == 0)[:, None, None, None], pgd(model, x, y, eps), x)


def losses(model, x, y):
    with torch.no_grad():
        return nn.functional.cross_entropy(model(x), y, reduction="none")


def restarts(model, x, y, eps):
    """The best of five for each image."""
    best = pgd(model, x, y, eps)
    for _ in range(4):
        other = pgd(model, x, y, eps)
        better = losses(model, other, y) > losses(model, best, y)
        best = torch.where(better[:, None, None, None], other, best)
    return best


def the_batch_s_best_restart(model, x, y, eps):
    return max((pgd(model, x, y, eps) for _ in range(5)), key=lambda x_adv: losses(model, x_adv, y).mean())


def l2_pgd(model, x, y, eps, least=1e-12):
    x_adv = x
    for _ in range(20):
        x_adv = x_adv.detach().requires_grad_()
        (g,) = torch.autograd.grad(nn.functional.cross_entropy(model(x_adv), y, reduction="sum"), x_adv)
        length = g.flatten(1).norm(dim=1).clamp(min=least)[:, None, None, None]
        x_adv = L2(eps).project(x_adv + eps / 4 * g / length, x)
    return x_adv.detach()


def unguarded_l2_pgd(model, x, y, eps):
    return l2_pgd(model, x, y, eps, least=0.0)


def seeds_torch(model, x, y, eps):
    torch.manual_seed(0)
    return pgd(model, x, y, eps)


def seeds_numpy(model, x, y, eps):
    np.random.seed(0)  # noqa: NPY002
    return pgd(model, x, y, eps)


def seeds_python(model, x, y, eps):
    random.seed(0)
    return pgd(model, x, y, eps)


def states_of_torch_and_numpy():
    """Without Python's, which the checks of shapes draw from while tests run."""
    return {name: state for name, state in generator_states().items() if name != "random"}


@pytest.mark.parametrize(
    ("attack", "name", "sentence"),
    [
        (ignores_labels, "attacks the label that it is given", "misses 18 of 24 .* labels [1, 2, 3]"),
        (believes_the_model, "attacks the label that it is given", "makes 12 of 12 misclassified images right again"),
        (label_zero_only, "attacks the label that it is given", "misses 18 of 24 .* labels [1, 2, 3]"),
        (the_batch_s_best_restart, "neighbours do not matter", "best restart of each image"),
        (unguarded_l2_pgd, "survives a gradient of zero", "NaN or infinity for 6 of 6 images"),
        (seeds_torch, "seeds no global generator", "of torch in one state"),
        (seeds_numpy, "seeds no global generator", "of numpy in one state"),
        (seeds_python, "seeds no global generator", "of random in one state"),
    ],
)
def test_what_a_plain_look_misses_is_found_and_nothing_else(attack, name: str, sentence: str):
    before = states_of_torch_and_numpy()
    (wrong,) = [f for f in check_attack(attack, norm="L2" if "l2" in attack.__name__ else "Linf") if not f.passed]
    assert wrong.name == name and all(part in wrong.sentence for part in sentence.split(" .* "))
    assert states_of_torch_and_numpy() == before, "the kit puts back what it and an attack seed"


def draws_from_all_generators(model, x, y, eps):
    share = random.random() * np.random.rand()  # noqa: NPY002
    return x + (0.95 + 0.05 * share) * (pgd(model, x, y, eps) - x)


def a_generator_of_its_own(model, x, y, eps):
    start = x + eps * (2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) - 1)
    x_adv = start.clamp(0, 1)
    for _ in range(60):
        x_adv = pgd_step(model, x, x_adv, y, eps)
    return x_adv


@pytest.mark.parametrize(
    ("attack", "norm"),
    [(restarts, "Linf"), (l2_pgd, "L2"), (draws_from_all_generators, "Linf"), (a_generator_of_its_own, "Linf")],
)
def test_their_honest_likes_pass(attack, norm: str):
    assert not failed(check_attack(attack, norm=norm))


def test_a_norm_that_is_none():
    with pytest.raises(Mistake, match="no norm is named 'linf'; did you mean Linf"):
        check_attack(pgd, norm="linf")
    with pytest.raises(Mistake, match="known: L1, L2, Linf"):
        check_attack(pgd, norm="max")


@pytest.mark.parametrize("threat", [Linf(8 / 255), L2(0.5), L1(3.0)])
def test_what_is_said_of_the_quarters_is_true(threat: ThreatModel):
    """The best image for each other class is a step as far as the ball allows along the difference of two rows."""
    model = Quarters(threat)
    x, y, right, robust = leads(model)
    assert x.min() > 0.1 and x.max() < 0.9 and (model(x).argmax(1) == y).equal(right)
    fooled = ~right
    for rival in range(4):
        towards = (model.w[rival] - model.w[y]).view_as(x)
        best = threat.project(x + 10 * threat.eps * towards, x)
        assert threat.contains(x, best).all()
        fooled |= model(best).argmax(1) != y
    assert fooled.equal(~robust) and robust.sum() == 12 and right.sum() == 36


@pytest.mark.parametrize("threat", [Linf(8 / 255), L2(0.5), L1(3.0)])
def test_no_image_of_the_valley_can_be_fooled(threat: ThreatModel):
    for x, _ in among_neighbours():
        for side in (-1, 1):
            for first in (-1, 1):
                towards = torch.ones_like(x) * side
                towards[:, 0] = first
                assert (Valley(threat)(threat.project(x + 10 * threat.eps * towards, x)).argmax(1) == 0).all()


def test_what_raises_fails_every_check_and_raises_nothing():
    found = check_attack(raises)
    assert all(not finding.passed and "RuntimeError: out of ideas" in finding.sentence for finding in found)
    with pytest.raises(Mistake, match="12 of 12 checks failed; returns images: raises RuntimeError"):
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
