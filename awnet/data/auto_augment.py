"""AutoAugment (Cubuk et al., 2019, https://arxiv.org/abs/1805.09501): the policy found for CIFAR-10, for a whole batch at once.

Each image meets one of 25 pairs of operations, each of them with a probability and a strength (appendix there). The operations
are Pillow's, on uint8: geometry takes the nearest pixel and grey where there is none. Strengths are m/9 of the largest, and
where they have a direction, either is as likely; translations are a share of the side, at most 150/331.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from awnet.noise import Noise

GREY = 128  # where an image is moved away


class Move(NamedTuple):
    """One operation of a pair: which, how likely, and how strong from 0 to 9."""

    name: str
    probability: float
    strength: int


def _policy(text: str) -> tuple[tuple[Move, Move], ...]:
    moves = [
        Move(name, float(p), int(m)) for name, p, m in (move.split() for move in text.replace("\n", ";").split(";"))
    ]
    return tuple(zip(moves[::2], moves[1::2], strict=True))


POLICY = _policy("""\
invert .1 7; contrast .2 6
rotate .7 2; translate-x .3 9
sharpness .8 1; sharpness .9 3
shear-y .5 8; translate-y .7 9
autocontrast .5 8; equalize .9 2
shear-y .2 7; posterize .3 7
color .4 3; brightness .6 7
sharpness .3 9; brightness .7 9
equalize .6 5; equalize .5 1
contrast .6 7; sharpness .6 5
color .7 7; translate-x .5 8
equalize .3 7; autocontrast .4 8
translate-y .4 3; sharpness .2 6
brightness .9 6; color .2 8
solarize .5 2; invert .0 3
equalize .2 0; autocontrast .6 0
equalize .2 8; equalize .6 4
color .9 9; equalize .6 6
autocontrast .8 4; solarize .2 8
brightness .1 3; color .7 0
solarize .4 5; autocontrast .9 3
translate-y .9 9; translate-y .7 9
autocontrast .9 2; solarize .8 3
equalize .8 8; invert .1 3
translate-y .7 9; autocontrast .9 1""")


def auto_augment(x: Tensor, noise: Noise, step: int = 0) -> Tensor:
    """Images of shape (b, c, h, w), uint8, grey or RGB, each changed by its own pair of operations.

    Args:
        x: the images.
        noise: of the same b examples; what happens to an image does not depend on its batch.
        step: the draw to take from `noise`.
    """
    draws = noise.uniform(step, (5,))
    pair = (draws[:, 0] * len(POLICY)).long()
    for slot in (0, 1):
        coin, sign = draws[:, 1 + slot], torch.where(draws[:, 3 + slot] < 0.5, -1.0, 1.0)
        moves = [moves[slot] for moves in POLICY]
        probability, strength = (torch.tensor(values).to(coin)[pair] for values in list(zip(*moves, strict=True))[1:])
        for name, operation in OPERATIONS.items():
            of_name = torch.tensor([move.name == name for move in moves], device=x.device)
            chosen = (of_name[pair] & (coin < probability)).nonzero()[:, 0]
            if len(chosen):
                x = x.index_copy(0, chosen, operation(x[chosen], strength[chosen].double() / 9, sign[chosen].double()))
    return x


# Operations: images (n, c, h, w) in uint8, a strength (n,) in [0, 1] and a sign (n,) to images.


def _moved(x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor) -> Tensor:
    """What lies at (a u + b v + c, d u + e v + f) comes to (u, v), counted in pixels from the corner."""
    height, width = x.shape[2:]
    v = torch.arange(height, device=x.device)[:, None].double() + 0.5
    u = torch.arange(width, device=x.device)[None].double() + 0.5
    a, b, c, d, e, f = (t[:, None, None] for t in (a, b, c, d, e, f))
    column, row = (a * u + b * v + c).floor().long(), (d * u + e * v + f).floor().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    place = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).flatten(1)
    taken = x.flatten(2).gather(2, place[:, None].expand(-1, x.shape[1], -1)).view_as(x)
    return torch.where(inside[:, None], taken, GREY).to(x.dtype)


def _shear_x(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    one, zero = torch.ones_like(sign), torch.zeros_like(sign)
    return _moved(x, one, 0.3 * strength * sign, zero, zero, one, zero)


def _shear_y(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    return _shear_x(x.mT, strength, sign).mT


def _translate_x(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    one, zero = torch.ones_like(sign), torch.zeros_like(sign)
    return _moved(x, one, zero, 150 / 331 * x.shape[3] * strength * sign, zero, one, zero)


def _translate_y(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    return _translate_x(x.mT, strength, sign).mT


def _rotate(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """By up to 30 degrees around the middle, counterclockwise where the sign is positive."""
    angle = -pi / 6 * strength * sign
    cos, sin = angle.cos(), angle.sin()
    y0, x0 = x.shape[2] / 2, x.shape[3] / 2
    return _moved(x, cos, sin, x0 - cos * x0 - sin * y0, -sin, cos, y0 + sin * x0 - cos * y0)


def _blended(x: Tensor, plain: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """plain + (1 +- 0.9 strength) (x - plain), cut to whole numbers."""
    factor = (1 + 0.9 * strength * sign)[:, None, None, None].float()
    plain = plain.float()
    return (plain + factor * (x.float() - plain)).clamp(0, 255).to(torch.uint8)


def _luma(x: Tensor) -> Tensor:
    """ITU-R 601-2, in 16 bits; (n, 1, h, w)."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.long().unbind(1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16)[:, None]


