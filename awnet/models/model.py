"""What the library knows of a model: how one is described, made, and asked.

Any `nn.Module` from [0, 1] images to logits can be trained, attacked and judged. The networks of this package are
described by frozen `Architecture` settings, so that a checkpoint can say what to build before its weights are read. A
model that also tells attacked images from clean ones offers `Detecting`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from awnet.errors import Mistake
from awnet.noise import fold
from awnet.registry import Registry
from awnet.types import Images, Logits, PerExample


@dataclass(frozen=True, kw_only=True)
class Architecture(ABC):
    """A network before it has a number of classes and weights.

    Args:
        mean, std: of each channel, for networks that normalise their input; the first layer then does. Empty: none.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @abstractmethod
    def build(self, *, classes: int, channels: int = 3) -> nn.Module:
        """The network with random weights from torch's global generator; see `create` for a seeded one."""

    @abstractmethod
    def narrow(self) -> Architecture:
        """The same network a few channels wide, for tests."""

    def normalize(self, channels: int) -> nn.Module:
        """The first layer of every network."""
        return Normalize(self.mean, self.std, channels) if self.mean or self.std else nn.Identity()


MODELS: Registry[Architecture] = Registry("model")


def create(architecture: str | Architecture, *, classes: int, channels: int = 3, seed: int = 0) -> nn.Module:
    """A network with seeded random weights; the global generator is left as it was.

    Args:
        architecture: settings, or the name of an entry of `MODELS`.
        classes: at least 2.
        channels: of the images.
        seed: of the weights.
    """
    if classes < 2:
        raise Mistake(f"a classifier needs at least 2 classes, got {classes}")
    settings = MODELS[architecture] if isinstance(architecture, str) else architecture
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fold(seed) % 2**63)
        return settings.build(classes=classes, channels=channels)


class Normalize(nn.Module):
    """(x - mean) / std a channel: the first layer of a network, never a step outside it, so that eps means pixels."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], channels: int) -> None:
        super().__init__()
        if not len(mean) == len(std) == channels:
            raise Mistake(f"normalisation needs a mean and std for each of {channels} channels, got {mean} and {std}")
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Images) -> Images:
        return (x - self.get_buffer("mean")) / self.get_buffer("std")


@runtime_checkable
class Detecting(Protocol):
    """A model that says, beside the class, how likely the image is clean."""

    def detect(self, x: Images) -> tuple[Logits, PerExample]:
        """Logits, and the probability in [0, 1] that each image has not been attacked."""
        ...


def judge(model: nn.Module, x: Images) -> tuple[Logits, PerExample]:
    """Logits and P(clean) of any model; NaN where the model does not tell."""
    if isinstance(model, Detecting):
        return model.detect(x)
    logits = model(x)
    return logits, torch.full((len(x),), float("nan"), device=x.device)


def parameter_count(model: nn.Module) -> int:
    """How many numbers training adjusts."""
    return sum(p.numel() for p in model.parameters())
