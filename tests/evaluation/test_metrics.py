"""Metrics against closed forms, plain loops and other libraries."""

from __future__ import annotations

from itertools import pairwise, product
from math import sqrt

import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score, roc_curve

from awnet.evaluation.metrics import accuracy, auc, paired_difference, roc, w_robust, worst_case


def hits(text: str) -> torch.Tensor:
    return torch.tensor([c == "1" for c in text], dtype=torch.bool)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (447, 1000), (9999, 10000)])
def test_interval_is_wilsons(k, n):
    found = accuracy(torch.arange(n) < k, z=1.959963984540054)
    other = binomtest(k, n).proportion_ci(method="wilson")
    assert found.value == k / n and found.n == n
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=1e-12)


def test_interval_in_closed_form():
    """At no or all hits: 0 to z^2 / (n + z^2), and its mirror image."""
    none, all_ = accuracy(torch.zeros(10, dtype=torch.bool)), accuracy(torch.ones(10, dtype=torch.bool))
    width = 1.96**2 / (10 + 1.96**2)
    assert (none.low, none.high) == pytest.approx((0, width))
    assert (all_.low, all_.high) == pytest.approx((1 - width, 1))
    assert str(all_) == "100.00 % [72.2, 100.0]"


def test_no_examples_know_nothing():
    found = accuracy(torch.zeros(0, dtype=torch.bool))
    assert found.value != found.value and (found.low, found.high, found.n) == (0, 1, 0)


def test_worst_case_by_hand():
    assert worst_case([hits("1101"), hits("1011"), hits("1111")]).tolist() == hits("1001").tolist()
    assert worst_case([hits("10")]).tolist() == [True, False]


def test_w_robust_is_eq_23():
    assert w_robust(0.9308, 0.5237) == pytest.approx((0.9308 + 0.5237) / 2)
    assert w_robust(0.9, 0.4, gamma_nat=0.2, gamma_adv=0.8) == pytest.approx(0.2 * 0.9 + 0.8 * 0.4)


@pytest.mark.parametrize("ties", [False, True])
def test_auc_is_that_of_scikit_learn(ties):
    clean, attacked = torch.rand(40) ** 0.5, torch.rand(70)
    if ties:
        clean, attacked = (clean * 5).round() / 5, (attacked * 5).round() / 5
    y = [1] * 40 + [0] * 70
    scores = torch.cat([clean, attacked]).tolist()
    assert auc(clean, attacked) == pytest.approx(roc_auc_score(y, scores), abs=1e-12)
    by_pairs = sum((a > b) + (a == b) / 2 for a, b in product(clean.tolist(), attacked.tolist())) / (40 * 70)
    assert auc(clean, attacked) == pytest.approx(by_pairs, abs=1e-12)


@pytest.mark.parametrize(
    ("clean", "attacked", "expected"),
    [([0.9, 0.8], [0.1, 0.2, 0.3], 1.0), ([0.1], [0.9], 0.0), ([0.5, 0.5], [0.5], 0.5), ([0.3, 0.7], [0.5], 0.5)],
)
def test_auc_of_a_few(clean, attacked, expected):
    assert auc(torch.tensor(clean), torch.tensor(attacked)) == expected


@pytest.mark.parametrize("ties", [False, True])
def test_roc_is_that_of_scikit_learn(ties):
    """A detector that notices attacks: the attacked images are the positives, and the score is 1 - P(clean)."""
    clean, attacked = torch.rand(30) ** 0.5, torch.rand(50)
    if ties:
        clean, attacked = (clean * 4).round() / 4, (attacked * 4).round() / 4
    false_alarms, noticed = roc(clean, attacked)
    scores = (-torch.cat([clean, attacked])).tolist()
    x, y, _ = roc_curve([0] * 30 + [1] * 50, scores, drop_intermediate=False)
    assert false_alarms == pytest.approx(x.tolist(), abs=1e-6) and noticed == pytest.approx(y.tolist(), abs=1e-6)
    for curve in (false_alarms, noticed):
        assert curve[0] == 0 and curve[-1] == 1 and curve == sorted(curve)
    points = zip(false_alarms, noticed, strict=True)
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
    assert area == pytest.approx(auc(clean, attacked), abs=1e-6)


def test_paired_difference_by_hand():
    """Bonett and Price: of ten, three are won by a alone and one by b alone; one is added to each, two to n."""
    found = paired_difference(hits("1111111000"), hits("1111000100"))
    p, q = 4 / 12, 2 / 12
    half = 1.96 * sqrt((p + q - (p - q) ** 2) / 12)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((p - q - half, p - q + half))


def test_paired_difference_is_antisymmetric_and_counts_disagreement_only():
    a, b = torch.rand(200) < 0.7, torch.rand(200) < 0.6
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert one.value == -other.value and (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.value == pytest.approx(accuracy(a).value - accuracy(b).value)
    # the same disagreement with the agreements turned round
    agree = a == b
    assert paired_difference(a ^ agree, b ^ agree)[1:] == one[1:]


def test_paired_difference_of_equals_and_of_nothing():
    same = paired_difference(hits("1010"), hits("1010"))
    assert same.value == 0 and same.low < 0 < same.high
    none = paired_difference(hits(""), hits(""))
    assert none.value != none.value and (none.low, none.high) == (-1, 1)


def test_paired_difference_that_is_and_is_not_distinguishable():
    b = torch.arange(400) < 200
    assert paired_difference(torch.arange(400) < 240, b).distinguishable
    assert not paired_difference(torch.arange(400) < 201, b).distinguishable


@pytest.mark.slow
def test_paired_intervals_hold_what_they_promise():
    """In 19 of 20 drawn tables the interval holds the true difference."""
    torch.manual_seed(0)
    held = 0
    for _ in range(2000):
        u = torch.rand(60)
        a, b = u < 0.7, (u > 0.2) & (u < 0.8)  # 0.7 and 0.6
        found = paired_difference(a, b)
        held += found.low <= 0.1 <= found.high
    assert 0.93 < held / 2000 < 0.98
