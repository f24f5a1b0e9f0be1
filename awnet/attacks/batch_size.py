"""A batch size found by itself: the smallest that is nearly as fast as the fastest.

The attack's own question is put to the network, as the engine sees it, in larger and larger batches. What is asked about are
starts that are dropped afterwards: the search itself neither begins nor changes. The number belongs into the record, since
another one changes results by rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf

import torch
from torch import nn

from awnet.attacks.attack import Attack
from awnet.attacks.engine import Engine
from awnet.attacks.suite import Suite
from awnet.attacks.sweep import Examples
from awnet.models.model import device_of

LADDER = (32, 64, 128, 256, 512, 1024, 2048, 4096)
LARGEST_ON_CPU = 256  # by then its caches have long been too small
NEARLY = 0.9  # of the best throughput is as good: a small batch leaves memory and shares out the last examples better
SECONDS, TIMES = 0.3, 10  # a size is timed until one of them is reached; the quickest counts


def fitting_batch_size(
    model: nn.Module,
    examples: Examples,
    attack: Attack | Suite,
    engine: Engine,
    *,
    ladder: Sequence[int] = LADDER,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """The smallest batch size within 10 % of the best throughput.

    Args:
        model: what is to be attacked; left as it was.
        examples: which are to be attacked; no size is above their number rounded up to the ladder.
        attack: whose question is asked; of a suite that of its first member.
        engine: how it will be run; its own batch size is not looked at. Compiling each size would take longer than it
            saves, so sizes are compared without.
        ladder: the sizes, rising. The first that memory does not suffice for ends it.
        clock: the time in seconds.

    Returns:
        One of the ladder; its first where memory does not suffice even for that, and the engine will halve it.
    """
    device = device_of(model)
    most = min(len(examples), LARGEST_ON_CPU if device.type == "cpu" else ladder[-1])
    per_second: dict[int, float] = {}
    for place, size in enumerate(ladder):
        if place and (ladder[place - 1] >= most or not len(examples)):
            break
        try:
            per_second[size] = size / _seconds(model, examples, attack, _of(engine, size), device, clock)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
    best = max(per_second.values(), default=0.0)
    return next((size for size, speed in per_second.items() if speed >= NEARLY * best), ladder[0])


def _of(engine: Engine, size: int) -> Engine:
    return replace(engine, batch_size=size, compile=False)


def _seconds(
    model: nn.Module,
    examples: Examples,
    attack: Attack | Suite,
    engine: Engine,
    device: torch.device,
    clock: Callable[[], float],
) -> float:
    """How long one evaluation of a full batch takes at best."""
    with engine.asking(attack, model, examples) as ask:
        ask()  # the first one finds kernels and memory
        best, began = inf, _now(device, clock)
        before = began
        for _ in range(TIMES):
            ask()
            now = _now(device, clock)
            best, before = min(best, now - before), now
            if now - began >= SECONDS:
                break
    return max(best, 1e-9)


def _now(device: torch.device, clock: Callable[[], float]) -> float:
    """The time when a GPU has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock()
