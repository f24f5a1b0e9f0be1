"""The networks of the public codes, written anew from what their papers and their names say: independent of awnet's own.

Each class says whose names it has. Only shapes, names and the order of operations matter here, at any width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(c_in: int, c_out: int, size: int = 3, stride: int = 1, padding: int | None = None) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, size, stride, size // 2 if padding is None else padding, bias=False)


class TradesBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(c_in), conv(c_in, c_out, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(c_out), conv(c_out, c_out)
        self.convShortcut = conv(c_in, c_out, 1, stride) if c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        activated = torch.relu(self.bn1(x))
        out = self.conv2(torch.relu(self.bn2(self.conv1(activated))))
        return out + (x if self.convShortcut is None else self.convShortcut(activated))


class TradesGroup(nn.Module):
    def __init__(self, count: int, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        blocks = [TradesBlock(c_in, c_out, stride)] + [TradesBlock(c_out, c_out, 1) for _ in range(count - 1)]
        self.layer = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class TradesWideResNet(nn.Module):
    """WRN of TRADES, MTARD, HAT and RobustBench, with or without the group that is not used."""

    def __init__(self, depth: int, widen: int, classes: int, *, unused: bool) -> None:
        super().__init__()
        n, widths = (depth - 4) // 6, [16, 16 * widen, 32 * widen, 64 * widen]
        self.conv1 = conv(3, 16)
        self.block1 = TradesGroup(n, widths[0], widths[1], 1)
        if unused:
            self.sub_block1 = TradesGroup(n, widths[0], widths[1], 1)
        self.block2 = TradesGroup(n, widths[1], widths[2], 2)
        self.block3 = TradesGroup(n, widths[2], widths[3], 2)
        self.bn1, self.fc = nn.BatchNorm2d(widths[3]), nn.Linear(widths[3], classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(F.adaptive_avg_pool2d(torch.relu(self.bn1(out)), 1).flatten(1))


class GowalBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.batchnorm_0, self.conv_0 = nn.BatchNorm2d(c_in), conv(c_in, c_out, 3, stride, padding=0)
        self.batchnorm_1, self.conv_1 = nn.BatchNorm2d(c_out), conv(c_out, c_out)
        self.shortcut = conv(c_in, c_out, 1, stride) if c_in != c_out else None
        self.pad = nn.ZeroPad2d((1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1))

    def forward(self, x: Tensor) -> Tensor:
        activated = self.batchnorm_0(x)
        activated = activated * torch.sigmoid(activated)
        out = self.batchnorm_1(self.conv_0(self.pad(activated)))
        out = self.conv_1(out * torch.sigmoid(out))
        return out + (x if self.shortcut is None else self.shortcut(activated))


class GowalGroup(nn.Module):
    def __init__(self, count: int, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        blocks = [GowalBlock(c_in, c_out, stride)] + [GowalBlock(c_out, c_out, 1) for _ in range(count - 1)]
        self.block = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class GowalWideResNet(nn.Module):
    """WRN with Swish of Gowal et al., HAT, MTARD (mean and std nowhere in the file) and RobustBench (among the buffers)."""

    def __init__(self, depth: int, widen: int, classes: int, *, buffers: bool, mean=None, std=None) -> None:
        super().__init__()
        n, widths = (depth - 4) // 6, [16, 16 * widen, 32 * widen, 64 * widen]
        for name, value in (
            ("mean", mean or (0.4914, 0.4822, 0.4465)),
            ("std", std or (0.2471, 0.2435, 0.2616)),
        ):
            self.register_buffer(name, torch.tensor(value).view(3, 1, 1), persistent=buffers)
        self.init_conv = conv(3, 16)
        groups = [GowalGroup(n, *widths[i : i + 2], 1 if i == 0 else 2) for i in range(3)]
        self.layer = nn.Sequential(*groups)
        self.batchnorm, self.logits = nn.BatchNorm2d(widths[3]), nn.Linear(widths[3], classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.batchnorm(self.layer(self.init_conv((x - self.mean) / self.std)))
        return self.logits(F.adaptive_avg_pool2d(out * torch.sigmoid(out), 1).flatten(1))


class Basic(nn.Module):
    """A residual block whose shortcut is called `name`."""

    def __init__(self, c_in: int, c_out: int, stride: int, name: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(c_in, c_out, 3, stride), nn.BatchNorm2d(c_out)
        self.conv2, self.bn2 = conv(c_out, c_out), nn.BatchNorm2d(c_out)
        same = stride == 1 and c_in == c_out
        way = nn.Sequential() if same else nn.Sequential(conv(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out))
        self.name = name
        self.add_module(name, way)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(out + self.get_submodule(self.name)(x))


class Narrowing(nn.Module):
    """A bottleneck."""

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(c_in, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        same = stride == 1 and c_in == 4 * width
        self.shortcut = nn.Sequential()
        if not same:
            self.shortcut = nn.Sequential(conv(c_in, 4 * width, 1, stride), nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
        return torch.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


class KuangResNet(nn.Module):
    """ResNet of TRADES, HAT, MTARD and RobustBench."""

    def __init__(self, depth: int, width: int, classes: int) -> None:
        super().__init__()
        counts = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}[depth]
        self.conv1, self.bn1 = conv(3, width), nn.BatchNorm2d(width)
        c_in = width
        for stage, count in enumerate(counts):
            blocks = []
            for i in range(count):
                stride = 2 if stage and i == 0 else 1
                c_out = width * 2**stage
                blocks.append(Narrowing(c_in, c_out, stride) if depth == 50 else Basic(c_in, c_out, stride, "shortcut"))
                c_in = c_out * (4 if depth == 50 else 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(c_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        for stage in range(1, 5):
            out = self.get_submodule(f"layer{stage}")(out)
        return self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))


class CifarResNet(nn.Module):
    """ResNet-6n+2 with the names of torchvision: the clean teacher of MTARD."""

    def __init__(self, depth: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(3, width), nn.BatchNorm2d(width)
        c_in = width
        for stage in range(3):
            blocks = []
            for i in range((depth - 2) // 6):
                blocks.append(Basic(c_in, width * 2**stage, 2 if stage and i == 0 else 1, "downsample"))
                c_in = width * 2**stage
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(c_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        for stage in range(1, 4):
            out = self.get_submodule(f"layer{stage}")(out)
        return self.fc(F.adaptive_avg_pool2d(out, 1).flatten(1))


class PreActive(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(c_in), conv(c_in, c_out, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(c_out), conv(c_out, c_out)
        self.changes = stride != 1 or c_in != c_out
        if self.changes:
            self.shortcut = nn.Sequential(conv(c_in, c_out, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        activated = torch.relu(self.bn1(x))
        out = self.conv2(torch.relu(self.bn2(self.conv1(activated))))
        return out + (self.shortcut(activated) if self.changes else x)


class HatPreActResNet(nn.Module):
    """Pre-activation ResNet of HAT and RobustBench."""

    def __init__(self, depth: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv1, c_in = conv(3, width), width
        for stage, count in enumerate({18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}[depth]):
            blocks = []
            for i in range(count):
                blocks.append(PreActive(c_in, width * 2**stage, 2 if stage and i == 0 else 1))
                c_in = width * 2**stage
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.bn, self.linear = nn.BatchNorm2d(c_in), nn.Linear(c_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(x)
        for stage in range(1, 5):
            out = self.get_submodule(f"layer{stage}")(out)
        return self.linear(F.adaptive_avg_pool2d(torch.relu(self.bn(out)), 1).flatten(1))


class Inverted(nn.Module):
    def __init__(self, c_in: int, c_out: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = expansion * c_in
        self.conv1, self.bn1 = conv(c_in, width, 1), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, c_out, 1), nn.BatchNorm2d(c_out)
        self.added, self.shortcut = stride == 1, nn.Sequential()
        if self.added and c_in != c_out:
            self.shortcut = nn.Sequential(conv(c_in, c_out, 1), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
        out = self.bn3(self.conv3(out))
        return out + self.shortcut(x) if self.added else out


class KuangMobileNet(nn.Module):
    """MobileNet-V2 of MTARD."""

    def __init__(self, factor: float, classes: int) -> None:
        super().__init__()
        table = [
            (1, 16, 1, 1),
            (6, 24, 2, 1),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ]
        c_in, last = round(32 * factor), round(1280 * factor)
        self.conv1, self.bn1 = conv(3, c_in), nn.BatchNorm2d(c_in)
        blocks = []
        for expansion, width, count, stride in table:
            for i in range(count):
                blocks.append(Inverted(c_in, round(width * factor), expansion, stride if i == 0 else 1))
                c_in = round(width * factor)
        self.layers = nn.Sequential(*blocks)
        self.conv2, self.bn2 = conv(c_in, last, 1), nn.BatchNorm2d(last)
        self.linear = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layers(torch.relu(self.bn1(self.conv1(x))))
        return self.linear(F.adaptive_avg_pool2d(torch.relu(self.bn2(self.conv2(out))), 1).flatten(1))


class SwinAttention(nn.Module):
    """Among the tokens of each window, (windows, tokens, width); buffers as Liu et al. save them, where `buffers` says so."""

    def __init__(self, width: int, heads: int, window: int, mask: Tensor | None, *, buffers: bool) -> None:
        super().__init__()
        self.heads, self.mask = heads, mask
        places = [(i, j) for i in range(window) for j in range(window)]
        index = [[(i - k + window - 1) * (2 * window - 1) + j - m + window - 1 for k, m in places] for i, j in places]
        self.register_buffer("relative_position_index", torch.tensor(index), persistent=buffers)
        seed = torch.Generator().manual_seed(width + heads + window)
        self.relative_position_bias_table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads, generator=seed))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        each = []
        for head, (q, k, v) in enumerate(
            zip(*(t.chunk(self.heads, -1) for t in self.qkv(x).chunk(3, -1)), strict=True)
        ):
            scores = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5
            scores = scores + self.relative_position_bias_table[:, head][self.relative_position_index]
            if self.mask is not None:
                scores = scores + self.mask.repeat(len(x) // len(self.mask), 1, 1)
            each.append(scores.softmax(-1) @ v)
        return self.proj(torch.cat(each, -1))


def windows(x: Tensor, window: int) -> Tensor:
    """(b, h, w, width) to (windows, tokens, width), image by image and row by row."""
    rows = [row.split(window, 1) for image in x for row in image.split(window, 0)]
    return torch.stack([tile.flatten(0, 1) for row in rows for tile in row])


class SwinMlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class ForeignSwinBlock(nn.Module):
    def __init__(self, width: int, heads: int, size: int, window: int, shift: int, *, buffers: bool) -> None:
        super().__init__()
        self.size, self.window, self.shift = size, *((size, 0) if size <= window else (window, shift))
        mask = None
        if self.shift:
            cut = [slice(0, -window), slice(-window, -shift), slice(-shift, None)]
            regions = torch.zeros(1, size, size, 1)
            for number, (down, right) in enumerate((a, b) for a in cut for b in cut):
                regions[:, down, right] = number
            of = windows(regions, window)
            mask = torch.where(of == of.transpose(1, 2), 0.0, -100.0)
        self.register_buffer("attn_mask", mask, persistent=buffers)
        self.norm1, self.norm2, self.mlp = nn.LayerNorm(width), nn.LayerNorm(width), SwinMlp(width)
        self.attn = SwinAttention(width, heads, self.window, mask, buffers=buffers)

    def forward(self, x: Tensor) -> Tensor:
        moved = torch.roll(self.norm1(x), (-self.shift, -self.shift), (1, 2))
        seen = self.attn(windows(moved, self.window)).unflatten(1, (self.window, self.window))
        count = self.size // self.window
        rows = [torch.cat(list(row), 1) for row in seen.split(count)]
        out = torch.stack([torch.cat(rows[i * count : (i + 1) * count], 0) for i in range(len(x))])
        x = x + torch.roll(out, (self.shift, self.shift), (1, 2))
        return x + self.mlp(self.norm2(x))


class Merging(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        four = x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]
        return self.reduction(self.norm(torch.cat(four, -1)))


class ForeignSwin(nn.Module):
    """Swin with the names of Liu et al., or with those of newer versions of timm, which merges first and has head.fc."""

    def __init__(
        self,
        classes: int,
        *,
        size: int,
        patch: int,
        window: int,
        width: int,
        heads: int,
        depths: tuple[int, ...],
        timm: bool,
    ) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch), "norm": nn.LayerNorm(width)})
        self.layers, self.timm = nn.ModuleList(), timm
        for stage, depth in enumerate(depths):
            own, side = width * 2**stage, size // patch // 2**stage
            blocks = [
                ForeignSwinBlock(own, heads * 2**stage, side, window, window // 2 * (i % 2), buffers=not timm)
                for i in range(depth)
            ]
            layer = nn.ModuleDict({"blocks": nn.Sequential(*blocks)})
            if timm and stage:
                layer["downsample"] = Merging(own // 2)
            if not timm and stage < len(depths) - 1:
                layer["downsample"] = Merging(own)
            self.layers.append(layer)
        self.norm = nn.LayerNorm(own)
        head = nn.Linear(own, classes)
        self.head = nn.ModuleDict({"fc": head}) if timm else head

    def forward(self, x: Tensor) -> Tensor:
        out = self.patch_embed["norm"](self.patch_embed["proj"](x).permute(0, 2, 3, 1))
        for layer in self.layers:
            for part in ("downsample", "blocks") if self.timm else ("blocks", "downsample"):
                out = layer[part](out) if part in layer else out
        out = self.norm(out).flatten(1, 2).mean(1)
        return (self.head["fc"] if self.timm else self.head)(out)


class Normalization(nn.Module):
    """HAT's: its numbers are plain tensors, so that no file holds them."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.mean, self.sigma = (torch.tensor(v).view(1, -1, 1, 1) for v in (mean, std))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.sigma


class ImageNormalizer(nn.Module):
    """RobustBench's: its numbers are buffers."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std
