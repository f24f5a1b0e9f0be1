"""Square: its schedule, its windows and bumps against plain loops, and that it only ever improves."""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor

from attacks.conftest import Trained
from attacks.nets import lively, small_net
from awnet.attacks import Engine, Square, TensorExamples
from awnet.attacks.attack import Answer, evaluate
from awnet.errors import Mistake
from awnet.losses import Margin
from awnet.noise import Noise
from awnet.threat_model import L1, L2, Linf, ThreatModel

NORMS = [Linf(0.12), L2(0.6), L1(3.0)]
each_norm = pytest.mark.parametrize("threat", NORMS, ids=str)


def test_the_schedule_of_p():
    """Section 4.1: p is halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of 10,000 windows."""
    window = torch.tensor([1, 11, 12, 51, 52, 201, 202, 501, 502, 1002, 2002, 4001, 4002, 5000])
    halvings = [0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 6, 7, 7]  # the k-th window is step k - 1 of the paper
    sides = Square(threat=Linf(0.1)).side(window, 32, 32).tolist()
    assert sides == [max(round(sqrt(0.8 * 0.5**k) * 32), 1) for k in halvings]
    assert Square(threat=Linf(0.1), steps=100).side(window, 32, 32).tolist() == sides, (
        "the number of steps is no matter"
    )
    rescaled = Square(threat=Linf(0.1), steps=100, rescale=True).side(torch.tensor([1, 2, 3, 7, 100]), 32, 32)
    assert rescaled.tolist() == [max(round(sqrt(0.8 * 0.5**k) * 32), 1) for k in [0, 2, 2, 4, 9]]
    odd = Square(threat=L2(0.5)).side(window, 32, 32)
    assert odd.min() == 3 and (odd % 2 == 1).all() and (odd - torch.tensor(sides)).max() <= 2
    assert Square(threat=L2(0.5), p=1.0).side(window[:1], 9, 6).tolist() == [6], "it fits into the image"


def test_a_window_is_a_square_of_one_colour():
    attack, steps = Square(threat=Linf(0.1)), torch.tensor([1, 12, 52, 202, 1002, 5000])
    x = torch.full((6, 3, 32, 32), 0.5)
    change = attack._next(x, x, steps, Noise(0, torch.arange(6))) - x
    for i, side in enumerate(attack.side(steps, 32, 32).tolist()):
        rows, columns = change[i, 0].any(1).nonzero(), change[i, 0].any(0).nonzero()
        assert len(rows) == len(columns) == side
        assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == side
        for channel in change[i]:
            assert channel.abs().unique().numel() <= 2 and channel.abs().max().item() == pytest.approx(0.1)
    edge = 0.5 + 0.1 * torch.ones(2000, 1, 8, 8)
    everywhere = attack._next(0 * edge + 0.5, edge, torch.full((2000,), 5000), Noise(0, torch.arange(2000)))
    moved = (everywhere != edge).any(0)[0]
    assert moved.all(), "every pixel can be reached, the last row and column too"


