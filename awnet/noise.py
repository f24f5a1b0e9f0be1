"""Random numbers that are counted, not drawn (after Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

Every number is a function of (seed, example id, step, position). There is no generator and so no state: the same image
with the same seed meets the same numbers in whatever batch, order or process it is computed, and a resumed run has
nothing to restore. The mixing function is the finaliser of SplitMix64 (Steele, Lea and Flood, 2014), computed in int64,
whose wrap-around multiplication is the same on every device; uniforms keep 24 bits and are exact in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from awnet.errors import Mistake

_GOLDEN = -0x61C8864680B583EB  # 2^64 / golden ratio, as a signed 64-bit integer
_MIX1 = -0x40A7B892E31B1A47
_MIX2 = -0x6B2FB644ECCEEE15


def _shift_right(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)  # logical, where int64 shifts arithmetically


def mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser: int64 of any shape to int64 of that shape, every output bit depending on every input bit."""
    z = (z ^ _shift_right(z, 30)) * _MIX1
    z = (z ^ _shift_right(z, 27)) * _MIX2
    return z ^ _shift_right(z, 31)


@lru_cache(4096)  # a step asks for the same few again and again
def fold(seed: int, *values: int) -> int:
    """A new seed from a seed and whole numbers (an epoch, a purpose); different values give unrelated seeds.

    Raises:
        Mistake: where the seed does not fit into 64 bits.
    """
    if not -(2**63) <= seed < 2**63:
        raise Mistake(f"a seed is a whole number of 64 bits, got {seed}")
    key = torch.tensor(seed, dtype=torch.int64, device="cpu")
    for value in values:
        key = mix(key + _GOLDEN) + value
    return int(mix(key))


def permutation(seed: int, n: int) -> Tensor:
    """A permutation of 0 … n-1, a function of `seed` alone; int64 of shape (n,)."""
    return mix(torch.arange(n) * _GOLDEN + fold(seed)).argsort(stable=True)


@dataclass(frozen=True)
class Noise:
    """The random numbers of a batch of examples.

    Args:
        seed: of the whole computation.
        ids: one whole number an example, shape (b,): its place in the data set, not in the batch.
    """

    seed: int
    ids: Tensor

    def stream(self, number: int) -> Noise:
        """Unrelated numbers for the same examples, for a second purpose at the same step."""
        return Noise(fold(self.seed, number), self.ids)

    def bits(self, step: Tensor | int, shape: tuple[int, ...]) -> Tensor:
        """64 random bits each, int64 of shape (b, *shape); `step` is one number, or one an example of shape (b,)."""
        count = 1
        for size in shape:
            count *= size
        key = mix(mix(self.ids + fold(self.seed)) + step)
        position = torch.arange(1, count + 1, device=self.ids.device) * _GOLDEN
        return mix(key[:, None] + position).view(-1, *shape)

    def uniform(self, step: Tensor | int, shape: tuple[int, ...] = ()) -> Tensor:
        """Uniform on [0, 1), multiples of 2^-24; float32 of shape (b, *shape)."""
        return _shift_right(self.bits(step, shape), 40).float() * 2.0**-24

    def normal(self, step: Tensor | int, shape: tuple[int, ...] = ()) -> Tensor:
        """Standard normal by inversion of the distribution function; float32 of shape (b, *shape)."""
        u = (_shift_right(self.bits(step, shape), 40).double() + 0.5) * 2.0**-24
        return (torch.erfinv(2 * u - 1) * 2**0.5).float()
