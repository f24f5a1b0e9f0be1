"""The filters that an image meets in an AW-Net, omega_m(x) K_m (Eq. 11), on clean images and on attacked ones.

After Eq. 12 the paper says that "the filters' weights will have small variances" for adversarial examples and large ones for
clean examples. It shows no figure of it; these are the numbers that it would need. omega_m is positive, and so each
filter over its own norm is the same for every image whatever: a type can only change how filters are weighed against
each other, and that is what remains if all are divided by their layer's size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from awnet.errors import Mistake
from awnet.evaluation.modulation import signals
from awnet.models import AWNet
from awnet.models.dynamic_conv import DynamicConv2d
from awnet.types import Images, PerExample


@dataclass(frozen=True, kw_only=True)
class EffectiveFilters:
    """Those of one layer, for each of n images.

    Attributes:
        means: of the filters omega_m K_m, shape (n, c_out).
        deviation: of the layer's filter means from each other, an image.
        weights: the deviation of all the layer's weights, an image.
        size: the root mean square of all the layer's weights, an image.
    """

    means: Tensor
    deviation: PerExample
    weights: PerExample
    size: PerExample

    @property
    def relative(self) -> PerExample:
        """The deviation of the filter means where the layer is scaled to size 1: norm-free."""
        return self.deviation / self.size


def modulated(model: AWNet) -> dict[str, nn.Conv2d]:
    """The convolutions that the router scales, by the names of their modules, in the order of the signals."""
    return {f"{name}.conv": m.conv for name, m in model.named_modules() if isinstance(m, DynamicConv2d)}


def effective_filters(model: nn.Module, x: Images, batch_size: int = 128) -> dict[str, EffectiveFilters]:
    """The filters that each image meets, by the name of the layer's module.

    Args:
        model: an AW-Net, left as it was.
        x: images in [0, 1].
        batch_size: how many are looked at together.

    Raises:
        Mistake: where the model scales no filters, or there is no image.
    """
    if not isinstance(model, AWNet) or not model.knob.omega:
        raise Mistake(
            f"effective filters are those of an AW-Net whose knob lets omega be, got a {type(model).__name__}"
            f"{' with omega = 1' if isinstance(model, AWNet) else ''}"
        )
    if not len(x):
        raise Mistake("effective filters need images that the router looks at, got none")
    found = signals(model, x, batch_size).values()
    return {
        name: _scaled(conv.weight, omega) for (name, conv), omega in zip(modulated(model).items(), found, strict=True)
    }


def _scaled(weight: Tensor, omega: Tensor) -> EffectiveFilters:
    """Without a copy of the filters an image: the mean of omega K is omega times that of K, the mean square omega^2 times."""
    filters, omega = weight.detach().double().cpu().flatten(1), omega.double()
    means = omega * filters.mean(1)
    square = (omega.square() * filters.square().mean(1)).mean(1)
    return EffectiveFilters(
        means=means,
        deviation=means.std(1, correction=0),
        weights=(square - means.mean(1).square()).clamp(min=0).sqrt(),
        size=square.sqrt(),
    )


@dataclass(frozen=True, kw_only=True)
class Narrowing:
    """Whether an attack narrows a layer's filters, image by image: the claim after Eq. 12.

    Attributes:
        ratio: attacked over clean, the geometric mean over the images; below 1 the claim holds.
        low, high: its 95 % interval.
        share: of images whose filters are narrower once they are attacked.
    """

    ratio: float
    low: float
    high: float
    share: float


def narrowing(clean: Tensor, attacked: Tensor) -> Narrowing:
    """Compare the deviations (n,) of the same images, in the same order, before and after an attack."""
    if len(clean) != len(attacked) or len(clean) < 2:
        raise Mistake(f"an attack is compared on the same 2 or more images, got {len(clean)} and {len(attacked)}")
    logs = (attacked / clean).double().log()
    middle, error = logs.mean(), 1.96 * logs.std() / len(logs) ** 0.5
    ratio, low, high = torch.stack([middle, middle - error, middle + error]).exp().tolist()
    return Narrowing(ratio=ratio, low=low, high=high, share=float((logs < 0).double().mean()))
