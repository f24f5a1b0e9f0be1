"""The means of a network's filters, layer by layer (Fig. 1 and 3 of the AW-Net paper, https://arxiv.org/abs/2306.03430).

A filter is the K_m of Eq. 10, of shape (c_in, k, k); the paper shows how the means of a layer's c_out filters are
distributed. Where batch norm follows, the network computes the same if a filter is multiplied by a positive number, so
that narrow means may only say that the filters are short. Two sizes take that freedom out:
- "filter": each filter over its own root mean square. What is left is the cosine between the filter and a constant one, in
  [-1, 1]. It is the mean of the filter over its norm, times the root of how many weights it has.
- "layer": all filters over the root mean square of their layer, so that they keep their sizes relative to each other.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from awnet.errors import Mistake

Per = Literal["weights", "filter", "layer"]  # what a mean is divided by; weights: nothing


def convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    """The convolutions of any network, by name, in the order in which it was built.

    Raises:
        Mistake: where it has none.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    if not found:
        raise Mistake(f"a {type(model).__name__} has no convolutions, and so no filters to look at")
    return found


def filter_means(model: nn.Module, per: Per = "weights") -> dict[str, Tensor]:
    """The mean of every filter of each convolution, float64 of shape (c_out,), on the CPU.

    Args:
        model: any network with convolutions.
        per: what the means are divided by. A filter that is zero everywhere has mean 0.

    Raises:
        Mistake: where the network has no convolution, or weights that are no finite numbers.
    """
    found = {name: means_of(conv.weight, per) for name, conv in convolutions(model).items()}
    for name, means in found.items():
        if not means.isfinite().all():
            raise Mistake(f"the filters of {name} hold numbers that are not finite; did the training diverge?")
    return found


def means_of(weight: Tensor, per: Per = "weights") -> Tensor:
    """The means of the filters of one layer's weight (c_out, c_in, k, k); see `filter_means`."""
    filters = weight.detach().double().cpu().flatten(1)
    means = filters.mean(1)
    if per == "weights":
        return means
    square = filters.square()
    size = (square.mean(1) if per == "filter" else square.mean()).sqrt()
    return means / size.where(size > 0, 1)