def _color(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    return _blended(x, _luma(x), strength, sign)


def _contrast(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    mean = (_luma(x).double().mean((1, 2, 3)) + 0.5).floor()
    return _blended(x, mean[:, None, None, None], strength, sign)


def _brightness(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    return _blended(x, torch.zeros_like(x), strength, sign)


def _sharpness(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Against the image under a 3 x 3 filter, 5 in the middle and 1 around; the edge pixels stay."""
    around = F.avg_pool2d(x.double(), 3, 1, divisor_override=1)
    smooth = x.double()
    smooth[:, :, 1:-1, 1:-1] = ((around + 4 * smooth[:, :, 1:-1, 1:-1]) / 13 + 0.5).floor()
    return _blended(x, smooth, strength, sign)


def _invert(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    return 255 - x


def _posterize(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Down to 4 bits a channel."""
    lost = 8 - (8 - 4 * strength).round().to(torch.uint8)[:, None, None, None]
    return (x >> lost) << lost


def _solarize(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """What is bright is inverted."""
    bright = x >= (256 * (1 - strength))[:, None, None, None]
    return torch.where(bright, 255 - x, x)


def _autocontrast(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Each channel is stretched over all of 0 to 255."""
    low, high = x.amin((2, 3), keepdim=True).double(), x.amax((2, 3), keepdim=True).double()
    scale = torch.full_like(low, 255) / (high - low).clamp(min=1)
    stretched = (x * scale - low * scale).clamp(0, 255).to(torch.uint8)
    return torch.where(high > low, stretched, x)


def _equalize(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Each channel's histogram is made even, in whole numbers."""
    flat = x.flatten(2).long()
    count = torch.zeros(*flat.shape[:2], 256, dtype=torch.int64, device=x.device)
    count.scatter_add_(2, flat, torch.ones_like(flat))
    last = count.gather(2, flat.amax(2, keepdim=True))
    step = (flat.shape[2] - last) // 255
    below = count.cumsum(2) - count
    even = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, even.gather(2, flat), flat).view_as(x).to(x.dtype)


OPERATIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "shear-x": _shear_x,
    "shear-y": _shear_y,
    "translate-x": _translate_x,
    "translate-y": _translate_y,
    "rotate": _rotate,
    "color": _color,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
    "invert": _invert,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
