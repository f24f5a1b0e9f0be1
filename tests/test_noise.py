"""Counted random numbers: the function itself, its distribution, and that nothing but its arguments matters."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from awnet.noise import Noise, fold, mix, permutation

WORD = 2**64


def unsigned(t: torch.Tensor) -> list[int]:
    return [int(v) % WORD for v in t.flatten()]


def splitmix(z: int) -> int:
    """SplitMix64's finaliser on whole numbers, from Steele, Lea and Flood (2014)."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def test_mixing_is_splitmix():
    values = [0, 1, 2, 12345, 2**63 - 1, -1, -(2**63), -987654321]
    assert unsigned(mix(torch.tensor(values))) == [splitmix(v % WORD) for v in values]
    # the first numbers of the published generator with seed 1234567
    counter = torch.tensor([1234567]) + torch.arange(1, 4) * -0x61C8864680B583EB
    assert unsigned(mix(counter)) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_the_numbers_stay_what_they_are():
    """Stored results were made with these numbers: whoever changes the function must notice."""
    noise = Noise(7, torch.tensor([0, 1, 49_999]))
    assert noise.bits(0, (2,)).tolist() == [
        [4367764953732858641, -6384581077723846295],
        [5531519400795769300, 6840196157732356029],
        [-7236652601229932500, 1430592354769359657],
    ]
    in_2_to_the_24ths = [[5287300, 877074], [6865294, 11888553], [14085380, 34649]]
    assert (noise.uniform(3, (2,)) * 2**24).tolist() == in_2_to_the_24ths
    assert (noise.stream(1).uniform(3) * 2**24).tolist() == [13228717, 14481786, 13626637]
    normal = [[-0.4813112, -1.6231589], [-0.2295945, 0.5493373], [0.9926269, -2.8680162]]
    torch.testing.assert_close(noise.normal(3, (2,)), torch.tensor(normal), rtol=0, atol=1e-6)
    assert [fold(0), fold(1), fold(1, 2)] == [0, 6238072747940578789, 583880340377267059]
    assert fold(1, 2, 3) == -9113205502788130936
    assert permutation(3, 10).tolist() == [7, 5, 6, 8, 1, 4, 0, 9, 3, 2]


def test_uniform_numbers_are_uniform():
    u = Noise(0, torch.arange(300)).uniform(0, (300,))
    assert u.dtype == torch.float32 and u.shape == (300, 300)
    assert u.min() >= 0 and u.max() < 1
    assert torch.equal((u * 2**24) % 1, torch.zeros_like(u)), "multiples of 2^-24"
    flat = u.flatten().double().numpy()
    assert stats.kstest(flat, "uniform").pvalue > 1e-3
    counts = torch.histc(u, 256, 0, 1).numpy()
    assert stats.chisquare(counts).pvalue > 1e-3
    low_bits = (u * 2**24).long() % 256
    assert stats.chisquare(low_bits.flatten().bincount(minlength=256).numpy()).pvalue > 1e-3


def test_normal_numbers_are_normal():
    z = Noise(0, torch.arange(300)).normal(0, (300,))
    assert z.dtype == torch.float32 and z.isfinite().all()
    flat = z.flatten().double()
    assert flat.mean().abs() < 0.015 and flat.var().item() == pytest.approx(1, abs=0.02)
    assert (flat**3).mean().abs() < 0.04 and (flat**4).mean().item() == pytest.approx(3, abs=0.1)
    assert stats.kstest(flat.numpy(), "norm").pvalue > 1e-3
    u = Noise(0, torch.arange(300)).uniform(0, (300,)).double() + 2.0**-25
    torch.testing.assert_close(flat, torch.tensor(stats.norm.ppf(u.flatten().numpy())), rtol=1e-6, atol=1e-6)


def correlated(a: torch.Tensor, b: torch.Tensor) -> bool:
    """More than chance allows (5 standard deviations) of two sets of uniform numbers."""
    a, b = a.flatten().double() - 0.5, b.flatten().double() - 0.5
    return bool((a * b).mean().abs() * 12 > 5 / len(a) ** 0.5)


