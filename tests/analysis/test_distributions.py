"""Moments, distances and densities, against closed forms and SciPy."""

from __future__ import annotations

from math import exp
from statistics import NormalDist

import pytest
import torch
from scipy import stats

from awnet.analysis.distributions import density, deviation_ratio, moments, silverman, wasserstein
from awnet.errors import Mistake

SHARES = (torch.arange(20000) + 0.5).double() / 20000
NORMAL = torch.special.ndtri(SHARES)
UNIFORM = SHARES
LAPLACE = -(SHARES - 0.5).sign() * torch.log1p(-2 * (SHARES - 0.5).abs())
SAMPLE = torch.randn(41, generator=torch.Generator().manual_seed(3)).double() ** 3


@pytest.mark.parametrize(
    ("values", "deviation", "kurtosis", "within"),
    [(NORMAL, 1, 0, 0.01), (UNIFORM, 12**-0.5, -1.2, 1e-3), (LAPLACE, 2**0.5, 3, 0.05)],
    ids=["normal", "uniform", "Laplace"],
)
def test_moments_of_known_distributions(values, deviation, kurtosis, within):
    found = moments(values + 7)
    assert found.n == 20000 and found.mean == pytest.approx(7 + float(values.mean()))
    assert found.deviation == pytest.approx(deviation, rel=1e-3)
    assert found.kurtosis == pytest.approx(kurtosis, abs=within)


def test_moments_are_scipys():
    found = moments(SAMPLE)
    assert found.deviation == pytest.approx(SAMPLE.numpy().std())
    assert found.kurtosis == pytest.approx(stats.kurtosis(SAMPLE.numpy()))


def test_moments_of_values_that_are_all_the_same():
    found = moments(torch.full((9,), 0.1))
    assert found.deviation == 0 and found.kurtosis != found.kurtosis


def test_wasserstein_of_a_shifted_sample_is_the_shift():
    assert wasserstein(SAMPLE, SAMPLE + 0.3) == pytest.approx(0.3)
    assert wasserstein(SAMPLE, SAMPLE.flip(0)) == 0
    assert wasserstein(torch.zeros(3), torch.tensor([1.0, -1.0])) == 1
    # both normal with one mean: E|a Z - b Z| = |a - b| sqrt(2 / pi)
    assert wasserstein(NORMAL, 3 * NORMAL) == pytest.approx(2 * (2 / torch.pi) ** 0.5, rel=1e-3)


def test_wasserstein_is_scipys_for_samples_of_any_lengths():
    a, b = SAMPLE, SAMPLE[:17] * 2 - 1
    expected = stats.wasserstein_distance(a.numpy(), b.numpy())
    assert wasserstein(a, b) == pytest.approx(expected) == wasserstein(b, a)
    pairs = torch.tensor([1.0, 1.0, 2.0]), torch.tensor([1.0, 2.0, 2.0, 2.0])  # with ties
    assert wasserstein(*pairs) == pytest.approx(stats.wasserstein_distance(*(p.numpy() for p in pairs)))


def test_density_is_the_mean_of_normal_densities():
    at = torch.tensor([-1.0, 0.0, 0.4, 9.0])
    by_hand = [sum(NormalDist(v, 0.25).pdf(t) for v in SAMPLE.tolist()) / len(SAMPLE) for t in at.tolist()]
    assert density(SAMPLE, at, 0.25).tolist() == pytest.approx(by_hand, abs=1e-12)
    kernel = stats.gaussian_kde(SAMPLE.numpy(), 0.25 / SAMPLE.std().item())
    assert density(SAMPLE, at, 0.25).tolist() == pytest.approx(kernel(at.double().numpy()).tolist())


def test_density_integrates_to_one_and_finds_its_own_bandwidth():
    at = torch.linspace(-80, 80, 100001).double()
    assert float(torch.trapezoid(density(SAMPLE, at), at)) == pytest.approx(1, abs=1e-6)
    assert silverman(NORMAL) == pytest.approx(0.9 * 20000**-0.2, rel=1e-2)
    assert silverman(torch.cat([NORMAL, torch.full((50,), 1e6)])) < 2 * silverman(NORMAL), "outliers flatten nothing"
    assert silverman(torch.ones(5)) == silverman(torch.ones(1)) == 0


def test_ratio_of_deviations():
    narrow, wide = NORMAL[::200] * 0.5, NORMAL[::200]
    found = deviation_ratio(narrow, wide)
    assert found.value == pytest.approx(0.5) and found.low < 0.5 < found.high < 1
    assert deviation_ratio(narrow, wide) == found != deviation_ratio(narrow, wide, seed=1)
    same = deviation_ratio(wide, wide)
    assert same.low < same.value == 1 < same.high
    # the logarithm of a normal sample's deviation has a standard error of (2n)^-1/2; here two samples of 100
    assert found.high / found.low == pytest.approx(exp(2 * 1.96 * 100**-0.5), rel=0.15)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (torch.empty(0), "one row of values"),
        (torch.ones(2, 2), "one row of values"),
        (torch.tensor([1.0, float("nan")]), "finite numbers"),
    ],
)
def test_what_is_no_sample_is_refused(bad, says):
    for ask in (moments, silverman, lambda v: wasserstein(v, SAMPLE), lambda v: deviation_ratio(SAMPLE, v)):
        with pytest.raises(Mistake, match=says):
            ask(bad)


def test_a_density_of_one_value_is_refused():
    with pytest.raises(Mistake, match="positive bandwidth, or values that differ"):
        density(torch.ones(4), torch.zeros(1))
