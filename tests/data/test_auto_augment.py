"""AutoAugment's operations against Pillow's, and its draws."""

from __future__ import annotations

from math import isclose

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from awnet.data.auto_augment import GREY, OPERATIONS, POLICY, auto_augment
from awnet.noise import Noise

MOVES = ("shear-x", "shear-y", "translate-x", "translate-y", "rotate")


def images(n: int = 12, channels: int = 3, size: tuple[int, int] = (16, 20), seed: int = 0) -> torch.Tensor:
    """Noise of several contrasts, and an image of one colour."""
    noise = Noise(seed, torch.arange(n)).uniform(0, (channels, *size))
    scale = torch.linspace(0, 255, n)[:, None, None, None]
    return (noise * scale + (255 - scale) * 0.3).to(torch.uint8)


def affine(*matrix: float):
    def transform(image):
        return image.transform(
            image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=(GREY,) * 3
        )

    return transform


def pillow(name: str, m: float, size: tuple[int, int]):
    """The operation of a signed strength m in [-1, 1], as Pillow has it."""
    width, height = size
    return {
        "shear-x": affine(1, 0.3 * m, 0, 0, 1, 0),
        "shear-y": affine(1, 0, 0, 0.3 * m, 1, 0),
        "translate-x": affine(1, 0, 150 / 331 * width * m, 0, 1, 0),
        "translate-y": affine(1, 0, 0, 0, 1, 150 / 331 * height * m),
        "rotate": lambda image: image.rotate(30 * m, Image.Resampling.NEAREST, fillcolor=(GREY,) * 3),
        "color": lambda image: ImageEnhance.Color(image).enhance(1 + 0.9 * m),
        "contrast": lambda image: ImageEnhance.Contrast(image).enhance(1 + 0.9 * m),
        "brightness": lambda image: ImageEnhance.Brightness(image).enhance(1 + 0.9 * m),
        "sharpness": lambda image: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * m),
        "invert": ImageOps.invert,
        "posterize": lambda image: ImageOps.posterize(image, round(8 - 4 * abs(m))),
        "solarize": lambda image: ImageOps.solarize(image, 256 * (1 - abs(m))),
        "autocontrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
    }[name]


@pytest.mark.parametrize("strength", range(10))
@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("name", OPERATIONS)
def test_as_pillow_does_it(name, sign, strength):
    x = images()
    n = len(x)
    m = max(0.0, strength - 0.01) / 9  # where no pixel is taken from just between two others
    found = OPERATIONS[name](x, torch.full((n,), m, dtype=torch.float64), torch.full((n,), sign).double())
    assert found.dtype == torch.uint8 and found.shape == x.shape
    for before, after in zip(x, found, strict=True):
        picture = Image.fromarray(before.permute(1, 2, 0).numpy())
        expected = np.asarray(pillow(name, sign * m, picture.size)(picture))
        differs = np.abs(after.permute(1, 2, 0).numpy().astype(int) - expected.astype(int))
        if name in ("color", "contrast", "brightness", "sharpness"):
            assert differs.max() <= 1 and (differs > 0).mean() < 0.01  # float32, rounded in another order
        else:
            assert (differs > 0).mean() <= (0.02 if name in MOVES else 0)  # Pillow's coordinates are in fixed point


def test_small_images_equalized():
    """Where a step of the histogram is less than one pixel, and where the evened values would pass 255."""
    for size in ((4, 4), (16, 17), (32, 32)):
        x = images(channels=3, size=size, seed=1)
        found = OPERATIONS["equalize"](x, torch.zeros(12).double(), torch.ones(12).double())
        for before, after in zip(x, found, strict=True):
            expected = ImageOps.equalize(Image.fromarray(before.permute(1, 2, 0).numpy()))
            np.testing.assert_array_equal(after.permute(1, 2, 0).numpy(), np.asarray(expected))


def test_the_smoothing_is_pillows():
    x = images(1)
    picture = Image.fromarray(x[0].permute(1, 2, 0).numpy())
    smooth = np.asarray(picture.filter(ImageFilter.SMOOTH)).astype(float)
    blended = OPERATIONS["sharpness"](x, torch.ones(1).double(), -torch.ones(1).double())[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(blended, smooth + 0.1 * (np.asarray(picture) - smooth), atol=1.01)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_does_not_depend_on_its_batch(channels):
    x, ids = images(30, channels), torch.arange(100, 130)
    found = auto_augment(x, Noise(5, ids))
    order = torch.tensor([7, 3, 22])
    assert torch.equal(auto_augment(x[order], Noise(5, ids[order])), found[order])
    alone = torch.cat([auto_augment(x[i : i + 1], Noise(5, ids[i : i + 1])) for i in range(30)])
    assert torch.equal(alone, found)
    assert not torch.equal(auto_augment(x, Noise(6, ids)), found)
    assert not torch.equal(auto_augment(x, Noise(5, ids), 1), found)


def test_each_pair_happens_as_often_as_it_should(monkeypatch):
    """Operations are replaced by marks; the share of images that meet each is what the table says."""
    n, met = 20_000, {}
    for name in OPERATIONS:

        def mark(x, strength, sign, name=name):
            met[name] = met.get(name, 0) + len(x)
            assert abs(sign.mean()) < 0.2 or len(x) < 500
            return x

        monkeypatch.setitem(OPERATIONS, name, mark)
    auto_augment(torch.zeros(n, 1, 1, 1, dtype=torch.uint8), Noise(0, torch.arange(n)))
    for name in OPERATIONS:
        expected = sum(move.probability for pair in POLICY for move in pair if move.name == name) / 25
        assert isclose(met.get(name, 0) / n, expected, abs_tol=0.015), name


def test_the_policy_is_that_of_the_paper():
    assert len(POLICY) == 25
    assert POLICY[0] == (("invert", 0.1, 7), ("contrast", 0.2, 6))
    assert POLICY[24] == (("translate-y", 0.7, 9), ("autocontrast", 0.9, 1))
    assert {move.name for pair in POLICY for move in pair} <= OPERATIONS.keys()
