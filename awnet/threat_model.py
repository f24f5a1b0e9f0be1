"""Threat models: what an attacker may do to an image x in [0, 1].

The perturbed image stays in the ball of radius eps around x in one norm, and in the box [0, 1]. Everything that depends
on the norm lives here, so that an attack is written once for all of them. Every method works example by example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from awnet.config import setting
from awnet.errors import Mistake
from awnet.noise import Noise
from awnet.types import Hits, Images, PerExample

ROUNDING = 1e-6  # of a distance; x + delta - x differs from delta, as float32 resolves 6e-8 near 1


def _norm(t: Images) -> Tensor:  # (b, 1, 1, 1)
    return t.flatten(1).norm(dim=1)[:, None, None, None]


@dataclass(frozen=True)
class ThreatModel(ABC):
    """A ball of radius `eps` around the image, cut with the box [0, 1].

    Args:
        eps: the radius, in units of the pixel range [0, 1]; 0 is allowed and leaves the image as it is.

    Raises:
        Mistake: where eps is negative, not finite, or out of any sensible range for the norm.
    """

    eps: float

    def __post_init__(self) -> None:
        if not 0 <= self.eps <= self.largest_eps:  # also refuses NaN
            raise Mistake(
                f"{type(self).__name__} needs an eps with 0 <= eps <= {self.largest_eps:g}, in units of the pixel "
                f"range [0, 1]; got {self.eps:g}{f' (did you mean {self.eps:g}/255?)' if self.eps > 1 else ''}"
            )

    largest_eps = 1.0

    @abstractmethod
    def distance(self, x: Images, x_adv: Images) -> PerExample:
        """The norm of x_adv - x, an example."""

    @abstractmethod
    def project(self, x_adv: Images, x: Images) -> Images:
        """The nearest image to x_adv in the ball, clipped to [0, 1] (clipping never leaves the ball, as x is in the box)."""

    @abstractmethod
    def ascend(self, gradient: Images) -> Images:
        """The step of unit length in this norm that raises a linear function of this gradient most; 0 where it is 0."""

    @abstractmethod
    def uniform(self, noise: Noise, step: Tensor | int, shape: tuple[int, ...]) -> Images:
        """A perturbation drawn uniformly from the ball, shape (b, *shape)."""

    def contains(self, x: Images, x_adv: Images) -> Hits:
        """Whether each x_adv is allowed for its x, up to rounding."""
        in_box = ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(1)
        return in_box & (self.distance(x, x_adv) <= self.eps + self.rounding(x.shape[1:].numel()))

    def rounding(self, pixels: int) -> float:
        """By how much the distance of a projected image of so many pixels can exceed eps in float32."""
        return ROUNDING

    def __str__(self) -> str:
        in_255ths = self.eps * 255
        whole = 0 < self.eps < 1 and abs(in_255ths - round(in_255ths)) < 1e-6
        eps = f"{round(in_255ths)}/255" if whole else f"{self.eps:g}"
        return f"{type(self).__name__} {eps}"


@setting
@dataclass(frozen=True)
class Linf(ThreatModel):
    """max_i |x_adv - x|_i <= eps."""

    def distance(self, x: Images, x_adv: Images) -> PerExample:
        return (x_adv - x).abs().flatten(1).amax(1)

    def project(self, x_adv: Images, x: Images) -> Images:
        return torch.clamp(torch.clamp(x_adv, x - self.eps, x + self.eps), 0, 1)

    def ascend(self, gradient: Images) -> Images:
        return gradient.sign()

    def uniform(self, noise: Noise, step: Tensor | int, shape: tuple[int, ...]) -> Images:
        return self.eps * (2 * noise.uniform(step, shape) - 1)


@setting
@dataclass(frozen=True)
class L2(ThreatModel):
    """sum_i (x_adv - x)_i^2 <= eps^2."""

    largest_eps = 100.0  # half the diagonal of a 115-pixel RGB image

    def distance(self, x: Images, x_adv: Images) -> PerExample:
        return (x_adv - x).flatten(1).norm(dim=1)

    def project(self, x_adv: Images, x: Images) -> Images:
        delta = x_adv - x
        delta = delta * (self.eps / _norm(delta).clamp(min=1e-12)).clamp(max=1)
        return torch.clamp(x + delta, 0, 1)

    def rounding(self, pixels: int) -> float:
        # on an even image every pixel may be rounded the same way, and their errors of 3e-8 add up to sqrt(pixels) of it
        return ROUNDING * (self.eps + pixels**0.5 / 10)

    def ascend(self, gradient: Images) -> Images:
        # scaled before it is squared: the gradient of a confident network may be below 1e-23, whose square is 0
        largest = gradient.abs().flatten(1).amax(1)[:, None, None, None]
        scaled = gradient / torch.where(largest > 0, largest, 1.0)
        return scaled / _norm(scaled).clamp(min=1)

    def uniform(self, noise: Noise, step: Tensor | int, shape: tuple[int, ...]) -> Images:
        # a normal vector has a uniform direction; the volume within radius r grows as r^d
        direction = self.ascend(noise.normal(step, shape))
        radius = self.eps * noise.stream(1).uniform(step) ** (1 / direction[0].numel())
        return direction * radius[:, None, None, None]
