"""Fig. 1 and 3 of the AW-Net paper for any networks: how the means of their filters are spread, and how they differ.

The first network is the one that the others are held against: a standard one, to ask whether those that were trained
adversarially have "sharp distributions, while standard models have smooth distributions" (section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import exp, isfinite, log
from statistics import fmean
from typing import Any, get_args

from torch import Tensor, nn

from awnet.analysis.distributions import Ratio, deviation_ratio, moments, wasserstein
from awnet.analysis.filter_means import Per, convolutions, filter_means
from awnet.errors import Mistake

PER: tuple[Per, ...] = get_args(Per)


@dataclass(frozen=True, kw_only=True)
class Filters:
    """The filters of one network.

    Attributes:
        shapes: of each convolution's weight, (c_out, c_in, k, k), by name, in order.
        means: for each way to divide, each layer's filter means, shape (c_out,).
    """

    shapes: dict[str, tuple[int, ...]]
    means: dict[Per, dict[str, Tensor]]

    @property
    def layers(self) -> list[str]:
        """Their names, in the order in which the network was built."""
        return list(self.shapes)


def filters_of(model: nn.Module) -> Filters:
    """Look at a network.

    Raises:
        Mistake: where it has no convolutions, or filters that are not finite.
    """
    shapes = {name: tuple(conv.weight.shape) for name, conv in convolutions(model).items()}
    return Filters(shapes=shapes, means={per: filter_means(model, per) for per in PER})


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One layer of one network against the layer of another in the same place.

    Attributes:
        deviation: how many times as wide its filter means are.
        wasserstein: how far the two distributions of means are apart, in units of the means.
    """

    deviation: Ratio
    wasserstein: float


def differences(of: Filters, against: Filters, per: Per, *, seed: int = 0) -> dict[str, Difference]:
    """Layer by layer, by the names that `of` gives them, where the layers in one place have one shape; {} where none has."""
    found = {}
    for ours, theirs in zip(of.layers, against.layers, strict=False):
        if of.shapes[ours] == against.shapes[theirs]:
            a, b = of.means[per][ours], against.means[per][theirs]
            found[ours] = Difference(deviation=deviation_ratio(a, b, seed=seed), wasserstein=wasserstein(a, b))
    return found


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Over all layers of a network: whether its filter means are spread less than those of another.

    Attributes:
        ratio: the geometric mean of the layers' ratios of deviations.
        narrower, wider: how many layers are, with an interval that leaves out 1.
        layers: how many were compared.
    """

    ratio: float
    narrower: int
    wider: int
    layers: int


def verdict(found: Mapping[str, Difference]) -> Verdict:
    """Of the layers that were compared."""
    ratios = [d.deviation for d in found.values() if d.deviation.value > 0 and isfinite(d.deviation.value)]
    return Verdict(
        ratio=exp(fmean(log(r.value) for r in ratios)) if ratios else float("nan"),
        narrower=sum(r.high < 1 for r in ratios),
        wider=sum(r.low > 1 for r in ratios),
        layers=len(ratios),
    )


def figures(networks: Mapping[str, Filters], *, seed: int = 0) -> dict[str, Any]:
    """All numbers as JSON has them: of each network by itself, and against the first.

    Raises:
        Mistake: where there is no network.
    """
    if not networks:
        raise Mistake("name one network or more to look at its filters")
    first, *others = networks
    return {
        "networks": {name: _of_one(filters) for name, filters in networks.items()},
        f"against {first}": {
            name: {per: _against(networks[name], networks[first], per, seed) for per in PER} for name in others
        },
    }


def _of_one(filters: Filters) -> dict[str, Any]:
    return {
        name: {"shape": list(shape), **{per: asdict(moments(filters.means[per][name])) for per in PER}}
        for name, shape in filters.shapes.items()
    }


def _against(of: Filters, against: Filters, per: Per, seed: int) -> dict[str, Any]:
    found = differences(of, against, per, seed=seed)
    return {"all layers": asdict(verdict(found)), "layers": {name: asdict(one) for name, one in found.items()}}
