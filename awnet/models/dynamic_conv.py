"""The filter-wise dynamic convolution of AW-Net (section 4.2, Eq. 10-12, 15).

Filter m of an image is omega_m K_m. A convolution is linear in its filter, so scaling filter m is scaling output channel
m, and no copy of the weights an image is needed:  (omega_m K_m) * psi = omega_m (K_m * psi).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from awnet.models.mix_batch_norm import Branch, MixBatchNorm2d, Norm, Route, scale_and_shift
from awnet.types import Signals


def filters_per_image(x: Tensor, conv: nn.Conv2d, omega: Signals) -> Tensor:
    """pi = W_hat * psi with W_hat = concat(omega_1 K_1, ..., omega_c K_c) built for every image (Eq. 11-12)."""
    b, c_in, h, w = x.shape
    w_hat = omega[:, :, None, None, None] * conv.weight  # (b, c_out, c_in, k, k)
    groups = x.reshape(1, b * c_in, h, w)
    out = F.conv2d(groups, w_hat.flatten(0, 1), None, conv.stride, conv.padding, conv.dilation, groups=b)
    return out.view(b, -1, *out.shape[2:])


class DynamicConv2d(nn.Module):
    """F_j(psi) = BN_mix(W_hat * psi), one modulated convolution with its MixBN (Eq. 15)."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, norm: Norm = MixBatchNorm2d) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        self.bn = norm(c_out)

    def forward(self, x: Tensor, omega: Signals | None, route: Route) -> Tensor:
        """Images (b, c_in, h, w) and signals (b, c_out), or None for omega = 1."""
        if route.definition:
            omega = torch.ones(len(x), self.conv.out_channels).to(x) if omega is None else omega
            return self.bn(filters_per_image(x, self.conv, omega), route)
        pi = self.conv(x)
        if self.training or route.branch is Branch.HALVES:
            pi = pi if omega is None else pi * omega.to(pi.dtype)[:, :, None, None]
            return self.bn(pi, route)
        # At test time omega, both batch norms and their mixture are one affine map of an image's channel.
        scale, shift = route.affine(self.bn)
        return scale_and_shift(pi, scale if omega is None else omega * scale, shift)
