"""Which smaller batches a network may be given."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from awnet.attacks.shapes import Shapes


class Answers:
    """The images' own numbers, but in small batches something else for one of them."""

    def __init__(self, small: int, image: int) -> None:
        self.small, self.image = small, image
        self.asked: list[int] = []

    def __call__(self, size: int, first: int = 0) -> list[Tensor]:
        self.asked.append(size)
        numbers = torch.arange(first, first + size).float()
        return [numbers + 1e-3 * (numbers == self.image) * (size < self.small)]


@pytest.mark.parametrize(
    ("small", "image", "expected"),
    [(0, 0, [2, 3, 4, 6, 8, 16, 24, 128]), (5, 0, [6, 6, 6, 6, 8, 16, 24, 128]), (4, 13, [4, 4, 4, 6, 8, 16, 24, 128])],
)
def test_the_smallest_that_answers_sixteen_images_alike(small: int, image: int, expected: list[int]):
    shapes, ask = Shapes(128), Answers(small, image)
    counts = (2, 3, 4, 5, 8, 9, 20, 128)
    assert [shapes.fit(("Forward", False), count, ask) for count in counts] == expected
    asked = len(ask.asked)
    assert [shapes.fit(("Forward", False), count, ask) for count in reversed(counts)] == expected[::-1]
    assert len(ask.asked) == asked, "what has been seen is not tried again"
    assert shapes.fit(("Gradient", False), 1, ask) == expected[0] and len(ask.asked) > asked


def test_a_size_is_compared_with_the_next_that_is_known():
    shapes, ask = Shapes(128), Answers(0, 0)
    for count in (120, 60, 2):
        shapes.fit(("Forward", False), count, ask)
    assert ask.asked == [128, 120, 120, 64, 64] + 8 * [2]


@pytest.mark.parametrize(("largest", "sizes"), [(1, [1]), (2, [2, 2]), (5, [2, 2, 3, 4, 5])])
def test_never_one_image_unless_that_is_all(largest: int, sizes: list[int]):
    shapes = Shapes(largest)
    assert [shapes.fit(("Forward", False), count + 1, Answers(0, 0)) for count in range(largest)] == sizes
    assert Shapes(64, shrinks=False).fit(("Forward", False), 3, Answers(0, 0)) == 64


def test_room_for_what_may_be_asked_beside():
    """Where each batch has the largest shape, all of it."""
    assert [Shapes(size).roomy for size in (128, 16, 6)] == [16, 16, 6]
    assert Shapes(128, shrinks=False).roomy == 128
    gpu = Shapes(128, roomy=128)
    assert gpu.roomy == 128 and gpu.halved(lambda sentence: None).roomy == 64
