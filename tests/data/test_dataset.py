"""A data set, its subsets and their names."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from awnet.errors import Mistake
from data.made import small_set


def test_a_batch_is_in_the_unit_range_with_its_labels():
    dataset = small_set(n=4)
    dataset.images[0, 0, 0, :3] = torch.tensor([0, 51, 255])
    x, y = dataset.batch(torch.tensor([3, 0]))
    assert x.dtype == torch.float32 and x.shape == (2, 3, 8, 8)
    assert x[1, 0, 0, :3].tolist() == pytest.approx([0, 0.2, 1])
    assert y.tolist() == [1, 0] and len(dataset) == 4 and dataset.shape == (3, 8, 8)


def test_a_subset_of_a_subset_keeps_each_example_whole():
    dataset = replace(small_set(n=10), ids=torch.arange(100, 110))
    part = dataset.subset(torch.tensor([7, 1, 4, 2])).subset(torch.tensor([3, 0]))
    assert part.ids.tolist() == [102, 107] and part.labels.tolist() == [0, 1] and len(part) == 2
    assert torch.equal(part.images, dataset.images[[2, 7]]) and part.shape == dataset.shape
    assert torch.equal(part.pixels(torch.tensor([1])), dataset.images[[7]])
    assert torch.equal(part.batch(torch.tensor([1, 0]))[0], dataset.batch(torch.tensor([7, 2]))[0])


def test_a_subset_copies_no_pixels():
    dataset = small_set()
    part = dataset.subset(torch.tensor([5, 6]))
    dataset.images[6] = 9
    assert (part.images[1] == 9).all()


def test_a_sample_is_chosen_by_its_seed_and_grows_with_its_limit():
    dataset = small_set(n=100)
    some, more, others = dataset.sample(10, seed=1), dataset.sample(20, seed=1), dataset.sample(10, seed=2)
    assert len(some) == 10 and some.ids.tolist() == sorted(set(some.ids.tolist()))
    assert set(some.ids.tolist()) < set(more.ids.tolist())
    assert some.ids.tolist() == dataset.sample(10, seed=1).ids.tolist() != others.ids.tolist()
    assert dataset.sample(100, seed=1) is dataset.sample(1000, seed=1) is dataset
    with pytest.raises(Mistake, match="at least 1 image, got a limit of 0"):
        dataset.sample(0, seed=1)


def test_a_fingerprint_names_pixels_labels_and_choice():
    dataset = small_set()
    other_pixel = dataset.images.clone()
    other_pixel[9, 2, 7, 7] ^= 1
    names = [
        dataset.fingerprint,
        replace(dataset, images=other_pixel).fingerprint,
        replace(dataset, labels=dataset.labels.flip(0)).fingerprint,
        replace(dataset, images=dataset.images.view(10, 3, 4, 16)).fingerprint,
        dataset.subset(torch.tensor([0, 1])).fingerprint,
        dataset.subset(torch.tensor([1, 0])).fingerprint,
        replace(dataset, images=other_pixel).subset(torch.tensor([0, 1])).fingerprint,
    ]
    assert len(set(names)) == len(names) and {len(name) for name in names} == {16}
    assert small_set().fingerprint == dataset.fingerprint == "c1800be4643e3bb9"
    assert small_set().subset(torch.tensor([1, 0])).fingerprint == names[5]


def test_it_says_what_it_is():
    assert repr(small_set()) == "<small train: 10 images of 3x8x8, 2 classes>"
