"""How the signals omega of a dynamic network (Eq. 12 and 19 of the AW-Net paper) differ between clean and attacked images.

A few numbers a layer stay of them: all signals of 10,000 images would be some hundred megabytes. Their means over clean images
are also what an attacker may begin with: a network whose filters are scaled alike for everybody has no router to mislead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from awnet.attacks.frozen import frozen_for_attack
from awnet.data.dataset import Dataset
from awnet.models.model import Averaging, Deciding, Modulating, device_of
from awnet.types import Images

QUANTILES = (0.05, 0.5, 0.95)
AVERAGED = "averaged"  # the form's name
SAMPLE = 500  # clean images over which signals are averaged


@dataclass(frozen=True, kw_only=True)
class Omega:
    """The signals of one layer over a set of images.

    Attributes:
        filters: how many of its filters have a signal.
        mean: over images and filters.
        deviation: of a filter's signal between images: the root of the filters' mean variance.
        low, median, high: the 5, 50 and 95 % quantiles of all images' and filters' signals.
        shift: the mean absolute difference between an image's signals and those of the clean image that it was made
            from; None for the clean images themselves.
    """

    filters: int
    mean: float
    deviation: float
    low: float
    median: float
    high: float
    shift: float | None = None


def signals(model: nn.Module, x: Images, batch_size: int) -> dict[str, Tensor]:
    """Every image's signals on the CPU, shape (n, filters) for each layer; {} for a network that modulates nothing.

    Args:
        model: left as it was.
        x: the images, wherever they are.
        batch_size: how many are looked at together.
    """
    if not isinstance(model, Modulating) or not len(x):
        return {}
    device = device_of(model)
    with frozen_for_attack(model), torch.no_grad():
        found = [model.signals(part.to(device)) for part in x.split(batch_size)]
    return {layer: torch.cat([part[layer].float().cpu() for part in found]) for layer in found[0]}


def with_means(model: nn.Module, clean: Dataset, batch_size: int = 100) -> nn.Module:
    """The model, which offers its signals' means over clean images as a frozen form if it can (`Averaging`).

    Args:
        model: left as it was; one that offers them already is the answer.
        clean: a whole split, of which a fixed sample is looked at, so that no verdict depends on which images are attacked.
        batch_size: how many images are looked at together.
    """
    if not isinstance(model, Averaging) or (isinstance(model, Deciding) and AVERAGED in model.forms) or not len(clean):
        return model
    images, _ = (sample := clean.sample(SAMPLE, seed=0)).batch(torch.arange(len(sample)))
    found = signals(model, images, batch_size)
    return model.averaged({layer: omega.mean(0) for layer, omega in found.items()}) if found else model


def summarise(found: Mapping[str, Tensor], clean: Mapping[str, Tensor] | None = None) -> dict[str, Omega]:
    """The numbers of each layer; `clean`: the signals of the same images in the same order before the attack."""
    return {layer: _summary(omega, clean[layer] if clean else None) for layer, omega in found.items()}


def _summary(omega: Tensor, clean: Tensor | None) -> Omega:
    values = omega.double()
    low, median, high = np.quantile(values.numpy(), QUANTILES).tolist()  # torch.quantile refuses many values
    return Omega(
        filters=omega.shape[1],
        mean=float(values.mean()),
        deviation=float(values.var(0, correction=0).mean().sqrt()),
        low=low,
        median=median,
        high=high,
        shift=None if clean is None else float((values - clean).abs().mean()),
    )
