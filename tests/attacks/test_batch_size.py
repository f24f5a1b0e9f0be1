"""The batch size that is found: the smallest that is nearly the fastest, by a clock that the network itself turns."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from attacks.nets import small_net
from awnet.attacks import APGD, Engine, Square, Suite, TensorExamples
from awnet.attacks.batch_size import LARGEST_ON_CPU, fitting_batch_size
from awnet.threat_model import Linf

LADDER = (2, 4, 8, 16, 32)
ATTACK = APGD(threat=Linf(0.1), steps=3)
ENGINE = Engine(batch_size=7)


class Timed(nn.Module):
    """Takes `each` seconds an image and `call` seconds a call, and has memory for `most` images."""

    def __init__(self, *, call: float, each: float, most: int = 10**6) -> None:
        super().__init__()
        self.net, self.call, self.each, self.most = small_net(), call, each, most
        self.now = 0.0
        self.sizes: list[int] = []
        self.gradients: set[bool] = set()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("as a GPU says it")
        self.now += self.call + self.each * len(x)
        self.sizes.append(len(x))
        self.gradients.add(x.requires_grad)
        return self.net(x)


def examples(n: int) -> TensorExamples:
    return TensorExamples(torch.rand(n, 3, 8, 8), torch.arange(n) % 10, torch.arange(n))


def found(model: Timed, n: int = 100, attack: APGD | Square | Suite = ATTACK) -> int:
    return fitting_batch_size(model, examples(n), attack, ENGINE, ladder=LADDER, clock=lambda: model.now)


@pytest.mark.parametrize(
    ("call", "each", "expected"),
    [
        (0.0, 1.0, 2),  # each size is as fast
        (1.0, 0.0, 32),  # the larger the better
        (1.0, 1.0, 8),  # 8 / 9 of an image a second is 0.917 of 32 / 33, and 4 / 5 is 0.825
    ],
)
def test_the_smallest_that_is_nearly_the_fastest(call: float, each: float, expected: int):
    speeds = {size: size / (call + each * size) for size in LADDER}
    by_hand = min(size for size in LADDER if speeds[size] >= 0.9 * max(speeds.values()))
    assert found(Timed(call=call, each=each)) == by_hand == expected


@pytest.mark.parametrize(("most", "expected"), [(32, 32), (31, 16), (5, 4), (1, 2)])
def test_memory_ends_the_ladder(most: int, expected: int):
    model = Timed(call=1.0, each=0.0, most=most)
    assert found(model) == expected


@pytest.mark.parametrize(("n", "expected"), [(1, 2), (2, 2), (3, 4), (8, 8), (9, 16), (1000, 32)])
def test_no_more_slots_than_examples(n: int, expected: int):
    model = Timed(call=1.0, each=0.0)
    assert found(model, n) == expected
    assert max(model.sizes) == expected


def test_a_cpu_is_asked_in_no_larger_batches():
    model = Timed(call=1.0, each=0.0)
    size = fitting_batch_size(model, examples(2000), ATTACK, ENGINE, clock=lambda: model.now)
    assert size == LARGEST_ON_CPU == max(model.sizes)


@pytest.mark.parametrize(
    ("attack", "gradients"),
    [
        (ATTACK, True),
        (Square(threat=Linf(0.1), steps=5), False),
        (Suite(members=(("square", Square(threat=Linf(0.1), steps=5)), ("apgd", ATTACK))), False),
    ],
    ids=["apgd", "square", "suite"],
)
def test_the_question_is_the_attack_s_own(attack: APGD | Square | Suite, gradients: bool):
    model = Timed(call=1.0, each=0.0)
    found(model, attack=attack)
    assert model.gradients == ({False, True} if gradients else {False}), "looks at the model are without"


def test_leaves_no_trace():
    model = Timed(call=1.0, each=0.1)
    model.train()
    model.net[0].weight.requires_grad_(False)
    before, flags = copy.deepcopy(model.state_dict()), [p.requires_grad for p in model.parameters()]
    found(model)
    assert model.training and model.net.training
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_its_clock_is_the_time():
    assert fitting_batch_size(small_net(), examples(9), ATTACK, ENGINE) == 32
