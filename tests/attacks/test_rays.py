"""RayS against closed forms: linear models, whose nearest misclassified corner is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from awnet.attacks import Engine, RayS, TensorExamples
from awnet.errors import Mistake
from awnet.threat_model import Linf


class Plane(nn.Module):
    """Class 1 where w . (x - 1/2) + b > 0."""

    def __init__(self, w: Tensor, b: float) -> None:
        super().__init__()
        self.w, self.b = w, b
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        height = (x - 0.5).flatten(1) @ self.w + self.b
        return torch.stack([torch.zeros_like(height), height], dim=1).sign()  # the class and nothing else


W = torch.tensor([0.5, -1.0, 2.0, 1.0, -0.3, -0.8, 1.5, -0.9])
X = torch.full((3, 2, 2, 2), 0.5)
Y = torch.zeros(3, dtype=torch.int64)
RADIUS = 0.8 / float(W.abs().sum())  # of the nearest point of the plane w . (x - 1/2) = 0.8


@pytest.mark.parametrize("eps", [1.02 * RADIUS, pytest.param(0.98 * RADIUS, marks=pytest.mark.slow)])
def test_it_finds_the_nearest_corner_of_a_linear_model(eps: float):
    attack = RayS(threat=Linf(eps), steps=400)
    found = Engine(batch_size=2).run(attack, Plane(W, -0.8), TensorExamples(X, Y, torch.arange(3)))
    assert (~found.correct).all() if eps > RADIUS else found.correct.all()
    assert torch.equal(found.x_adv, X) if eps < RADIUS else bool((found.x_adv != X).all())


def test_the_radius_is_known_as_closely_as_the_binary_search_ends():
    attack = RayS(threat=Linf(1.0), steps=600, stop_on_success=False)
    found = attack(Plane(W, -0.8), X, Y)
    radius = (found - X).abs().flatten(1).amax(1)
    assert ((radius >= RADIUS) & (radius < RADIUS + 2e-3)).all()
    assert torch.equal((found - X).sign().flatten(1), W.sign().expand(3, -1))


def test_it_stops_asking_where_nothing_is_misclassified():
    model = Plane(W, -100.0)
    found = RayS(threat=Linf(0.1), steps=50)(model, X, Y)
    assert torch.equal(found, X) and model.asked == (1 + 50) * len(X), "and once whether model and images fit"


def test_the_box_is_respected():
    edge = torch.ones_like(X)
    attack = replace(RayS(threat=Linf(1.0), steps=300), stop_on_success=False)
    found = attack(Plane(-W.abs(), 3.0), edge, Y)
    assert ((found >= 0) & (found <= 1)).all()
    assert (Plane(-W.abs(), 3.0)(found).argmax(1) == 1).all()


def test_settings_out_of_range():
    with pytest.raises(Mistake, match="at least one query"):
        RayS(threat=Linf(0.1), steps=0)
