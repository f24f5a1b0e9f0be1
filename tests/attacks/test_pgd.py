"""PGD, FGSM and CW_inf against closed forms: on a linear network the worst perturbation is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from attacks.nets import Linear, lively, small_net
from awnet.attacks import ATTACKS, PGD, Attack, Engine, TensorExamples, cw_inf, fgsm, perturb, pgd_sat, pgd_trades
from awnet.errors import Mistake
from awnet.losses import KL, Margin
from awnet.noise import Noise
from awnet.threat_model import L2, Linf

SHAPE = (3, 8, 8)
EPS = [8 / 255, 0.28]


def two_classes(n: int = 6) -> tuple[Linear, Tensor, Tensor, Tensor]:
    """A linear network, images, their labels, and w_y - w_other of each image."""
    model = Linear(0.1 * torch.randn(2, *SHAPE))  # margins well below kappa = 50
    x, y = torch.rand(n, *SHAPE), torch.arange(n) % 2
    with torch.no_grad():
        return model, x, y, (model.w[y] - model.w[1 - y]).clone()


@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize("make", [fgsm, pgd_sat, cw_inf])
def test_linf_reaches_the_worst_case_on_a_linear_network(make, eps: float):
    """x_adv = clip(x - eps sign(w_y - w_other)): every pixel moves against the class by eps, or to the edge of the box."""
    model, x, y, w = two_classes()
    expected = (x - eps * w.sign()).clamp(0, 1)
    torch.testing.assert_close(make(Linf(eps))(model, x, y), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("eps", EPS)
def test_l2_reaches_the_worst_case_on_a_linear_network(eps: float):
    """x_adv = x - eps (w_y - w_other) / |w_y - w_other|, away from the box."""
    model, x, y, w = two_classes()
    x = 0.3 + 0.4 * x
    expected = x - eps * w / w.flatten(1).norm(dim=1)[:, None, None, None]
    assert expected.min() > 0 and expected.max() < 1
    for attack in (fgsm(L2(eps)), pgd("pgd-sat", L2(eps), initial="zero")):
        torch.testing.assert_close(attack(model, x, y), expected, rtol=0, atol=1e-6)
    # from a random start the part across w shrinks by 4/5 with each step of eps/4 along the edge of the ball
    patient = pgd("pgd-sat", L2(eps), steps=80)
    torch.testing.assert_close(patient(model, x, y), expected, rtol=0, atol=1e-5)


def pgd(name: str, threat: Linf | L2, **changes: Any) -> PGD:
    """The attack of this name, somewhat changed."""
    attack = ATTACKS[name](threat)
    assert isinstance(attack, PGD)
    return replace(attack, **changes)


def at_the_edge(attack: Attack, eps: float) -> float:
    """Which share of the pixels an attack moves to the edge of the ball on a linear network, away from the box."""
    model, x, y, w = two_classes()
    x = 0.4 + 0.2 * x
    moved = (attack(model, x, y) - x) * -w.sign()
    return float((moved > 0.999 * eps).float().mean())


@pytest.mark.parametrize("eps", EPS)
def test_steps_that_are_fractions_of_eps_reach_the_edge_at_every_eps(eps: float):
    assert at_the_edge(pgd_sat(Linf(eps)), eps) == 1
    assert at_the_edge(pgd_trades(Linf(eps)), eps) > 0.9  # 20 steps of 0.0956 eps cross 1.9 of the 2 eps
    assert at_the_edge(ATTACKS["pgd-sat-absolute"](Linf(eps)), eps) > (0.99 if eps < 0.1 else 0.2)


def test_absolute_steps_do_not_reach_the_edge_of_a_large_ball():
    """20 steps of 0.003 cover 0.06 of the 0.56 across: a pixel reaches the edge only if it starts near it."""
    assert at_the_edge(ATTACKS["pgd-trades-absolute"](Linf(0.28)), 0.28) < 0.15
    from_x = pgd("pgd-trades-absolute", Linf(0.28), initial="zero")
    assert at_the_edge(from_x, 0.28) == 0


@pytest.mark.parametrize("pair", [("pgd-sat", 0.25), ("pgd-trades", 0.003 * 255 / 8), ("cw-inf", 0.25)], ids=str)
def test_at_the_paper_s_eps_fractions_and_absolute_steps_are_one(pair: tuple[str, float]):
    name, fraction = pair
    threat = Linf(8 / 255)
    relative, absolute = pgd(name, threat), pgd(f"{name}-absolute", threat)
    assert relative.step_size == fraction
    x = torch.rand(4, *SHAPE)
    model = lively(small_net(), x)
    y = torch.arange(4)
    torch.testing.assert_close(relative(model, x, y), absolute(model, x, y), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "steps", "absolute"),
    [
        ("pgd-sat", 20, 2 / 255),
        ("pgd-trades", 20, 0.003),
        ("cw-inf", 30, 2 / 255),
        ("cw-inf-small-step", 30, 0.003),
        ("fgsm", 1, 8 / 255),
    ],
)
def test_the_settings_of_the_papers(name: str, steps: int, absolute: float):
    attack = pgd(name, Linf(8 / 255))
    assert attack.steps == attack.queries == steps
    assert attack.step_size * 8 / 255 == pytest.approx(absolute)
    assert attack.initial == ("zero" if name == "fgsm" else "uniform")
    assert attack.loss == Margin(kappa=50) if name.startswith("cw") else attack.loss != Margin()
    assert not attack.stop_on_success, "the paper takes the last iterate"


def test_fgsm_is_one_step_of_pgd():
    threat = Linf(8 / 255)
    x = torch.rand(4, *SHAPE)
    model, y = lively(small_net(), x), torch.arange(4)
    one_step = PGD(threat=threat, steps=1, step_size=8 / 255, unit="pixel", initial="zero")
    assert torch.equal(fgsm(threat)(model, x, y), one_step(model, x, y))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(x), y), x)
    by_hand = (x + 8 / 255 * gradient.sign()).clamp(0, 1).detach()
    torch.testing.assert_close(fgsm(threat)(model, x.detach(), y), by_hand, rtol=0, atol=1e-7)


@pytest.mark.parametrize("threat", [Linf(8 / 255), L2(0.5)], ids=str)
@pytest.mark.parametrize("initial", ["zero", "uniform", "gaussian"])
def test_equals_its_definition(threat: Linf | L2, initial):
    """One image at a time, in plain autograd, in float64 where the attack works in float32."""
    x = torch.rand(3, *SHAPE)
    model, y = lively(small_net(), x), torch.arange(3)
    attack = PGD(threat=threat, steps=4, step_size=0.3, initial=initial, loss=Margin())
    start = attack.start(x, y, noise_of(3)).x_adv.double()
    x_adv = attack(model, x, y)
    model.double()
    for i in range(3):
        x_i, z = x[i].double(), start[i]
        for _ in range(4):
            z = z.detach().requires_grad_()
            logits = model(z[None])[0]
            others = torch.cat([logits[: y[i]], logits[y[i] + 1 :]])
            (others.max() - logits[y[i]]).backward()
            assert z.grad is not None
            size = 0.3 * threat.eps
            if isinstance(threat, Linf):
                delta = (z.detach() + size * z.grad.sign() - x_i).clamp(-threat.eps, threat.eps)
            else:
                delta = z.detach() + size * z.grad / z.grad.norm() - x_i
                delta = delta * min(1, threat.eps / delta.norm().item())
            z = (x_i + delta).clamp(0, 1)
        torch.testing.assert_close(x_adv[i].double(), z, rtol=0, atol=1e-5)


def noise_of(n: int) -> Noise:
    return Noise(0, torch.arange(n))


def test_the_starts():
    x, y = 0.3 + 0.4 * torch.rand(200, *SHAPE), torch.zeros(200, dtype=torch.int64)

    def start(threat, initial) -> Tensor:
        return PGD(threat=threat, initial=initial).start(x, y, noise_of(200)).x_adv - x

    assert not start(Linf(0.1), "zero").any()
    uniform = start(Linf(0.1), "uniform")
    assert uniform.abs().max() <= 0.1 + 1e-6 and uniform.abs().max() > 0.0999
    assert uniform.mean().abs() < 1e-3 and uniform.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.01)
    gaussian = start(Linf(0.1), "gaussian")
    assert gaussian.std().item() == pytest.approx(0.001, rel=0.01)
    assert start(Linf(0.0005), "gaussian").abs().max() <= 0.0005 + 1e-7, "a query never leaves the threat model"
    # uniform in a ball of 192 dimensions: nearly all of it is near the edge
    length = start(L2(0.5), "uniform").flatten(1).norm(dim=1)
    assert length.max() <= 0.5 + 1e-6 and length.median().item() == pytest.approx(0.5 * 0.5 ** (1 / 192), abs=2e-3)


def test_stopping_at_the_first_success_finds_as_many_for_less():
    """Same steps, so whatever the last iterate hits has been hit on the way; and some images only on the way."""
    x = torch.rand(32, *SHAPE)
    model = lively(small_net(), x)
    with torch.no_grad():
        y = model(x).argmax(1)
    examples = TensorExamples(x, y, torch.arange(32))
    to_the_end = PGD(threat=Linf(3 / 255), steps=10, step_size=1)
    early = replace(to_the_end, stop_on_success=True)
    engine = Engine(batch_size=8)
    full, stopped = engine.run(to_the_end, model, examples), engine.run(early, model, examples)
    assert 0 < full.correct.sum() < 32
    assert not (stopped.correct & ~full.correct).any()
    assert (full.forwards == 11).all() and (full.backwards == 10).all()
    assert (stopped.forwards[stopped.correct] == 11).all()
    assert stopped.forwards.float().mean() < 9 and stopped.forwards.unique().numel() > 2
    assert torch.equal(stopped.backwards, stopped.forwards - 1)
    # no success is misread: the verdict agrees with the search at one shape
    assert (stopped.forwards[~stopped.correct] <= 11).all()
    assert torch.equal(early(model, x, y), Engine(batch_size=32, channels_last=False).run(early, model, examples).x_adv)


def test_the_margin_stops_growing_at_kappa():
    """Beyond kappa the gradient is 0 and PGD stays where it is; below it the margin is maximal on a linear network."""
    model, x, y, w = two_classes()
    x = 0.4 + 0.2 * x
    with torch.no_grad():
        margins = -(w * x).flatten(1).sum(1)  # z_other - z_y
        beyond = torch.where(margins > 0, y, 1 - y)  # the labels by which every image is misclassified, by 0 or more
        flat = PGD(threat=Linf(0.1), loss=Margin(kappa=0), steps=3, initial="zero")
        assert torch.equal(flat(model, x, beyond), x)
        x_adv = PGD(threat=Linf(0.1), loss=Margin(), steps=8, initial="zero")(model, x, y)
        logits = model(x_adv)
        gained = logits[torch.arange(6), 1 - y] - logits[torch.arange(6), y] - margins
    torch.testing.assert_close(gained, 0.1 * w.abs().flatten(1).sum(1), rtol=1e-4, atol=1e-4)


def test_the_target_may_be_what_the_loss_compares_with():
    """TRADES climbs KL(f(x) || f(x_adv)), whose target is the logits at x."""
    x = torch.rand(4, *SHAPE)
    model = lively(small_net(), x)
    with torch.no_grad():
        clean = model(x)
        attack = PGD(threat=Linf(8 / 255), loss=KL(), steps=5, initial="gaussian")
        x_adv = perturb(attack, model, x, clean, noise_of(4))
        assert (KL()(model(x_adv), clean) > 10 * KL()(model(attack.start(x, clean, noise_of(4)).x_adv), clean)).all()


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"step_size": 0.0}, {"step_size": -0.1}, {"step_size": float("nan")}])
def test_settings_that_cannot_be_meant(wrong: dict[str, float]):
    with pytest.raises(Mistake, match="at least one step of positive size"):
        PGD(threat=Linf(0.1), **wrong)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("field", [("initial", "unifrom"), ("unit", "pixels"), ("steps", 0), ("step_size", -0.5)])
def test_settings_that_mean_nothing_are_refused(field):
    with pytest.raises(Mistake, match=str(field[1])):
        replace(PGD(threat=Linf(0.1)), **dict([field]))
