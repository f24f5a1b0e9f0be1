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


def _room(x: Tensor, direction: Tensor) -> Tensor:
    """How far each pixel can go in a direction before it is black or white."""
    return torch.where(direction > 0, 1 - x, x)


def _water_level(capacity: Images, cap: Images, volume: PerExample) -> Tensor:
    """The level s at which sum_i capacity_i min(s, cap_i) is the volume, or the largest cap where it never is.

    Args:
        capacity, cap: at least 0.
        volume: at least 0.

    Returns:
        Shape (b, 1, 1, 1).
    """
    # on a GPU, to see whether a level has come to rest would be to wait for all that it has been given to do
    find = _risen if volume.device.type == "cpu" else _between_corners
    return find(capacity, cap, volume[:, None, None, None])


def _risen(capacity: Images, cap: Images, volume: Tensor) -> Tensor:
    """By Newton's method from below. The sum is concave in s, so that no step goes too far; the last one is exact."""
    held, highest = capacity * cap, cap.amax((1, 2, 3), keepdim=True)
    level = torch.zeros_like(volume)
    while True:
        open_ = (cap > level).to(cap)  # as numbers: on a CPU `torch.where` takes three times as long
        full = torch.addcmul(held, held, open_, value=-1).sum((1, 2, 3), keepdim=True)
        slope = (capacity * open_).sum((1, 2, 3), keepdim=True)
        onwards = torch.minimum((volume - full) / slope.clamp(min=1e-30), highest)
        rises = onwards > level  # not where the volume is no number
        if not rises.any():
            return level
        level = torch.where(rises, onwards, level)


def _between_corners(capacity: Images, cap: Images, volume: Tensor) -> Tensor:
    """By sorting: the sum is piecewise linear in s with its corners at the caps."""
    cap, order = cap.flatten(1).sort(dim=1)
    capacity, volume = capacity.flatten(1).gather(1, order), volume.flatten(1)
    full = (capacity * cap).cumsum(1)  # of the vessels that are full at each corner
    # a difference of sums would lose what little is open near the last corner
    higher = capacity.flip(1).cumsum(1).flip(1)
    open_ = torch.cat([higher[:, 1:], torch.zeros_like(volume)], dim=1)
    at_corner = full + cap * open_
    corner = (at_corner < volume).sum(1, keepdim=True)  # the first one that is high enough
    n = cap.shape[1]
    before = (corner - 1).clamp(min=0)
    began = corner > 0
    full_before = torch.where(began, full.gather(1, before), 0.0)
    open_before = torch.where(began, open_.gather(1, before), higher[:, :1])
    s = (volume - full_before) / open_before.clamp(min=1e-30)
    low = torch.where(began, cap.gather(1, before), 0.0)
    high = cap.gather(1, corner.clamp(max=n - 1))
    return torch.where(corner == n, cap[:, -1:], torch.minimum(torch.maximum(s, low), high))[:, :, None, None]


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
        """The nearest image to x_adv in the ball, clipped to [0, 1] (clipping never leaves the ball, as x is in the box).

        In L1 the nearest image in ball and box at once.
        """

    @abstractmethod
    def ascend(self, gradient: Images) -> Images:
        """The step of unit length in this norm that raises a linear function of this gradient most; 0 where it is 0."""

    @abstractmethod
    def to_plane(self, x: Images, normal: Images, height: PerExample) -> Images:
        """The shortest step in this norm from x to the plane on which a linear function is 0, within the box [0, 1].

        Where the box does not meet the plane, the step that comes closest to it.

        Args:
            x: images in [0, 1].
            normal: the gradient of the linear function.
            height: its value at x.
        """

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


def _scaled(normal: Images, height: PerExample) -> tuple[Images, PerExample]:
    """The same plane with a largest slope of 1, so that no square of a slope is lost to underflow."""
    largest = normal.abs().flatten(1).amax(1)
    scale = torch.where(largest > 0, largest, 1.0)
    return normal / scale[:, None, None, None], height / scale


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

    def to_plane(self, x: Images, normal: Images, height: PerExample) -> Images:
        # every pixel goes as far as the others, or to the edge of the box
        normal, height = _scaled(normal, height)
        direction = -normal.sign() * height.sign()[:, None, None, None]
        room = _room(x, direction)
        return direction * torch.minimum(room, _water_level(normal.abs(), room, height.abs()))

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

    def to_plane(self, x: Images, normal: Images, height: PerExample) -> Images:
        # every pixel goes in proportion to its slope, or to the edge of the box
        normal, height = _scaled(normal, height)
        direction = -normal * height.sign()[:, None, None, None]
        room = _room(x, direction)
        slope = normal.abs()
        cap = torch.where(slope > 1e-12, room / slope.clamp(min=1e-12), 0.0)  # a slope that small gains nothing
        return direction * torch.minimum(cap, _water_level(slope * slope, cap, height.abs()))

    def uniform(self, noise: Noise, step: Tensor | int, shape: tuple[int, ...]) -> Images:
        # a normal vector has a uniform direction; the volume within radius r grows as r^d
        direction = self.ascend(noise.normal(step, shape))
        # a power in float32 is rounded by the place of a number in its vector; in double that is lost in rounding
        radius = self.eps * (noise.stream(1).uniform(step).double() ** (1 / direction[0].numel())).float()
        return direction * radius[:, None, None, None]


