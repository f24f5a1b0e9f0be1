"""Differences between rows: of pairs, of means over seeds, and of nothing that was not measured alike."""

from dataclasses import replace

import pytest
import torch
from scipy import stats

from awnet.evaluation.metrics import mean_difference, paired_difference
from awnet.noise import Noise
from awnet.report.differences import differences
from awnet.report.tables import table
from report.synthetic import record


def between(records):
    base, row = table(records).main
    return differences(records, row, base)


def test_differences_are_of_the_same_images():
    a, b = record("a", tells=1.0), record("b", robust=0.3, luck=3)
    found = between([a, b])
    assert found is not None and set(found) == {"clean", "worst case", "fgsm", "pgd-sat", "pgd-trades", "cw-inf"}
    assert found["cw-inf"].value == pytest.approx(b.robust_accuracy("cw-inf").value - a.robust_accuracy("cw-inf").value)
    assert between([a, replace(b, ids=b.ids + 1)]) is None
    assert between([a, record("b", eps=4 / 255)]) is None
    missing = replace(b, attacks={"fgsm": b.attacks["fgsm"]})
    assert set(between([a, missing]) or ()) == {"clean", "fgsm"}  # another worst case
    other = replace(b, attacks={**b.attacks, "fgsm": replace(b.attacks["fgsm"], settings={"kind": "FGSM"})})
    assert set(between([a, other]) or ()) == {"clean", "pgd-sat", "pgd-trades", "cw-inf"}


def test_means_over_seeds_differ_by_the_difference_of_their_means():
    a = [record("a", seed=s, luck=s) for s in range(3)]
    b = [record("b", robust=0.4, seed=s, luck=s + 5) for s in range(2)]
    found = between([*a, *b])
    means = [sum(r.worst_accuracy.value for r in group) / len(group) for group in (a, b)]
    assert found is not None and found["worst case"].value == pytest.approx(means[1] - means[0])
    assert found["worst case"].low < found["worst case"].value < found["worst case"].high


def hits(share, seed, n=400):
    return Noise(seed, torch.arange(n)).uniform(0) < share


def test_one_training_each_gives_the_interval_of_the_pairs():
    a, b = hits(0.6, 1), hits(0.5, 2)
    gap = torch.cat([a.double() - b.double(), torch.tensor([1.0, -1.0])])
    t = stats.ttest_1samp(gap, 0).confidence_interval(0.95)
    assert mean_difference([a], [b]) == pytest.approx((float((a.double() - b.double()).mean()), t.low, t.high))
    assert mean_difference([a], [b]) == pytest.approx(paired_difference(a, b), abs=2e-3)  # Student's is a little wider


def test_seeds_that_scatter_more_than_the_images_give_the_interval_of_the_seeds():
    """Every image of a training is right, or none: the shares of the seeds are all there is."""
    a = [torch.full((100_000,), v, dtype=torch.float64) for v in (0.5, 0.6, 0.55)]
    b = [torch.full((100_000,), v, dtype=torch.float64) for v in (0.3, 0.42)]
    t = stats.ttest_ind([0.5, 0.6, 0.55], [0.3, 0.42]).confidence_interval(0.95)
    assert mean_difference(a, b)[1:] == pytest.approx((t.low, t.high), abs=1e-4)
    assert mean_difference(b, a) == pytest.approx([-v for v in (mean_difference(a, b)[i] for i in (0, 2, 1))])


def test_the_interval_covers_the_truth():
    """Trainings with luck of their own, judged on images that are easier or harder for all of them."""
    inside = 0
    for trial in range(400):
        ids = torch.arange(150)
        hard = Noise(trial, ids).uniform(0)
        luck = 0.03 * Noise(trial, torch.arange(5)).normal(1)
        made = [
            0.5 * hard + 0.5 * Noise(trial, ids).uniform(2 + k) < (0.6 if k < 3 else 0.5) + luck[k] for k in range(5)
        ]
        found = mean_difference(made[:3], made[3:])
        inside += found.low <= 0.177 <= found.high  # the share between the two thresholds, by a long simulation
    assert inside / 400 > 0.93


def test_the_ends():
    yes = torch.ones(50, dtype=torch.bool)
    apart = mean_difference([yes, yes], [~yes])
    assert apart.value == apart.high == 1 and 0.85 < apart.low < 1
    same = mean_difference([yes, yes], [yes])
    assert same.value == 0 and -0.1 < same.low < -0.01 and same.high == -same.low and not same.distinguishable
    assert not mean_difference([yes[:0]], [yes[:0]]).distinguishable
