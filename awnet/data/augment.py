"""Random crops and mirrored images, for a whole batch at once.

The standard recipe for small images since "Deeply-supervised nets" (Lee et al., 2015, https://arxiv.org/abs/1409.5185):
pad with zeros, cut a window of the old size, mirror every other image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from awnet.errors import Mistake
from awnet.noise import Noise


def crop_and_flip(x: Tensor, noise: Noise, step: Tensor | int, padding: int, flip: bool) -> Tensor:
    """Move each image by up to `padding` pixels up, down, left or right, and mirror half of them.

    Args:
        x: images of shape (b, c, h, w), uint8 or floating point, on any device.
        noise: of the same b examples; an image's window does not depend on its batch.
        step: the draw to take from `noise`.
        padding: the zeros (black) put on every side before an (h, w) window is cut, in pixels.
        flip: whether to mirror an image left to right with probability 1/2.
    """
    b, c, h, w = x.shape
    draws = noise.bits(step, (3,))
    top, left = (draws[:, :2] % (2 * padding + 1)).unbind(1)
    mirrored = draws[:, 2, None] % 2 == 1 if flip else torch.zeros(b, 1, dtype=torch.bool, device=x.device)
    column = torch.arange(w, device=x.device)
    rows = top[:, None] + torch.arange(h, device=x.device)
    columns = left[:, None] + torch.where(mirrored, w - 1 - column, column)
    image = torch.arange(b, device=x.device)[:, None, None, None]
    channel = torch.arange(c, device=x.device)[:, None, None]
    padded = F.pad(x, (padding, padding, padding, padding))
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What is done to training images: `crop_and_flip` with these settings.

    Raises:
        Mistake: where padding is negative.
    """

    padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise Mistake(f"padding counts pixels, expected 0 or more, got {self.padding}")

    def __call__(self, x: Tensor, noise: Noise) -> Tensor:
        """Images of shape (b, c, h, w), uint8 or floating point, in; the same shape, type and range out.

        Raises:
            Mistake: where padding is not smaller than the images, which could then be moved out of sight.
        """
        if self.padding >= min(x.shape[2:]):
            raise Mistake(
                f"images of {x.shape[3]}x{x.shape[2]} pixels would be moved out of sight by a padding of {self.padding}"
            )
        return crop_and_flip(x, noise, 0, self.padding, self.flip)
