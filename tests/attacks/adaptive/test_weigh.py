"""How two gradients make one direction: closed forms."""

from __future__ import annotations

import pytest
import torch

from awnet.attacks.adaptive.weigh import Weigh, Weighed, unit


def image(*pixels: float) -> torch.Tensor:
    return torch.tensor(pixels).float().view(1, 1, 1, -1)


def weighed(how: Weigh, margin: float, beyond: float, *, weight: float = 2.0, both: bool = True) -> Weighed:
    """Of a class gradient along (3, 4) / 5 and a push along the first axis, of any size."""
    gradients = image(3e-6, 4e-6), image(700.0, 0)
    given = (torch.tensor([float(t)]) for t in (margin, beyond, weight))
    m, b, w = given
    return Weighed.of(how, m, gradients[0], b, gradients[1], w, both)


@pytest.mark.parametrize(
    ("how", "margin", "beyond", "direction"),
    [
        ("sum", -1, -1, (0.6 + 2, 0.8)),
        ("sum", -1, 1, (0.6, 0.8)),
        ("stay", -1, -1, (1, 0)),
        ("stay", -1, 1, (0.6, 0.8)),
        ("selective", -1, -1, (0.6, 0.8)),
        ("selective", 1, -1, (1, 0)),
        ("orthogonal", -1, -1, (0, 0.8)),
        ("orthogonal", 1, -1, (1 - 0.36, -0.48)),
        ("decision", -1, -1, (1, 0)),
        ("decision", 1, 1, (1, 0)),
    ],
)
def test_direction(how, margin, beyond, direction):
    torch.testing.assert_close(weighed(how, margin, beyond).direction, image(*direction))


def test_merit_is_the_lesser_where_both_are_needed():
    assert weighed("sum", -1, -3).merit == -3 and weighed("sum", -1, 3).merit == -1
    assert weighed("sum", -1, -3, both=False).merit == -1, "the model's own margin tells"
    assert weighed("decision", -1, -3).merit == -3
    assert weighed("stay", -1, 0).there and not weighed("stay", -1, -0.1).there


def test_unit_of_what_is_tiny_or_nothing():
    t = torch.stack([torch.full((1, 2, 2), 1e-30), torch.zeros(1, 2, 2), torch.full((1, 2, 2), -1e20)])
    torch.testing.assert_close(unit(t).flatten(1).norm(dim=1), torch.tensor([1.0, 0.0, 1.0]))
