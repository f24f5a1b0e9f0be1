"""MixBN of AW-Net (section 4.2, Eq. 13-14): one batch norm for clean images, one for adversarial ones.

Statistics and affine parameters are both duplicated, as in gated batch norm (Liu et al., 2020) and AdvProp (Xie et al.,
2020), from which it comes.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor, nn

from awnet.types import PerExample


class Branch(Enum):
    """Which batch norms the images of a call go through; always an argument, never inferred from `self.training`.

    Attributes:
        MIXTURE: both, weighted by the router's P_type as at test time (Eq. 14). The default.
        CLEAN: BN_nat for all images.
        ADVERSARIAL: BN_adv for all images.
        HALVES: the batch is [clean; adversarial], each half through its own (Eq. 13): joint training in one pass.
    """

    MIXTURE = "mixture"
    CLEAN = "clean"
    ADVERSARIAL = "adversarial"
    HALVES = "halves"


class Route(NamedTuple):
    """How a batch passes through the dynamic network.

    Attributes:
        branch: which batch norms.
        p: P_type, the probability of being clean, shape (b,); used by `Branch.MIXTURE` alone.
        definition: compute as the equations are written, instead of the fast way.
    """

    branch: Branch
    p: PerExample | None = None
    definition: bool = False


class MixBatchNorm2d(nn.Module):
    """BN_nat and BN_adv. In training mode they use and update batch statistics, each those of its own images only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.nat = nn.BatchNorm2d(channels)
        self.adv = nn.BatchNorm2d(channels)

    def forward(self, pi: Tensor, route: Route) -> Tensor:
        if route.branch is Branch.CLEAN:
            return self.nat(pi)
        if route.branch is Branch.ADVERSARIAL:
            return self.adv(pi)
        if route.branch is Branch.HALVES:
            clean, adversarial = pi.chunk(2)
            return torch.cat([self.nat(clean), self.adv(adversarial)])
        assert route.p is not None and not self.training
        p = route.p.to(pi.dtype)[:, None, None, None]
        return (1 - p) * self.adv(pi) + p * self.nat(pi)  # Eq. 14

    def affine(self, route: Route) -> tuple[Tensor, Tensor]:
        """(scale, shift) such that in eval mode BN_mix(pi) = scale * pi + shift; of shape (c,), or (b, c) for a mixture.

        With running statistics each batch norm is an affine map of a channel, and so is their mixture:
        scale = p gamma_n / sigma_n + (1 - p) gamma_a / sigma_a, shift = p (beta_n - gamma_n mu_n / sigma_n) + ... .
        """
        if route.branch is Branch.CLEAN:
            return _affine(self.nat)
        if route.branch is Branch.ADVERSARIAL:
            return _affine(self.adv)
        assert route.p is not None
        (scale_n, shift_n), (scale_a, shift_a) = _affine(self.nat), _affine(self.adv)
        p = route.p[:, None].to(scale_n.dtype)  # under autocast the router answers in bfloat16
        return torch.lerp(scale_a, scale_n, p), torch.lerp(shift_a, shift_n, p)


class OneBatchNorm2d(nn.Module):
    """A single batch norm in MixBN's place: clean and adversarial images are one batch to it, and one sort at test time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.all = nn.BatchNorm2d(channels)

    def forward(self, pi: Tensor, route: Route) -> Tensor:
        return self.all(pi)

    def affine(self, route: Route) -> tuple[Tensor, Tensor]:
        """(scale, shift) of the channels in eval mode."""
        return _affine(self.all)


Norm = type[MixBatchNorm2d] | type[OneBatchNorm2d]


def _affine(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert bn.running_mean is not None and bn.running_var is not None
    scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
    return scale, bn.bias - bn.running_mean * scale


class MixConv2d(nn.Module):
    """A convolution followed by MixBN, its filters as they are: the stem and the shortcuts of AW-Net."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, norm: Norm = MixBatchNorm2d) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        self.bn = norm(c_out)

    def forward(self, x: Tensor, route: Route) -> Tensor:
        pi = self.conv(x)
        if self.training or route.definition or route.branch is Branch.HALVES:
            return self.bn(pi, route)
        return scale_and_shift(pi, *self.bn.affine(route))


def scale_and_shift(pi: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """scale * pi + shift a channel, or an image and channel; in the type of pi, so that bfloat16 stays bfloat16."""
    scale, shift = (t.to(pi.dtype)[..., None, None] for t in (scale, shift))
    return (pi * scale).add_(shift)  # not addcmul, which a CPU does slowly where channels come first
