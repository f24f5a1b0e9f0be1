"""Benign changes: what happens to images without anybody meaning harm, and what a detector may mistake for an attack.

After Carlini et al. (2019, https://arxiv.org/abs/1902.06705) and the corruptions of Hendrycks and Dietterich (2019,
https://arxiv.org/abs/1903.12261). Each is a function of images, threat model and noise, one image at a time; a new one is a
function with `@BENIGN.register`. Those with a size in eps are as large as an attack may be, but know nothing of the network.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from awnet.noise import Noise
from awnet.registry import Registry
from awnet.threat_model import Linf, ThreatModel
from awnet.types import Images

Benign: TypeAlias = Callable[[Images, ThreatModel, Noise], Images]
BENIGN: Registry[Benign] = Registry("benign change")


@BENIGN.register("uniform noise")
def uniform_noise(x: Images, threat: ThreatModel, noise: Noise) -> Images:
    """A point of the ball, drawn uniformly."""
    return threat.project(x + threat.uniform(noise, 0, tuple(x.shape[1:])), x)


@BENIGN.register("sign noise")
def sign_noise(x: Images, threat: ThreatModel, noise: Noise) -> Images:
    """A corner of the ball: in Linf every pixel eps up or down, by chance."""
    signs = torch.where(noise.uniform(1, tuple(x.shape[1:])) < 0.5, -1.0, 1.0)
    length = threat.distance(torch.zeros_like(x), signs)[:, None, None, None]
    return threat.project(x + threat.eps * signs / length, x)


@BENIGN.register("Gaussian noise")
def gaussian_noise(x: Images, threat: ThreatModel, noise: Noise) -> Images:
    """Normal noise with a standard deviation of eps in Linf, and in other norms about eps long; it leaves the ball."""
    deviation = threat.eps if isinstance(threat, Linf) else threat.eps / x[0].numel() ** 0.5
    return (x + deviation * noise.normal(2, tuple(x.shape[1:]))).clamp(0, 1)


@BENIGN.register("JPEG")
def jpeg(x: Images, threat: ThreatModel, noise: Noise) -> Images:
    """Compressed at quality 75 and read again."""
    pixels = (x.detach().cpu().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return torch.stack([_compressed(image) for image in pixels]).to(x)


def _compressed(pixels: np.ndarray) -> torch.Tensor:
    """(h, w, c) bytes to (c, h, w) in [0, 1]."""
    if pixels.shape[2] not in (1, 3):  # no JPEG has so many colours: each by itself
        return torch.cat([_compressed(pixels[:, :, i : i + 1]) for i in range(pixels.shape[2])])
    file = BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "JPEG", quality=75)
    read = np.asarray(Image.open(file)).reshape(pixels.shape)
    return torch.from_numpy(read.copy()).permute(2, 0, 1).float() / 255


@BENIGN.register("blur")
def blur(x: Images, threat: ThreatModel, noise: Noise) -> Images:
    """Convolved with (1 2 1)/4 along rows and columns."""
    kernel = torch.tensor([1.0, 2.0, 1.0], device=x.device)
    kernel = (kernel[:, None] * kernel / 16).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=x.shape[1]).clamp(0, 1)


@BENIGN.register("brighter")
def brighter(x: Images, threat: ThreatModel, noise: Noise) -> Images:
    """Every pixel 0.1 up."""
    return (x + 0.1).clamp(max=1)


@BENIGN.register("darker")
def darker(x: Images, threat: ThreatModel, noise: Noise) -> Images:
    """Every pixel 0.1 down."""
    return (x - 0.1).clamp(min=0)