@setting
@dataclass(frozen=True)
class L1(ThreatModel):
    """sum_i |x_adv - x|_i <= eps.

    The nearest image in the ball need not be in the box, and clipping it would waste budget; `project` finds the nearest
    image in both at once, in closed form (Croce and Hein, 2021, "Mind the box", https://arxiv.org/abs/2103.01208, 2).
    """

    largest_eps = 10_000.0

    def distance(self, x: Images, x_adv: Images) -> PerExample:
        return (x_adv - x).abs().flatten(1).sum(1)

    def project(self, x_adv: Images, x: Images) -> Images:
        return onto_l1_ball(x_adv, x, x.new_full((len(x),), self.eps))

    def rounding(self, pixels: int) -> float:
        # the errors of all pixels add up, see L2
        return ROUNDING * (self.eps + pixels / 10)

    def ascend(self, gradient: Images) -> Images:
        # the steepest pixel alone
        flat = gradient.flatten(1)
        steepest = flat.abs().argmax(1, keepdim=True)
        return torch.zeros_like(flat).scatter(1, steepest, flat.gather(1, steepest).sign()).view_as(gradient)

    def to_plane(self, x: Images, normal: Images, height: PerExample) -> Images:
        # the steepest pixels, each to the edge of the box, and the last of them as far as is still needed
        normal, height = _scaled(normal, height)
        direction = -normal.sign() * height.sign()[:, None, None, None]
        slope, order = normal.abs().flatten(1).sort(dim=1, descending=True, stable=True)
        room = (_room(x, direction) * (normal != 0)).flatten(1).gather(1, order)
        before = (slope * room).cumsum(1) - slope * room
        step = torch.minimum(room, (height.abs()[:, None] - before).clamp(min=0) / slope.clamp(min=1e-12))
        return direction * torch.zeros_like(step).scatter(1, order, step).view_as(x)

    def uniform(self, noise: Noise, step: Tensor | int, shape: tuple[int, ...]) -> Images:
        # n + 1 exponential numbers over their sum are uniform on a simplex; n of them, with signs, in the ball
        lengths = -torch.log1p(-noise.uniform(step, shape))
        rest = -torch.log1p(-noise.stream(1).uniform(step))
        total = (lengths.flatten(1).sum(1) + rest)[:, None, None, None]
        signs = torch.where(noise.stream(2).uniform(step, shape) < 0.5, -1.0, 1.0)
        return self.eps * signs * lengths / total.clamp(min=1e-30)


def onto_l1_ball(x_adv: Images, x: Images, radius: PerExample) -> Images:
    """The image of the box [0, 1] nearest to x_adv, in the Euclidean sense, at most `radius` away from x in L1.

    With d = x_adv - x and room_i what the box leaves pixel i in the direction of d, it is x + sign(d) u with
    u_i = clip(|d_i| - tau, 0, room_i), and tau the least number >= 0 for which sum_i u_i <= radius.
    """
    d = (x_adv - x).flatten(1)
    length, room = d.abs(), _room(x.flatten(1), d)

    # S(tau) = sum_i u_i falls linearly between corners: pixel i begins to count below |d_i|, and is full at |d_i| - room_i
    corners, order = torch.cat([length, length - room], dim=1).sort(dim=1, descending=True)
    n = length.shape[1]
    slope = torch.where(order < n, 1.0, -1.0).cumsum(1)
    drops = torch.cat([torch.zeros_like(corners[:, :1]), corners[:, :-1] - corners[:, 1:]], dim=1)
    sums = (drops * torch.cat([torch.zeros_like(slope[:, :1]), slope[:, :-1]], dim=1)).cumsum(1)  # S at each corner
    last = ((sums <= radius[:, None]).sum(1, keepdim=True) - 1).clamp(min=0)
    tau = corners.gather(1, last)  # S is at most the radius here, and more than it at the next corner

    # the same pixels count, and are full, a little below; their sums give tau with less rounding than the corners
    counts, full = length >= tau, length - room >= tau
    free = counts & ~full
    excess = (torch.where(free, length, 0.0) + torch.where(full, room, 0.0)).sum(1, keepdim=True) - radius[:, None]
    exact = excess / free.sum(1, keepdim=True).clamp(min=1)
    next_ = corners.gather(1, (last + 1).clamp(max=2 * n - 1))
    tau = torch.minimum(torch.maximum(exact, next_), tau).clamp(min=0)
    u = torch.minimum((length - tau).clamp(min=0), room)
    u = u * (radius[:, None] / u.sum(1, keepdim=True).clamp(min=1e-30)).clamp(max=1)
    return (x + (d.sign() * u).view_as(x)).clamp(0, 1)
