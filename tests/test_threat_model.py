"""Linf and L2: projection, ascent and uniform perturbations against closed forms and distributions."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from awnet.errors import Mistake
from awnet.noise import Noise
from awnet.threat_model import L2, Linf, ThreatModel

BUDGETS = [Linf(8 / 255), Linf(0.28), L2(0.5), L2(3.0)]
each_budget = pytest.mark.parametrize("threat", BUDGETS, ids=str)


def norm(threat: ThreatModel, t: Tensor) -> Tensor:
    """Of each image, in float64."""
    flat = t.double().flatten(1)
    return flat.abs().amax(1) if isinstance(threat, Linf) else flat.square().sum(1).sqrt()


def images(n: int = 50, pixels: int = 6) -> Tensor:
    """With some black and white pixels."""
    return (1.4 * torch.rand(n, 3, pixels, pixels) - 0.2).clamp(0, 1)


@each_budget
def test_distance(threat: ThreatModel):
    x, x_adv = images(), images()
    torch.testing.assert_close(threat.distance(x, x_adv).double(), norm(threat, x_adv - x))


@each_budget
def test_projection_lands_inside_and_keeps_what_is_inside(threat: ThreatModel):
    x = images()
    anywhere = x + 2 * torch.randn_like(x)
    projected = threat.project(anywhere, x)
    assert (norm(threat, projected - x) <= threat.eps + 1e-6).all()
    assert projected.min() >= 0 and projected.max() <= 1
    assert threat.contains(x, projected).all() and not threat.contains(x, anywhere).any()
    torch.testing.assert_close(threat.project(projected, x), projected, rtol=0, atol=1e-6)  # idempotent
    inside = (x + 0.9 * (projected - x)).clamp(0, 1)
    torch.testing.assert_close(threat.project(inside, x), inside, rtol=0, atol=1e-6)


@each_budget
def test_projection_has_its_closed_form(threat: ThreatModel):
    x = images()
    anywhere = x + 2 * torch.randn_like(x)
    delta = (anywhere - x).double()
    if isinstance(threat, Linf):
        delta = delta.clamp(-threat.eps, threat.eps)
    else:
        delta *= threat.eps / norm(threat, delta)[:, None, None, None]
    expected = (x + delta).clamp(0, 1).float()
    torch.testing.assert_close(threat.project(anywhere, x), expected, rtol=0, atol=1e-6)


@each_budget
def test_projection_is_the_nearest_point_of_the_ball(threat: ThreatModel):
    """In the Euclidean distance, no other point of the ball is nearer: neither random ones nor ones close by."""
    x = 0.5 + torch.zeros(20, 3, 6, 6)  # so that the box cuts nothing that matters
    anywhere = x + 0.5 * torch.randn_like(x)
    projected = threat.project(anywhere, x)
    inside_box = (projected > 0).flatten(1).all(1) & (projected < 1).flatten(1).all(1)
    assert inside_box.sum() >= 10 or threat.eps > 1
    nearest = (anywhere - projected).double().flatten(1).norm(dim=1)
    noise = Noise(0, torch.arange(20))
    for step in range(50):
        other = x + threat.uniform(noise, step, (3, 6, 6))
        for point in (other, threat.project(projected + 0.1 * (other - x), x)):
            distance = (anywhere - point).double().flatten(1).norm(dim=1)
            assert (distance[inside_box] >= nearest[inside_box] - 1e-6).all()


@each_budget
def test_ascent_is_a_unit_step_that_gains_most(threat: ThreatModel):
    """<g, ascend(g)> is the dual norm of g, which no other unit step exceeds."""
    g = torch.randn(30, 3, 6, 6)
    step = threat.ascend(g)
    torch.testing.assert_close(norm(threat, step), torch.ones(30, dtype=torch.float64), rtol=0, atol=1e-6)
    gain = (g * step).flatten(1).sum(1)
    dual = g.abs().flatten(1).sum(1) if isinstance(threat, Linf) else g.flatten(1).norm(dim=1)
    torch.testing.assert_close(gain, dual)
    unit = type(threat)(1.0)
    for i in range(50):
        other = unit.uniform(Noise(0, torch.arange(30)), i, (3, 6, 6))
        assert ((g * other).flatten(1).sum(1) < gain).all()


@each_budget
def test_ascent_goes_nowhere_without_a_gradient(threat: ThreatModel):
    g = torch.randn(3, 3, 6, 6)
    g[1] = 0
    step = threat.ascend(g)
    assert not step[1].any() and step[0].any() and step[2].any() and step.isfinite().all()


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-30, 1e-20, 1e20, 1e38])
@each_budget
def test_ascent_takes_a_unit_step_along_any_gradient(threat: ThreatModel, scale: float):
    """A confident network has gradients whose squares float32 does not know; the step must not vanish or explode."""
    direction = torch.where(torch.rand(4, 3, 6, 6) < 0.5, -1.0, 1.0)
    expected = type(threat)(1.0).ascend(direction)
    torch.testing.assert_close(threat.ascend(direction * scale), expected, rtol=1e-5, atol=0)


@each_budget
def test_examples_do_not_see_each_other(threat: ThreatModel):
    x, x_adv, g = images(7), images(7), torch.randn(7, 3, 6, 6)
    noise = Noise(3, torch.arange(7))
    uniform = threat.uniform(noise, 2, (3, 6, 6))
    for i in range(7):
        one = slice(i, i + 1)
        torch.testing.assert_close(threat.project(x_adv[one], x[one]), threat.project(x_adv, x)[one])
        torch.testing.assert_close(threat.ascend(g[one]), threat.ascend(g)[one])
        assert torch.equal(threat.uniform(Noise(3, torch.tensor([i])), 2, (3, 6, 6)), uniform[one])


def test_uniform_in_linf_is_uniform_in_every_pixel():
    eps = 0.1
    delta = Linf(eps).uniform(Noise(0, torch.arange(400)), 0, (3, 4, 4))
    assert delta.shape == (400, 3, 4, 4) and delta.abs().max() <= eps
    flat = delta.flatten().double().numpy()
    assert stats.kstest(flat, stats.uniform(-eps, 2 * eps).cdf).pvalue > 1e-3
    correlation = torch.corrcoef(delta.flatten(1).T)
    assert (correlation - torch.eye(48)).abs().max() < 0.25  # of 400 draws: standard deviation 0.05


@pytest.mark.parametrize("shape", [(1, 1, 2), (3, 4, 4)], ids=str)
def test_uniform_in_l2_is_uniform_in_the_ball(shape: tuple[int, int, int]):
    """|delta|/eps has the distribution r^d, and the direction no preference: every coordinate has variance eps^2/(d+2)."""
    eps, n, d = 0.5, 4000, shape[0] * shape[1] * shape[2]
    delta = L2(eps).uniform(Noise(0, torch.arange(n)), 0, shape).double().flatten(1)
    radius = delta.norm(dim=1) / eps
    assert radius.max() <= 1 + 1e-6
    assert stats.kstest((radius**d).numpy(), "uniform").pvalue > 1e-3
    covariance = delta.T @ delta / n / (eps**2 / (d + 2))
    assert (covariance - torch.eye(d)).abs().max() < 0.15
    assert delta.mean(0).abs().max() < 5 * eps / (n * d) ** 0.5
    if d == 2:
        angle = torch.atan2(delta[:, 0], delta[:, 1]) / torch.pi
        assert stats.kstest(angle.numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3


@each_budget
def test_uniform_takes_a_step_an_example(threat: ThreatModel):
    """Examples at different steps share a batch."""
    noise = Noise(0, torch.arange(3))
    mixed = threat.uniform(noise, torch.tensor([5, 0, 2]), (3, 6, 6))
    for i, step in enumerate((5, 0, 2)):
        assert torch.equal(mixed[i], threat.uniform(noise, step, (3, 6, 6))[i])


def test_eps_0_leaves_the_image_as_it_is():
    x = images()
    for threat in (Linf(0), L2(0), Linf(0.0)):
        assert torch.equal(threat.project(x + torch.randn_like(x), x), x)
        assert not threat.uniform(Noise(0, torch.arange(50)), 0, (3, 6, 6)).any()
        assert threat.contains(x, x).all()


@each_budget
def test_contains_knows_the_ball_and_the_box(threat: ThreatModel):
    x = torch.full((1, 3, 6, 6), 0.5)
    unit = threat.ascend(torch.ones_like(x))
    for away, allowed in [(0.0, True), (0.999, True), (1.0, True), (1.001, False), (2.0, False), (-1.0, True)]:
        assert bool(threat.contains(x, x + away * threat.eps * unit)) is (allowed and away * threat.eps < 5), away
    white = torch.ones_like(x)
    assert not threat.contains(white, white + 1e-3)
    assert not threat.contains(1 - white, -1e-3 * white)
    assert not threat.contains(x, x * float("nan"))


@pytest.mark.parametrize("pixels", [1, 8, 32, 64, 128])
@pytest.mark.parametrize("threat", [Linf(8 / 255), Linf(0.28), L2(0.1), L2(0.5), L2(3.0)], ids=str)
def test_rounding_of_a_projection_is_forgiven(threat: ThreatModel, pixels: int):
    """On an even image all pixels are rounded the same way, and in L2 their errors add up."""
    brightness = torch.linspace(0, 1, 50)[:, None, None, None]
    x = brightness.expand(50, 3, pixels, pixels).contiguous()
    for sign in (-1, 1):
        x_adv = threat.project(x + sign * 2 * threat.eps * threat.ascend(torch.ones_like(x)), x)
        assert threat.contains(x, x_adv).all()
    assert threat.rounding(3 * pixels**2) < 1e-3 * threat.eps


def test_what_cannot_be_meant_is_a_mistake():
    with pytest.raises(Mistake, match=r"got 8 \(did you mean 8/255\?\)"):
        Linf(8)
    with pytest.raises(Mistake, match=r"Linf needs an eps with 0 <= eps <= 1,.*; got -0.1$"):
        Linf(-0.1)
    with pytest.raises(Mistake, match=r"L2 needs an eps with 0 <= eps <= 100,.*; got 128 \(did you mean 128/255\?\)"):
        L2(128)
    for threat in (Linf, L2):
        for eps in (float("nan"), float("inf"), -1e-9):
            with pytest.raises(Mistake):
                threat(eps)


def test_threat_models_are_values():
    assert Linf(0.1) == Linf(0.1) != L2(0.1) and len({Linf(0.1), Linf(0.1), L2(0.1)}) == 2
    assert [str(t) for t in (Linf(8 / 255), Linf(0.28), L2(0.5), Linf(0))] == [
        "Linf 8/255",
        "Linf 0.28",
        "L2 0.5",
        "Linf 0",
    ]