def test_seeds_ids_steps_streams_and_positions_are_unrelated():
    ids = torch.arange(100)
    reference = Noise(0, ids).uniform(0, (100,))
    assert correlated(reference, reference)
    others = {
        "next seed": Noise(1, ids).uniform(0, (100,)),
        "next id": Noise(0, ids + 1).uniform(0, (100,)),
        "other ids": Noise(0, ids + 50_000).uniform(0, (100,)),
        "next step": Noise(0, ids).uniform(1, (100,)),
        "stream": Noise(0, ids).stream(1).uniform(0, (100,)),
        "other stream": Noise(0, ids).stream(0).uniform(0, (100,)),
        "next position": Noise(0, ids).uniform(0, (101,))[:, 1:],
        "ids for positions": reference.T,
        "seed and id": Noise(1, ids - 1).uniform(0, (100,)),
        "id and step": Noise(0, ids - 1).uniform(1, (100,)),
    }
    for name, other in others.items():
        assert not torch.equal(other, reference), name
        assert name == "next position" or not correlated(other, reference), name
    for name, other in others.items():
        if name not in ("ids for positions", "next position", "next id"):
            shared = torch.isin((other * 2**24).long(), (reference * 2**24).long()).float().mean()
            assert shared < 0.01, f"{name}: numbers return"  # by chance 10^4 / 2^24 of them


def test_no_two_counters_meet():
    """64 bits for every (seed, id, step, position): a million of them are all different."""
    seen = torch.cat(
        [Noise(seed, torch.arange(50)).bits(step, (40,)).flatten() for seed in range(20) for step in range(25)]
    )
    assert seen.unique().numel() == seen.numel() == 1_000_000


def test_only_the_example_s_own_counter_matters():
    """A row depends on its id and step, not on its place, its neighbours, the batch or how far others are."""
    ids = torch.tensor([40, 3, 77, 3])
    noise = Noise(5, ids)
    for draw in (noise.uniform, noise.normal, noise.bits):
        whole = draw(2, (3, 4, 4))
        assert torch.equal(whole[1], whole[3])
        for i, number in enumerate(ids.tolist()):
            alone = getattr(Noise(5, torch.tensor([number])), draw.__name__)(2, (3, 4, 4))
            assert torch.equal(alone[0], whole[i])
        mixed = draw(torch.tensor([2, 9, 2, 2]), (3, 4, 4))
        assert torch.equal(mixed[0], whole[0]) and not torch.equal(mixed[1], whole[1])
        assert torch.equal(mixed[1], draw(9, (3, 4, 4))[1])
        # a smaller image meets the first numbers of a larger one
        assert torch.equal(draw(2, (48,)), whole.flatten(1)) and torch.equal(draw(2, (5,)), whole.flatten(1)[:, :5])
        assert torch.equal(draw(2, ()), whole.flatten(1)[:, 0])


def test_torch_s_generator_is_neither_read_nor_moved():
    torch.manual_seed(1)
    first = Noise(0, torch.arange(3)).normal(0, (5,))
    state = torch.get_rng_state()
    again = Noise(0, torch.arange(3)).normal(0, (5,))
    permutation(0, 10)
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(first, again)


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_a_permutation_is_one(n: int):
    order = permutation(4, n)
    assert order.dtype == torch.int64 and sorted(order.tolist()) == list(range(n))
    assert torch.equal(permutation(4, n), order)
    assert n < 3 or not torch.equal(permutation(5, n), order)


def test_permutations_are_even():
    """Over many seeds every place is as likely for every element; 0 and 1 come in either order."""
    orders = torch.stack([permutation(seed, 6) for seed in range(1500)])
    for place in range(6):
        assert stats.chisquare(orders[:, place].bincount(minlength=6).numpy()).pvalue > 1e-4
    assert orders.unique(dim=0).shape[0] > 600  # of 720, where chance leaves out 90


def test_folding_gives_unrelated_seeds():
    seeds = [fold(s, *values) for s in range(20) for values in [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (2**40,)]]
    assert len(set(seeds)) == len(seeds)
    assert all(-(2**63) <= seed < 2**63 for seed in seeds)
    flips = [bin((fold(s, 5) ^ fold(s, 6)) % WORD).count("1") for s in range(200)]
    assert sum(flips) / 200 == pytest.approx(32, abs=2), "every bit depends on every bit"
    assert isinstance(fold(3), int) and fold(3, 1, 2) == fold(3, 1, 2)
