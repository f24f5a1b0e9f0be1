"""Thresholds with a stated rate of false alarms, against the definition and against fresh images."""

from __future__ import annotations

import pytest
import torch

from awnet.config import from_json, to_json
from awnet.detection.operating_point import OperatingPoint, looks_attacked, operating_points


def points(p_clean, **more):
    return operating_points(torch.as_tensor(p_clean), split="validation", **more)


def test_by_hand():
    p = torch.arange(1, 100) / 100  # 99 images: the smallest is at 1 %, the fifth smallest at 5 %
    one, five = points(p[torch.randperm(99)])
    assert one == OperatingPoint(false_alarms=0.01, threshold=p[0].double().item(), images=99, split="validation")
    assert five.threshold == pytest.approx(0.05)
    assert looks_attacked(p, one).sum() == 0 and looks_attacked(p, five).sum() == 4  # those below, strictly
    assert looks_attacked(torch.tensor([0.001, 0.5]), one).tolist() == [True, False]


@pytest.mark.parametrize(("n", "rates"), [(5, []), (19, [0.05]), (98, [0.05]), (99, [0.01, 0.05])])
def test_too_few_images_tell_no_threshold(n, rates):
    assert [point.false_alarms for point in points(torch.rand(n))] == rates


def test_the_rate_holds_for_fresh_images():
    """The mean rate over draws of the calibration set is k / (n + 1): at most the stated one, and near it."""
    generator = torch.Generator().manual_seed(0)
    n, draws = 199, 400
    rates = {0.01: 2 / 200, 0.05: 10 / 200, 0.013: 2 / 200}
    for rate, expected in rates.items():
        found = []
        for _ in range(draws):
            (point,) = points(torch.rand(n, generator=generator) ** 3, rates=(rate,))
            found.append(looks_attacked(torch.rand(5000, generator=generator) ** 3, point).double().mean())
        mean, error = torch.stack(found).mean(), torch.stack(found).std() / draws**0.5
        assert abs(mean - expected) < 4 * error
        assert expected <= rate


def test_ties_raise_no_alarm():
    (point,) = points(torch.ones(100), rates=(0.05,))
    assert not looks_attacked(torch.ones(10), point).any()


def test_a_model_that_does_not_tell():
    assert points(torch.full((100,), float("nan"))) == ()


def test_comes_back_from_json():
    found = points(torch.rand(200))
    assert tuple(from_json(to_json(point), OperatingPoint, "detector") for point in found) == found
