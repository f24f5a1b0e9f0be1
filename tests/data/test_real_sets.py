"""The real CIFAR-10, CIFAR-100 and a part of Tiny-ImageNet, where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from awnet.data import DATASETS, DataConfig, load
from awnet.data.decode import common_shape, decoded

# the first labels of the official test files
FIRST = {
    "cifar10": ("cat", "ship", "ship", "airplane", "frog", "frog", "automobile", "frog", "cat", "automobile"),
    "cifar100": ("mountain", "forest", "seal", "mushroom", "sea", "tulip", "camel", "butterfly", "cloud", "apple"),
}
PER_CLASS = {"cifar10": (5000, 1000), "cifar100": (500, 100)}  # in the training and the test split
CORNER = {"cifar10": (158, 112, 49), "cifar100": (199, 215, 249)}  # the first pixel of the first test image


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_complete_and_in_order(name: str, real_data: Path, tmp_path: Path):
    contents = DATASETS[name].located(str(real_data)).open(tmp_path)
    assert contents.test is not None
    assert tuple(contents.classes[label] for label in contents.test.labels[:10]) == FIRST[name]
    for split, count in zip((contents.train, contents.test), PER_CLASS[name], strict=True):
        assert np.bincount(split.labels).tolist() == [count] * len(contents.classes)
    assert common_shape(name, [contents.test], None, "keep") == (3, 32, 32)
    _, first = next(decoded(contents.test, (3, 32, 32)))
    assert tuple(first[0, :, 0, 0]) == CORNER[name]


def test_tiny_imagenet_has_grey_images_among_colour_and_its_validation_images_for_tests(real_data: Path):
    splits = load(DataConfig(name="tiny-imagenet", data_dir=str(real_data)))
    k = len(splits.test.classes)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (450 * k, 50 * k, 50 * k)
    assert splits.train.name == ("tiny-imagenet" if k == 200 else f"tiny-imagenet-{k}")
    assert splits.test.shape == (3, 64, 64)
    grey = (splits.test.images[:, 0] == splits.test.images[:, 2]).flatten(1).all(1)
    assert 0 < grey.sum() < 0.05 * len(splits.test)
    x, _ = splits.test.batch(torch.arange(200))
    assert 0.4 < x.mean() < 0.5


@pytest.mark.slow
def test_cifar10_has_its_known_mean_and_deviation(real_data: Path):
    splits = load(DataConfig(name="cifar10", data_dir=str(real_data), validation=0))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (50_000, 0, 10_000)
    pixels = splits.train.images.double() / 255
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-5)
    assert pixels.std((0, 2, 3)).tolist() == pytest.approx([0.2470, 0.2435, 0.2616], abs=5e-5)
