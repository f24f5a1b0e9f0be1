"""The norms: projection, ascent, planes and uniform perturbations against closed forms, solvers and distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import optimize, stats
from torch import Tensor

from awnet.errors import Mistake
from awnet.noise import Noise
from awnet.threat_model import L1, L2, Linf, ThreatModel, _between_corners, _risen, onto_l1_ball

BUDGETS = [Linf(8 / 255), Linf(0.28), L2(0.5), L2(3.0), L1(1.0), L1(12.0)]
NORM = {Linf: torch.inf, L2: 2, L1: 1}
DUAL = {Linf: 1, L2: 2, L1: torch.inf}
each_budget = pytest.mark.parametrize("threat", BUDGETS, ids=str)


def norm(threat: ThreatModel, t: Tensor) -> Tensor:
    """Of each image, in float64."""
    flat = t.double().flatten(1)
    return flat.norm(dim=1, p=NORM[type(threat)])


def images(n: int = 50, pixels: int = 6) -> Tensor:
    """With some black and white pixels."""
    return (1.4 * torch.rand(n, 3, pixels, pixels) - 0.2).clamp(0, 1)


@each_budget
def test_distance(threat: ThreatModel):
    x, x_adv = images(), images()
    torch.testing.assert_close(threat.distance(x, x_adv).double(), norm(threat, x_adv - x), rtol=1e-6, atol=1e-6)


@each_budget
def test_projection_lands_inside_and_keeps_what_is_inside(threat: ThreatModel):
    x = images()
    anywhere = x + 2 * torch.randn_like(x)
    projected = threat.project(anywhere, x)
    assert (norm(threat, projected - x) <= threat.eps * (1 + 1e-6) + 1e-6).all()
    assert projected.min() >= 0 and projected.max() <= 1
    assert threat.contains(x, projected).all() and not threat.contains(x, anywhere).any()
    torch.testing.assert_close(threat.project(projected, x), projected, rtol=0, atol=1e-6)  # idempotent
    inside = (x + 0.9 * (projected - x)).clamp(0, 1)
    torch.testing.assert_close(threat.project(inside, x), inside, rtol=0, atol=1e-6)


@pytest.mark.parametrize("threat", [t for t in BUDGETS if not isinstance(t, L1)], ids=str)
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


def test_projection_in_l1_solves_its_quadratic_program():
    """The nearest point of ball and box at once, by a general solver in eight dimensions."""
    x = torch.rand(15, 2, 2, 2)
    x[:5] = (2 * x[:5] - 0.5).clamp(0, 1)
    anywhere = x + torch.linspace(0.1, 2, 15)[:, None, None, None] * torch.randn_like(x)
    projected = L1(1.0).project(anywhere, x)
    for i in range(15):
        centre, point = (t[i].flatten().double().numpy() for t in (x, anywhere))
        # z = x + up - down with both at least 0
        found = optimize.minimize(
            lambda v, c=centre, p=point: ((c + v[:8] - v[8:] - p) ** 2).sum(),
            np.zeros(16),
            jac=lambda v, c=centre, p=point: np.concatenate(
                [2 * (c + v[:8] - v[8:] - p), -2 * (c + v[:8] - v[8:] - p)]
            ),
            bounds=[(0, 1 - c) for c in centre] + [(0, c) for c in centre],
            constraints={"type": "ineq", "fun": lambda v: 1 - v.sum(), "jac": lambda v: -np.ones(16)},
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        )
        expected = centre + found.x[:8] - found.x[8:]
        np.testing.assert_allclose(projected[i].flatten().numpy(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-3, 0.3, 3.0])
def test_projection_in_l1_onto_balls_of_several_radii(scale: float):
    """x + sign(d) clip(|d| - tau, 0, room), with tau by bisection in float64."""
    x = images(12, pixels=16)
    d = scale * torch.randn_like(x)
    radius = torch.tensor([0.0, 1e-3, 0.5, 3.0, 12.0, 1e4]).repeat(2)
    projected = onto_l1_ball(x + d, x, radius)
    for i in range(12):
        delta = (x[i] + d[i] - x[i]).double()
        room = torch.where(delta > 0, 1 - x[i].double(), x[i].double())
        low, high = 0.0, float(delta.abs().max())
        for _ in range(80):
            tau = (low + high) / 2
            total = float(torch.minimum((delta.abs() - tau).clamp(min=0), room).sum())
            low, high = (tau, high) if total > radius[i] else (low, tau)
        u = torch.minimum((delta.abs() - high * (high > 1e-12)).clamp(min=0), room)
        torch.testing.assert_close(projected[i].double(), x[i].double() + delta.sign() * u, rtol=0, atol=2e-6)
    assert torch.equal(projected[0], x[0]) and torch.equal(projected[6], x[6]), "a ball of radius 0"


def nearest_on_plane(norm: type[ThreatModel], x: np.ndarray, w: np.ndarray, height: float) -> np.ndarray:
    """A shortest step from x within the box that makes height + w · step zero, by a general solver."""
    n = len(x)
    bounds = list(zip(-x, 1 - x, strict=True))
    if norm is L2:
        plane = {"type": "eq", "fun": lambda v: height + w @ v, "jac": lambda v: w}
        start = np.clip(-height * w / (w @ w), -x, 1 - x)
        solved = optimize.minimize(
            lambda v: v @ v, start, jac=lambda v: 2 * v, bounds=bounds, constraints=plane, options={"ftol": 1e-13}
        )
        return solved.x
    # linear programs: the sum, or the largest, of t_i >= |v_i|
    count = n if norm is L1 else 1
    of_t = -np.eye(n) if norm is L1 else -np.ones((n, 1))
    solved = optimize.linprog(
        c=np.concatenate([np.zeros(n), np.ones(count)]),
        A_ub=np.block([[np.eye(n), of_t], [-np.eye(n), of_t]]),
        b_ub=np.zeros(2 * n),
        A_eq=np.concatenate([w, np.zeros(count)])[None],
        b_eq=[-height],
        bounds=bounds + [(0, None)] * count,
    )
    return solved.x[:n]


@pytest.mark.parametrize("norm_of", [Linf, L2, L1])
def test_the_step_to_a_plane_is_the_shortest(norm_of: type[ThreatModel]):
    x = torch.rand(12, 2, 2, 2)
    x[:4] = (2 * x[:4] - 0.5).clamp(0, 1)
    w = torch.randn(12, 2, 2, 2)
    w[5, 0] = 0
    threat, reach = norm_of(0.1), torch.where(w > 0, x, 1 - x).mul(w.abs()).flatten(1).sum(1)
    height = torch.linspace(0.02, 0.98, 12) * reach  # how far the box goes below
    for scale in (1.0, 1e-15):
        step = threat.to_plane(x, scale * w, scale * height)
        assert (x + step >= -1e-6).all() and (x + step <= 1 + 1e-6).all()
        torch.testing.assert_close((w * step).flatten(1).sum(1), -height, rtol=1e-4, atol=1e-5)
        for i in range(12):
            args = (t[i].flatten().double().numpy() for t in (x, w))
            best = torch.tensor(nearest_on_plane(norm_of, *args, float(height[i])))
            assert float(norm(threat, step[i : i + 1])) == pytest.approx(float(norm(threat, best[None])), rel=1e-3)
    # from the other side, and beyond the box: as far as it goes
    torch.testing.assert_close(threat.to_plane(x, -w, -height), step, rtol=1e-4, atol=1e-5)
    furthest = threat.to_plane(x, w, 2 * reach)
    torch.testing.assert_close(x + furthest, torch.where(w > 0, 0.0, torch.where(w < 0, 1.0, x)), rtol=0, atol=1e-5)
    assert not threat.to_plane(x, 0 * w, height).any() and not threat.to_plane(x, w, 0 * height).any()


@pytest.mark.parametrize("shape", [(20, 3, 16, 16), (50, 1, 2, 2), (50, 1, 1, 1)])
@pytest.mark.parametrize("kind", ["even", "closed", "empty", "on all scales", "steep"])
def test_the_water_level_holds_the_volume_found_either_way(shape: tuple[int, ...], kind: str):
    cap, capacity = torch.rand(shape), torch.rand(shape)
    if kind == "closed":
        cap[cap < 0.3] = 0
    if kind == "empty":
        capacity[capacity < 0.5] = 0
    if kind == "on all scales":
        cap = torch.exp(-12 * cap)
    if kind == "steep":  # the vessels that are open last hold next to nothing
        cap, capacity = cap**8, capacity**13
    most = (capacity * cap).double().sum((1, 2, 3))
    for share in (0.0, 1e-6, 1e-3, 0.1, 0.5, 0.9, 0.999, 1.5):
        volume = (share * most).float()[:, None, None, None]
        for find in (_risen, _between_corners):
            level = find(capacity, cap, volume)
            held = (capacity * torch.minimum(cap, level)).double().sum((1, 2, 3))
            torch.testing.assert_close(held, min(share, 1) * most, rtol=1e-5, atol=1e-30)
            others = find(capacity[::2], cap[::2], volume[::2])
            assert torch.equal(level[::2], others), "neighbours change nothing"


def test_a_volume_that_is_no_number_ends_and_spoils_no_other():
    cap, capacity = torch.rand(4, 1, 3, 3), torch.rand(4, 1, 3, 3)
    volume = torch.tensor([0.5, torch.nan, 1.0, torch.inf])[:, None, None, None]
    level = _risen(capacity, cap, volume)
    assert level.isfinite().all() and torch.equal(level[::2], _risen(capacity[::2], cap[::2], volume[::2]))


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
    dual = g.flatten(1).norm(dim=1, p=DUAL[type(threat)])
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


def test_uniform_in_l1_is_uniform_in_the_ball():
    """(|delta|_1 / eps)^d is uniform, the sorted lengths have gaps as those of a simplex, and no sign is preferred."""
    eps, n, d = 3.0, 4000, 6
    delta = L1(eps).uniform(Noise(0, torch.arange(n)), 0, (1, 2, 3)).double().flatten(1)
    radius = delta.abs().sum(1) / eps
    assert radius.max() <= 1 + 1e-6
    assert stats.kstest((radius**d).numpy(), "uniform").pvalue > 1e-3
    share = delta.abs() / (eps * radius[:, None])  # each part of a point of the simplex has a beta distribution
    for i in range(d):
        assert stats.kstest(share[:, i].numpy(), stats.beta(1, d - 1).cdf).pvalue > 1e-3
    assert ((delta > 0).double().mean(0) - 0.5).abs().max() < 0.04
    assert torch.corrcoef(delta.T).sub(torch.eye(d)).abs().max() < 0.08


@each_budget
def test_uniform_takes_a_step_an_example(threat: ThreatModel):
    """Examples at different steps share a batch."""
    noise = Noise(0, torch.arange(3))
    mixed = threat.uniform(noise, torch.tensor([5, 0, 2]), (3, 6, 6))
    for i, step in enumerate((5, 0, 2)):
        assert torch.equal(mixed[i], threat.uniform(noise, step, (3, 6, 6))[i])


def test_eps_0_leaves_the_image_as_it_is():
    x = images()
    for threat in (Linf(0), L2(0), L1(0), Linf(0.0)):
        assert torch.equal(threat.project(x + torch.randn_like(x), x), x)
        assert not threat.uniform(Noise(0, torch.arange(50)), 0, (3, 6, 6)).any()
        assert threat.contains(x, x).all()


@each_budget
def test_contains_knows_the_ball_and_the_box(threat: ThreatModel):
    x = torch.full((1, 3, 6, 6), 0.5)
    unit = torch.ones_like(x) / norm(threat, torch.ones_like(x)).float()
    for away, allowed in [(0.0, True), (0.999, True), (1.0, True), (1.001, False), (2.0, False), (-1.0, True)]:
        assert bool(threat.contains(x, x + away * threat.eps * unit)) is allowed, away
    white = torch.ones_like(x)
    assert not threat.contains(white, white + 1e-3)
    assert not threat.contains(1 - white, -1e-3 * white)
    assert not threat.contains(x, x * float("nan"))


@pytest.mark.parametrize("pixels", [1, 8, 32, 64, 128])
@pytest.mark.parametrize("threat", [Linf(8 / 255), Linf(0.28), L2(0.1), L2(0.5), L2(3.0), L1(12)], ids=str)
def test_rounding_of_a_projection_is_forgiven(threat: ThreatModel, pixels: int):
    """On an even image all pixels are rounded the same way, and in L2 and L1 their errors add up."""
    brightness = torch.linspace(0, 1, 50)[:, None, None, None]
    x = brightness.expand(50, 3, pixels, pixels).contiguous()
    for sign in (-1, 1):
        x_adv = threat.project(x + sign * 2 * threat.eps, x)
        assert threat.contains(x, x_adv).all()
    assert threat.rounding(3 * pixels**2) < 1e-3 * threat.eps


def test_what_cannot_be_meant_is_a_mistake():
    with pytest.raises(Mistake, match=r"got 8 \(did you mean 8/255\?\)"):
        Linf(8)
    with pytest.raises(Mistake, match=r"Linf needs an eps with 0 <= eps <= 1,.*; got -0.1$"):
        Linf(-0.1)
    with pytest.raises(Mistake, match=r"L2 needs an eps with 0 <= eps <= 100,.*; got 128 \(did you mean 128/255\?\)"):
        L2(128)
    for threat in (Linf, L2, L1):
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


def test_a_radius_in_l2_does_not_depend_on_the_place():
    """A power in float32 is rounded in one way inside a vector and in another at its end."""
    ids, threat, shape = torch.arange(4096), L2(0.5), (3, 8, 8)
    apart = torch.cat([threat.uniform(Noise(0, few), 0, shape) for few in ids.split(5)])
    torch.testing.assert_close(apart, threat.uniform(Noise(0, ids), 0, shape), rtol=0, atol=0)
