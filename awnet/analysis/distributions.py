"""A few numbers as a distribution: how wide, how heavy its tails, how far from another, and as a smooth curve.

A layer has 16 to 512 filters, so each number comes with what says how sure it is, or next to the filters themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from awnet.errors import Mistake
from awnet.noise import Noise


@dataclass(frozen=True, kw_only=True)
class Moments:
    """The shape of a sample.

    Attributes:
        n: how many values.
        mean: of the values.
        deviation: the root of their mean squared distance from it.
        kurtosis: excess over a normal distribution's: 0 there, -1.2 for a uniform one, positive for heavy tails; NaN
            where all values are the same.
    """

    n: int
    mean: float
    deviation: float
    kurtosis: float


def moments(values: Tensor) -> Moments:
    """Of the values (n,), as a whole population: nothing is corrected for how few they are."""
    values = _checked(values)
    mean = values.mean()
    squares = (values - mean).square()
    variance = squares.mean()
    same = bool(variance <= (1e-12 * values.abs().max()) ** 2)
    return Moments(
        n=len(values),
        mean=float(mean),
        deviation=0.0 if same else float(variance.sqrt()),
        kurtosis=float("nan") if same else float(squares.square().mean() / variance**2 - 3),
    )


def wasserstein(a: Tensor, b: Tensor) -> float:
    """How far, on average, the values of one sample must be moved to become the other: int |F_a(t) - F_b(t)| dt."""
    a, b = _checked(a).sort().values, _checked(b).sort().values
    every = torch.cat([a, b]).sort().values
    # between two neighbours of all values, both distribution functions are constant
    f_a, f_b = (torch.searchsorted(sample, every[:-1], right=True) / len(sample) for sample in (a, b))
    return float(((f_a - f_b).abs() * every.diff()).sum())


def density(values: Tensor, at: Tensor, bandwidth: float | None = None) -> Tensor:
    """A kernel density estimate: f(t) = mean_i phi((t - v_i) / h) / h with the normal density phi.

    Args:
        values: the sample, shape (n,).
        at: where it is wanted, shape (m,).
        bandwidth: h; by Silverman's rule where it is not given.

    Returns:
        Shape (m,); integrates to 1.
    """
    values, at = _checked(values), at.double()
    h = silverman(values) if bandwidth is None else bandwidth
    if not h > 0:
        raise Mistake(f"a density needs a positive bandwidth, or values that differ to find one; got {h:g}")
    z = (at[:, None] - values) / h
    return torch.exp(-0.5 * z.square()).mean(1) / (h * (2 * torch.pi) ** 0.5)


def silverman(values: Tensor) -> float:
    """The bandwidth 0.9 min(deviation, quartile range / 1.34) n^(-1/5) (Silverman, 1986, Eq. 3.31).

    It follows the bulk of the values: by the deviation alone, a few filters far out would flatten the peak of the others.
    0 where all values are the same.
    """
    values = _checked(values)
    if len(values) < 2:
        return 0.0
    low, high = values.quantile(torch.tensor([0.25, 0.75]).to(values)).tolist()
    spreads = [spread for spread in (float(values.std()), (high - low) / 1.34) if spread > 0]
    return 0.9 * min(spreads, default=0.0) * len(values) ** -0.2


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times as wide one distribution is as another.

    Attributes:
        value: of the two samples' deviations; below 1 the first is the narrower one.
        low, high: of 95 % of the ratios that samples drawn anew from the two have. Where they span 1, the two are not
            distinguishable.
    """

    value: float
    low: float
    high: float


def deviation_ratio(a: Tensor, b: Tensor, *, seed: int = 0, draws: int = 2000) -> Ratio:
    """The deviation of `a` over that of `b`, with the percentile interval of the bootstrap (Efron, 1979).

    Args:
        a, b: two samples, of any lengths.
        seed: of the draws.
        draws: how many.
    """
    a, b = _checked(a), _checked(b)
    drawn = [_drawn(sample, seed, stream, draws).std(1, correction=0) for stream, sample in enumerate((a, b))]
    ratios = drawn[0] / drawn[1]
    ratios = ratios[ratios.isfinite()]
    value = float(a.std(correction=0) / b.std(correction=0))
    if not len(ratios):
        return Ratio(value=value, low=float("nan"), high=float("nan"))
    low, high = ratios.quantile(torch.tensor([0.025, 0.975]).to(ratios)).tolist()
    return Ratio(value=value, low=low, high=high)


def _drawn(sample: Tensor, seed: int, stream: int, draws: int) -> Tensor:
    """Samples of the same length, drawn with replacement: shape (draws, n)."""
    uniform = Noise(seed, torch.arange(draws)).stream(stream).uniform(0, (len(sample),))
    return sample[(uniform * len(sample)).long().clamp(max=len(sample) - 1)]


def _checked(values: Tensor) -> Tensor:
    if values.ndim != 1 or not len(values):
        raise Mistake(f"a distribution is asked of one row of values, got shape {tuple(values.shape)}")
    values = values.detach().double().cpu()
    if not values.isfinite().all():
        raise Mistake("a distribution is asked of finite numbers, got some that are not")
    return values
