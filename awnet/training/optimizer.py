"""SGD with two learning rates, and schedules as plain functions of how much of the training is done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import cos, inf, pi

import torch
from torch import nn

from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.router import Router


@setting
@dataclass(frozen=True, kw_only=True)
class SGDConfig:
    """Stochastic gradient descent as the paper sets it (5.1).

    Args:
        lr: of everything but the router.
        router_lr: of AW-Net's router: feature extractor, type head and signal heads.
        momentum: without Nesterov's correction by default.
        weight_decay: of all parameters.
        nesterov: whether to use it.
    """

    lr: float = 0.1
    router_lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 2e-4
    nesterov: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.lr < inf and 0 < self.router_lr < inf):
            raise Mistake(
                f"learning rates must be positive and finite, got lr {self.lr:g} and router_lr {self.router_lr:g}"
            )
        if not (0 <= self.momentum < 1 and 0 <= self.weight_decay < inf):
            raise Mistake(
                "SGD needs 0 <= momentum < 1 and a weight_decay of 0 or more, got "
                f"{self.momentum:g} and {self.weight_decay:g}"
            )
        if self.nesterov and self.momentum == 0:
            raise Mistake("Nesterov's correction corrects momentum, and momentum is 0; raise it or leave nesterov out")

    def build(self, model: nn.Module) -> torch.optim.SGD:
        """An optimiser with one or two groups, each keeping its base rate under "base_lr"."""
        router = {id(p) for module in model.modules() if isinstance(module, Router) for p in module.parameters()}
        rest = [p for p in model.parameters() if id(p) not in router]
        groups = [{"params": rest, "lr": self.lr, "base_lr": self.lr}]
        if router:
            own = [p for p in model.parameters() if id(p) in router]
            groups.append({"params": own, "lr": self.router_lr, "base_lr": self.router_lr})
        return torch.optim.SGD(groups, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov)


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """The learning rate as a multiple of its base."""

    @abstractmethod
    def factor(self, done: float, epoch: float) -> float:
        """The multiple, where `done` in [0, 1) of all steps and `epoch` in [0, 1) of all whole epochs lie behind."""


@setting
@dataclass(frozen=True, kw_only=True)
class StepDecay(Schedule):
    """Divide at some epochs.

    Args:
        milestones: as fractions of the epochs, so that a shorter training keeps the shape. The paper's "at the 75-th, and
            90-th epoch" of 100 is read as TRADES, whose schedule it is: epochs 1-74, 75-89, 90-100.
        gamma: what the rate is multiplied by at each.
    """

    milestones: tuple[float, ...] = (0.74, 0.89)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if not all(0 <= milestone <= 1 for milestone in self.milestones):
            raise Mistake(f"milestones are fractions of the epochs, between 0 and 1, got {self.milestones}")
        if not 0 < self.gamma < inf:
            raise Mistake(f"gamma, what the learning rate is multiplied by, must be positive, got {self.gamma:g}")

    def factor(self, done: float, epoch: float) -> float:
        return self.gamma ** sum(epoch >= milestone - 1e-9 for milestone in self.milestones)


@setting
@dataclass(frozen=True, kw_only=True)
class OneCycle(Schedule):
    """Up from a fraction of the rate and down to nothing along two half cosines (Smith and Topin, 2018).

    The momentum stays what it is; torch's OneCycleLR by default also takes it from 0.95 to 0.85 and back.

    Args:
        warm_up: the share of steps on the way up.
        start: the fraction of the rate to begin with.
    """

    warm_up: float = 0.25
    start: float = 0.04

    def __post_init__(self) -> None:
        if not (0 <= self.warm_up <= 1 and 0 <= self.start <= 1):
            raise Mistake(
                "warm_up is a share of the steps and start a fraction of the learning rate, both between 0 and 1, got "
                f"{self.warm_up:g} and {self.start:g}"
            )

    def factor(self, done: float, epoch: float) -> float:
        if done < self.warm_up:
            return self.start + (1 - self.start) * (1 - cos(pi * done / self.warm_up)) / 2
        return (1 + cos(pi * (done - self.warm_up) / (1 - self.warm_up))) / 2


@setting
@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The base rate throughout."""

    def factor(self, done: float, epoch: float) -> float:
        return 1.0
