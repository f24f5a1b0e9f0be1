"""MixBN of AW-Net (section 4.2, Eq. 13-14): one batch norm for clean images, one for adversarial ones.

Statistics and affine parameters are both duplicated, as in gated batch norm (Liu et al., 2020) and AdvProp (Xie et al.,
2020), from which it comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


Affine = tuple[Tensor, Tensor]


class Route(NamedTuple):
    """How a batch passes through the dynamic network.

    Attributes:
        branch: which batch norms.
        p: P_type, the probability of being clean, shape (b,); used by `Branch.MIXTURE` alone.
        definition: compute as the equations are written, instead of the fast way.
        maps: what the batch norms of the network are on this route, where that is known (`affine_maps`).
    """

    branch: Branch
    p: PerExample | None = None
    definition: bool = False
    maps: Mapping[nn.Module, Affine] | None = None

    def affine(self, norm: MixBatchNorm2d | OneBatchNorm2d) -> Affine:
        """(scale, shift) of a batch norm; see `affine_maps`."""
        return (affine_maps([norm], self) if self.maps is None else self.maps)[norm]


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

    def met(self, branch: Branch) -> list[nn.BatchNorm2d]:
        """The batch norms that a whole batch meets; of a mixture BN_adv, then BN_nat."""
        return {Branch.CLEAN: [self.nat], Branch.ADVERSARIAL: [self.adv], Branch.MIXTURE: [self.adv, self.nat]}[branch]


class OneBatchNorm2d(nn.Module):
    """A single batch norm in MixBN's place: clean and adversarial images are one batch to it, and one sort at test time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.all = nn.BatchNorm2d(channels)

    def forward(self, pi: Tensor, route: Route) -> Tensor:
        return self.all(pi)

    def met(self, branch: Branch) -> list[nn.BatchNorm2d]:
        """The batch norms that a whole batch meets."""
        return [self.all]


Norm = type[MixBatchNorm2d] | type[OneBatchNorm2d]


def affine_maps(norms: Sequence[MixBatchNorm2d | OneBatchNorm2d], route: Route) -> dict[nn.Module, Affine]:
    """(scale, shift) of each such that in eval mode BN_mix(pi) = scale * pi + shift; (c,), or (b, c) for a mixture.

    With running statistics a batch norm is an affine map of a channel, and so is a mixture of two:
    scale = p gamma_n / sigma_n + (1 - p) gamma_a / sigma_a, shift = p (beta_n - gamma_n mu_n / sigma_n) + ... .
    All are computed at once: one by one they would be hundreds of operations on a few numbers each.
    """
    met = [norm.met(route.branch) for norm in norms]
    maps = [_affine(bns) for bns in zip(*met, strict=True)]
    if len(maps) == 2:
        assert route.p is not None
        p = route.p[:, None].to(maps[0][0].dtype)  # under autocast the router answers in bfloat16
        maps = [tuple(torch.lerp(of_adv, of_nat, p) for of_adv, of_nat in zip(*maps, strict=True))]
    scales, shifts = (t.split([bns[0].num_features for bns in met], dim=-1) for t in maps[0])
    return dict(zip(norms, zip(scales, shifts, strict=True), strict=True))


def _affine(bns: Sequence[nn.BatchNorm2d]) -> tuple[Tensor, ...]:
    weight, bias, mean, var = (
        torch.cat([getattr(bn, name) for bn in bns]) for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight * torch.rsqrt(var + bns[0].eps)
    return scale, bias - mean * scale


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
        return scale_and_shift(pi, *route.affine(self.bn))


def scale_and_shift(pi: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """scale * pi + shift a channel, or an image and channel; in the type of pi, so that bfloat16 stays bfloat16."""
    scale, shift = (t.to(pi.dtype)[..., None, None] for t in (scale, shift))
    return (pi * scale).add_(shift)  # not addcmul, which a CPU does slowly where channels come first