def bump_by_hand(side: int, power: int) -> Tensor:
    """The rings added one after the other, each half of norm 1 (of the sum of |.| or of squares) and then both."""

    def half(height: int, width: int) -> Tensor:
        eta = torch.zeros(height, width)
        row, column = height // 2, width // 2
        for ring in range(width // 2 + 1):
            eta[max(row - ring, 0) : row + ring + 1, max(column - ring, 0) : column + ring + 1] += (
                1 / (ring + 1) ** power
            )
        return eta / (eta.norm() if power == 2 else eta.abs().sum())

    whole = torch.cat([half(side // 2, side), -half(side - side // 2, side)])
    return whole / (whole.norm() if power == 2 else whole.abs().sum())


@pytest.mark.parametrize("side", [2, 3, 4, 5, 6, 9])
@pytest.mark.parametrize(("threat", "power"), [(L2(0.5), 2), (L1(3.0), 4)], ids=str)
def test_a_bump_is_a_pyramid_above_an_inverted_one(threat: ThreatModel, power: int, side: int):
    row, column = torch.arange(12).view(1, 1, 12, 1) - 2, torch.arange(12).view(1, 1, 1, 12) - 1
    expected = torch.zeros(12, 12)
    expected[2 : 2 + side, 1 : 1 + side] = bump_by_hand(side, power)
    for lying in (False, True):
        bump = Square(threat=threat)._bump(row, column, torch.tensor([side]), torch.tensor(lying).view(1, 1, 1, 1))[
            0, 0
        ]
        if lying:
            bump = bump.roll((-2, -1), (0, 1)).T.roll((2, 1), (0, 1))
        torch.testing.assert_close(bump, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 12, 7), (1, 4, 4)], ids=str)
@each_norm
def test_every_candidate_uses_the_budget(threat: ThreatModel, shape: tuple[int, int, int]):
    """In the middle of the box nothing is cut: perturbations have the length eps, in Linf in most pixels."""
    x, y = torch.full((8, *shape), 0.5), torch.zeros(8, dtype=torch.int64)
    attack, noise = Square(threat=type(threat)(0.1)), Noise(0, torch.arange(8))
    first = attack._first(x, noise)
    near = torch.full((8,), 0.1)
    torch.testing.assert_close(attack.threat.distance(x, first), near, rtol=1e-4, atol=1e-6)
    best = first
    for step in (1, 15, 60, 300, 3000):
        best = attack._next(x, best, torch.full_like(y, step), noise)
        assert best.isfinite().all() and attack.threat.contains(x, best).all()
        torch.testing.assert_close(attack.threat.distance(x, best), near, rtol=1e-3, atol=1e-6)


def test_images_have_windows_of_their_own():
    x = torch.full((2, 3, 16, 16), 0.5)
    for threat in NORMS:
        attack = Square(threat=threat)
        for ids, same in (((7, 7), True), ((7, 8), False)):
            noise = Noise(0, torch.tensor(ids))
            first = attack._first(x, noise)
            then = attack._next(x, first, torch.tensor([30, 30]), noise)
            assert torch.equal(first[0], first[1]) is same and torch.equal(then[0], then[1]) is same


@each_norm
def test_it_only_ever_improves(threat: ThreatModel, digits: Trained):
    attack = Square(threat=threat, steps=40, stop_on_success=False)
    x, y, noise = digits.x[:8], digits.y[:8], Noise(0, torch.arange(8))
    with torch.no_grad():
        state = attack.start(x, y, noise)
        assert torch.equal(attack.query(state).x, x), "the first look is at the image itself"
        for step in range(attack.queries):
            before = state.margin
            state = attack.update(state, evaluate(digits.model, attack.query(state)), noise)
            assert step == 1 or (state.margin >= before).all()
            assert threat.contains(x, state.best).all() and threat.contains(x, state.candidate).all()
        torch.testing.assert_close(Margin()(digits.model(state.best), y), state.margin, rtol=1e-4, atol=1e-4)


@each_norm
def test_more_windows_find_more(threat: ThreatModel, digits: Trained):
    examples = TensorExamples(digits.x[:40], digits.y[:40], torch.arange(40))
    few, many = (
        Engine(batch_size=40).run(Square(threat=threat, steps=steps), digits.model, examples) for steps in (2, 80)
    )
    assert int((~few.correct).sum()) < int((~many.correct).sum()) - 2
    assert not many.backwards.any() and (many.forwards[many.correct] == 83).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_any_number_of_classes(classes: int):
    x = torch.rand(6, 3, 8, 8)
    model = lively(small_net(classes=classes), x)
    with torch.no_grad():
        y = model(x).argmax(1)
    outcome = Engine(batch_size=3).run(Square(threat=Linf(0.1), steps=20), model, TensorExamples(x, y, torch.arange(6)))
    assert (~outcome.correct).any()


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"p": 0.0}, {"p": 1.5}], ids=str)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]):
    with pytest.raises(Mistake, match="Square needs"):
        Square(threat=Linf(0.1), **wrong)


def test_an_answer_that_is_no_number_is_no_progress():
    """The first perturbation is kept whatever is said of it; one that is answered with a number is further."""
    attack = Square(threat=Linf(0.05), steps=5, stop_on_success=False)
    x, y, noise = torch.full((1, 1, 4, 4), 0.5), torch.zeros(1, dtype=torch.int64), Noise(0, torch.arange(1))
    state = attack.start(x, y, noise)
    for logits in ([1.0, 0.0], [torch.nan, 0.0], [1.0, 0.5]):
        state = attack.update(state, Answer(torch.tensor([logits])), noise)
    assert state.margin.tolist() == [-0.5]
