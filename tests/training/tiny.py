"""Images, networks and teachers small enough to be trained in a second, the same on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from awnet.data import Dataset, Loader
from awnet.data.dataset import Split
from awnet.data.loader import Batch
from awnet.models import AWNet, AWNetConfig, ResNetConfig, RouterConfig, create
from awnet.models.swin import SwinBlock
from awnet.noise import Noise
from models.randomised import randomise, unsettle

CLASSES = 3
NARROW = ResNetConfig(depth=10, width=4)
DYNAMIC = AWNetConfig(base=NARROW, router=RouterConfig(backbone=NARROW))


def dataset(n: int = 24, *, split: Split = "train", seed: int = 0) -> Dataset:
    """Grey 8x8 images: noise, and a bright band at a place that tells the class."""
    ids = torch.arange(n) + 100
    labels = torch.arange(n) % CLASSES
    noise = Noise(seed, ids).uniform(0, (1, 8, 8)) * 150
    band = (torch.arange(8)[None] // 3 == labels[:, None]).float()[:, None, :, None] * 100
    return Dataset("bands", split, (noise + band).to(torch.uint8), labels, ids, tuple("abc"))


def batch(n: int = 6, seed: int = 0) -> Batch:
    """One batch in double precision, for values by hand."""
    data = dataset(n, seed=seed)
    x, y = data.batch(torch.arange(n))
    return Batch(x.double(), y, data.ids)


class Doubles(Loader):
    """A loader of images in double precision, in which rounding does not grow into other numbers on other machines."""

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        for x, y, ids in super().epoch(number, start):
            yield Batch(x.double(), y, ids)


class Own(nn.Module):
    """A user's network: batch norm and dropout, nothing of this package."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, 1, 1)
        self.bn = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        features = torch.relu(self.bn(self.conv(self.dropout(x))))
        return self.head(nn.functional.avg_pool2d(features, 2).flatten(1))


class Attentive(nn.Module):
    """A transformer of two blocks, with a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 4, 2, 2)
        self.bn = nn.BatchNorm2d(4)
        self.blocks = nn.ModuleList(SwinBlock(4, 2, 4, shifted=False) for _ in range(2))
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.bn(self.patches(x)).permute(0, 2, 3, 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens.mean((1, 2)))


def attentive() -> Attentive:
    """As if trained: its attention has something to say."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Attentive()
        randomise(model)
        for block in model.blocks:
            nn.init.normal_(block.attention.bias)
        return model.double().train()


def own(seed: int = 0, dropout: float = 0.0) -> Own:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Own(dropout)


def awnet(x: Tensor, **settings) -> AWNet:
    """A narrow AW-Net as if trained (BN_nat and BN_adv far apart), in double precision and training mode."""
    model = create(replace(DYNAMIC, **settings), classes=CLASSES, channels=1).double()
    unsettle(model, x)
    assert isinstance(model, AWNet)
    return model.train()


def teachers(x: Tensor | None = None) -> dict[str, nn.Module]:
    """Two networks that disagree, and a helper that is one of them; in double precision where images in it are given."""
    found = {"clean": own(5, dropout=0.5), "robust": own(6, dropout=0.5)}
    for network in found.values():
        nn.init.normal_(network.head.weight, std=0.5, generator=torch.Generator().manual_seed(3))
        network.head.weight.data *= 1 if network is found["clean"] else -0.5
        if x is not None:
            network.double()
    return {**found, "helper": found["clean"]}
