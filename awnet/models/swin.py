"""Swin transformers (Liu et al., 2021, https://arxiv.org/abs/2103.14030) for images of 32 and 64 pixels.

Patches become tokens; attention looks at windows of tokens, which are shifted by half in every second block; between the four
stages each 2 x 2 tokens become one of twice as many channels. With patches of 4, windows of 7 and 10 classes Swin-T has
27,527,044 parameters and Swin-S 48,844,948, as the AW-Net paper prints them in units of 10^6. On 32 pixels such patches leave
8 x 8 tokens, and the last stage a single one, so `patch` is 2 and `window` 4 here, which rounds to the same millions.

A map smaller than a window is one window; one that windows do not divide is padded, and nobody attends to the padding.
Without stochastic depth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.model import MODELS, Architecture
from awnet.types import Images, Logits


@setting
@dataclass(frozen=True, kw_only=True)
class SwinConfig(Architecture):
    """A Swin transformer.

    Args:
        depths: blocks in each of the four stages.
        width: channels of the first stage, a multiple of its heads.
        heads: of the first stage; the next ones have twice as many each.
        patch: pixels of a side of a token.
        window: tokens of a side of a window.
    """

    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    width: int = 96
    heads: int = 3
    patch: int = 2
    window: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(*self.depths, self.width, self.heads, self.patch, self.window) < 1 or self.width % self.heads:
            raise Mistake(
                "Swin needs at least 1 of everything and a width that is a multiple of heads, got "
                f"depths={self.depths}, width={self.width}, heads={self.heads}, patch={self.patch}, window={self.window}"
            )

    def build(self, *, classes: int, channels: int = 3) -> Swin:
        return Swin(self, classes=classes, channels=channels)

    def narrow(self) -> SwinConfig:
        return replace(self, depths=(2, 1, 1, 1), width=8, heads=2, patch=1)


class WindowAttention(nn.Module):
    """softmax(q k' / sqrt(d) + b) v within windows, b a learned function of where two tokens lie to each other (Eq. 4)."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.bias, std=0.02)

    def forward(self, x: Tensor, shift: int) -> Tensor:
        """Tokens (b, h, w, width) to the same; `shift` in tokens."""
        b, h, w, width = x.shape
        rows, columns = min(self.window, h), min(self.window, w)
        x = F.pad(x, (0, 0, 0, -w % columns, 0, -h % rows)).roll((-shift, -shift), (1, 2))
        high, wide = x.shape[1] // rows, x.shape[2] // columns
        windows = x.view(b, high, rows, wide, columns, width).permute(0, 1, 3, 2, 4, 5)
        windows = windows.reshape(b, high * wide, rows * columns, width)
        q, k, v = self.qkv(windows).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        mask = self.bias[_offsets(rows, columns, self.window)].permute(2, 0, 1)  # (heads, tokens, tokens)
        mask = mask + _apart(h, w, rows, columns, shift).to(x)[:, None]  # (windows, heads, tokens, tokens)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out = self.out(out.transpose(2, 3).flatten(3))
        out = out.view(b, high, wide, rows, columns, width).permute(0, 1, 3, 2, 4, 5)
        out = out.reshape(b, high * rows, wide * columns, width)
        return out.roll((shift, shift), (1, 2))[:, :h, :w]


def _offsets(rows: int, columns: int, window: int) -> Tensor:
    """The place in the table of biases for each pair of tokens in a window, (tokens, tokens)."""
    row, column = (t.flatten() for t in torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"))
    down, right = (t[:, None] - t[None] + window - 1 for t in (row, column))
    return down * (2 * window - 1) + right


def _apart(h: int, w: int, rows: int, columns: int, shift: int) -> Tensor:
    """-infinity for each pair of tokens in a window that are no neighbours in the image, (windows, tokens, tokens)."""
    regions = []
    for size, side in ((h, rows), (w, columns)):
        place = torch.arange(size + -size % side)
        region = (place >= size).long() * 2  # padding
        region = region.roll(-shift)
        if shift:
            region[-shift:] += 1  # wrapped around
        regions.append(region)
    region = (4 * regions[0][:, None] + regions[1]).view(len(regions[0]) // rows, rows, -1, columns)
    region = region.transpose(1, 2).reshape(-1, rows * columns)
    return torch.where(region[:, :, None] == region[:, None], 0.0, -torch.inf)


class SwinBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, window: int, *, shifted: bool) -> None:
        super().__init__()
        self.shifted, self.window = shifted, window
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads, window)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        alone = min(x.shape[1:3]) <= self.window  # one window has no neighbours to shift to
        x = x + self.attention(self.norm1(x), self.window // 2 if self.shifted and not alone else 0)
        return x + self.mlp(self.norm2(x))


class Merge(nn.Module):
    """Each 2 x 2 tokens become one of twice as many channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduce = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], dim=3)
        return self.reduce(self.norm(x))


class Swin(nn.Module):
    """Normalisation, patches to tokens, four stages, layer norm, mean over the tokens, linear head."""

    def __init__(self, config: SwinConfig, *, classes: int, channels: int = 3) -> None:
        super().__init__()
        self.normalize = config.normalize(channels)
        self.patches = nn.Conv2d(channels, config.width, config.patch, config.patch)
        self.norm = nn.LayerNorm(config.width)
        self.stages = nn.Sequential()
        for stage, depth in enumerate(config.depths):
            width, heads = config.width * 2**stage, config.heads * 2**stage
            blocks = [SwinBlock(width, heads, config.window, shifted=i % 2 == 1) for i in range(depth)]
            merge = [Merge(width // 2)] if stage else []
            self.stages.append(nn.Sequential(*merge, *blocks))
        self.last_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        self.apply(_initialise)

    def forward(self, x: Images) -> Logits:
        tokens = self.norm(self.patches(self.normalize(x)).permute(0, 2, 3, 1))
        return self.head(self.last_norm(self.stages(tokens)).mean((1, 2)))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


MODELS.register("swin-t")(SwinConfig())
MODELS.register("swin-s")(SwinConfig(depths=(2, 2, 18, 2)))
