"""Crops and mirrored images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from awnet.data import Augment, crop_and_flip
from awnet.errors import Mistake
from awnet.noise import Noise


def one_by_one(x: Tensor, noise: Noise, step: int, padding: int, flip: bool) -> Tensor:
    """The definition: pad with zeros, cut a window, mirror it."""
    _, c, h, w = x.shape
    out = []
    for image, (top, left, coin) in zip(x, noise.bits(step, (3,)).tolist(), strict=True):
        padded = torch.zeros(c, h + 2 * padding, w + 2 * padding, dtype=x.dtype)
        padded[:, padding : padding + h, padding : padding + w] = image
        top, left = top % (2 * padding + 1), left % (2 * padding + 1)
        window = padded[:, top : top + h, left : left + w]
        out.append(window.flip(2) if flip and coin % 2 else window)
    return torch.stack(out)


@pytest.mark.parametrize("shape", [(7, 3, 8, 8), (5, 1, 9, 6), (1, 2, 4, 11)])
@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("flip", [False, True])
def test_equals_its_definition(shape, padding, flip):
    x = torch.randint(0, 256, shape, dtype=torch.uint8)
    noise = Noise(3, torch.arange(shape[0]) * 17)
    for images in (x, x.double() / 255):
        out = crop_and_flip(images, noise, 2, padding, flip)
        assert out.dtype == images.dtype
        assert torch.equal(out, one_by_one(images, noise, 2, padding, flip))


def test_every_window_and_both_sides_are_equally_likely():
    n, padding = 20_000, 1
    x = torch.zeros(n, 1, 4, 3)
    x[:, 0, 1, 1] = 1  # its column stays in the middle when mirrored
    x[:, 0, 1, 2] = 2
    out = crop_and_flip(x, Noise(0, torch.arange(n)), 0, padding, flip=True)
    top, left = (out == 1).flatten(1).float().argmax(1).div(3, rounding_mode="floor"), (out == 1).sum((1, 2)).argmax(1)
    counts = (top * 3 + left).bincount(minlength=9)
    assert counts.min() > n / 9 * 0.92 and counts.max() < n / 9 * 1.08  # 4 standard deviations are 8%
    middle = out[left == 1]
    mirrored = (middle == 2).sum((1, 2))[:, 0].float().mean()
    assert abs(mirrored - 0.5) < 0.03


def test_batch_neighbours_and_order_do_not_matter():
    x, ids = torch.rand(6, 3, 8, 8), torch.tensor([4, 9, 2, 100, 7, 0])
    whole = Augment()(x, Noise(5, ids))
    order = torch.tensor([3, 0, 5])
    assert torch.equal(Augment()(x[order], Noise(5, ids[order])), whole[order])


def test_nothing_is_done_without_padding_and_flip():
    x = torch.rand(4, 3, 8, 8)
    assert torch.equal(Augment(padding=0, flip=False)(x, Noise(0, torch.arange(4))), x)


def test_negative_padding_is_a_mistake():
    with pytest.raises(Mistake, match="padding counts pixels"):
        Augment(padding=-1)
