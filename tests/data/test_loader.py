"""Batches: order, resuming, augmentation."""

from __future__ import annotations

import pytest
import torch

from awnet.data import Augment, Batch, Dataset, Loader
from awnet.errors import Mistake
from awnet.noise import fold, permutation
from data.made import small_set


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(s, t) for x, y in zip(a, b, strict=True) for s, t in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("resident", [False, True])
def test_an_epoch_started_late_is_the_rest_of_the_epoch(drop_last, resident):
    loader = Loader(
        small_set(n=22), batch_size=4, seed=3, augment=Augment(padding=1), resident=resident, drop_last=drop_last
    )
    whole = list(loader.epoch(5))
    assert len(whole) == len(loader) == (5 if drop_last else 6)
    for start in range(len(loader) + 2):
        assert same(list(loader.epoch(5, start)), whole[start:])
    assert not same(list(loader.epoch(6)), whole)
    assert not same(list(Loader(loader.dataset, batch_size=4, seed=4, drop_last=drop_last).epoch(5)), whole)


@pytest.mark.parametrize("resident", [False, True])
def test_a_batch_is_what_the_set_says_in_the_stated_order(resident):
    dataset = small_set(n=40).subset(torch.arange(39, 4, -1))
    (first, *_), order = Loader(dataset, batch_size=8, seed=2, resident=resident).epoch(1), permutation(fold(2, 1), 35)
    x, y = dataset.batch(order[:8])
    assert torch.equal(first.x, x) and torch.equal(first.y, y) and torch.equal(first.ids, dataset.ids[order[:8]])
    assert first.x.dtype == torch.float32


def test_an_epoch_has_every_image_once():
    dataset = small_set(n=23)
    shuffled = Loader(dataset, batch_size=5, seed=0, drop_last=False)
    ids = torch.cat([batch.ids for batch in shuffled.epoch(0)])
    assert ids.tolist() != list(range(23)) and ids.sort().values.tolist() == list(range(23))
    in_order = Loader(dataset, batch_size=5, seed=0, drop_last=False, shuffle=False)
    assert torch.cat([batch.ids for batch in in_order.epoch(7)]).tolist() == list(range(23))
    assert len(torch.cat([batch.ids for batch in Loader(dataset, batch_size=5, seed=0).epoch(0)])) == 20


def test_a_set_smaller_than_a_batch_is_one_batch():
    loader = Loader(small_set(n=3), batch_size=128, seed=0, drop_last=True)
    assert [len(batch.x) for batch in loader.epoch(0)] == [3] and len(loader) == 1


def test_augmentation_depends_on_the_image_and_the_epoch_and_not_on_the_batch():
    dataset, augment = small_set(n=12), Augment(padding=2)
    even = dataset.subset(torch.arange(0, 12, 2))

    def by_id(dataset: Dataset, batch_size: int, epoch: int) -> dict[int, torch.Tensor]:
        loader = Loader(dataset, batch_size=batch_size, seed=0, augment=augment)
        return {int(i): x for batch in loader.epoch(epoch) for i, x in zip(batch.ids, batch.x, strict=True)}

    one, other, part, later = by_id(dataset, 4, 0), by_id(dataset, 3, 0), by_id(even, 2, 0), by_id(dataset, 4, 1)
    assert all(torch.equal(one[i], other[i]) for i in range(12))
    assert all(torch.equal(one[i], part[i]) for i in range(0, 12, 2))
    assert not all(torch.equal(one[i], later[i]) for i in range(12))
    assert all(x.min() >= 0 and x.max() <= 1 for x in one.values())
    plain, _ = dataset.batch(torch.arange(12))
    assert sum(torch.equal(one[i], plain[i]) for i in range(12)) < 6


def test_what_cannot_be_loaded_is_a_mistake():
    with pytest.raises(Mistake, match="got a batch size of 0"):
        Loader(small_set(), batch_size=0, seed=0)
    with pytest.raises(Mistake, match="the train split of small has no images"):
        Loader(small_set().subset(torch.arange(0)), batch_size=4, seed=0)


@pytest.mark.gpu
@pytest.mark.parametrize("resident", [None, False])
def test_batches_on_a_gpu_are_those_on_the_cpu(resident):
    dataset = small_set(n=40).subset(torch.arange(35))
    settings = {"batch_size": 8, "seed": 2, "augment": Augment(padding=2)}
    gpu = Loader(dataset, device="cuda", resident=resident, **settings)
    assert gpu.resident is (resident is None)
    on_gpu = list(gpu.epoch(3))
    assert {t.device.type for batch in on_gpu for t in batch} == {"cuda"}
    assert same([Batch(*(t.cpu() for t in batch)) for batch in on_gpu], list(Loader(dataset, **settings).epoch(3)))
