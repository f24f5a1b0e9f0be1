"""The shape checks are on, so that a green run means something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self

import pytest
import torch
from jaxtyping import TypeCheckError, jaxtyped

from awnet.losses import CrossEntropy
from awnet.noise import Noise
from awnet.threat_model import Linf
from awnet.types import Images, Labels
from shape_checks import ALL, FIRST, THEN, sparing, typecheck


def test_wrong_shapes_and_types_are_caught_in_the_package():
    logits, y = torch.zeros(4, 10), torch.zeros(4, dtype=torch.int64)
    assert CrossEntropy()(logits, y).shape == (4,)
    assert Linf(1).eps == 1  # an int where a float is asked for
    for wrong in (y[:3], y.float(), y[:, None]):
        with pytest.raises(TypeCheckError, match="parameter 'y'"):
            CrossEntropy()(logits, wrong)
    with pytest.raises(TypeCheckError, match="parameter 'x_adv'"):
        Linf(8 / 255).distance(torch.zeros(2, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    with pytest.raises(TypeCheckError, match="parameter 'seed'"):
        Noise("8/255", y)


class Unchecked(Protocol):
    steps: int


@jaxtyped(typechecker=typecheck)
def half_checked(attack: Unchecked, x: Images) -> Images:
    return x


def test_a_hint_that_cannot_be_checked_leaves_the_others_on():
    anything: Any = None
    half_checked(anything, torch.zeros(1, 3, 8, 8))
    with pytest.raises(TypeCheckError, match="parameter 'x'"):
        half_checked(anything, torch.zeros(3, 8, 8))

    @jaxtyped(typechecker=typecheck)
    @dataclass(frozen=True)
    class Batch:
        x: Images
        y: Labels

        def same(self) -> Self:
            return self

    with pytest.raises(TypeCheckError, match="parameter 'y'"):
        Batch(torch.zeros(2, 3, 8, 8), torch.zeros(3, dtype=torch.int64))


@pytest.mark.skipif(ALL, reason="every call is checked (AWNET_CHECK_ALL)")
def test_the_first_calls_are_checked_and_then_one_of_so_many():
    @sparing(typechecker=typecheck)
    def same(x: Images) -> Images:
        return x

    caught = []
    for call in range(1, 3 * THEN + 2):
        try:
            same(torch.zeros(3, 8, 8))
        except TypeCheckError:
            caught.append(call)
    assert caught == [*range(1, FIRST + 1), THEN, 2 * THEN, 3 * THEN]


@pytest.mark.skipif(ALL, reason="every call is checked (AWNET_CHECK_ALL)")
def test_a_function_inside_of_another_is_one_function():
    def outer() -> Any:
        @sparing(typechecker=typecheck)
        def inner(x: Images) -> Images:
            return x

        return inner

    caught = 0
    for _ in range(THEN):
        try:
            outer()(torch.zeros(3, 8, 8))
        except TypeCheckError:
            caught += 1
    assert caught == FIRST + 1, "though it is made anew each time"


def test_compiled_code_is_let_through():
    logits, y = torch.randn(4, 10), torch.zeros(4, dtype=torch.int64)
    compiled = torch.compile(CrossEntropy(), backend="eager", fullgraph=True)
    assert torch.equal(compiled(logits, y), CrossEntropy()(logits, y))
