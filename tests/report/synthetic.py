"""Records made of seeded random numbers, for the tests of reports."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from awnet.evaluation.modulation import Omega
from awnet.evaluation.record import Record, Result, Samples
from awnet.noise import Noise

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def hits(n: int, share: float, seed: int, within: Tensor | None = None) -> Tensor:
    """About this share of True, nested: a smaller share with the same seed is a part of a larger one."""
    found = Noise(seed, torch.arange(n)).uniform(0) < share
    return found if within is None else found & within


def result(labels: Tensor, correct: Tensor, p_clean: Tensor | None = None, steps: int = 0, **settings: Any) -> Result:
    n = len(labels)
    return Result(
        settings={"kind": "PGD", "steps": steps, **settings} if steps else None,
        correct=correct,
        prediction=torch.where(correct, labels, (labels + 1) % len(CLASSES)),
        p_clean=torch.full((n,), float("nan")) if p_clean is None else p_clean,
        forwards=torch.full((n,), steps + 1),
        backwards=torch.full((n,), steps),
        seconds=0.25 * steps,
    )


def scaled(made: Record, layers: int = 4) -> Record:
    """The record of a network that scales its filters; attacks move the later layers further, and later attacks more."""

    def omega(attack: int | None) -> dict[str, Omega]:
        far = 0.0 if attack is None else 0.05 * (attack + 1)
        return {
            f"block {k + 1}, conv 1": Omega(
                filters=64,
                mean=1 + far * k,
                deviation=0.1 + 0.02 * k,
                low=0.8 - far,
                median=1 + far * k,
                high=1.3 + 0.1 * k + far,
                shift=None if attack is None else far * (k + 1),
            )
            for k in range(layers)
        }

    attacks = {name: replace(found, omega=omega(k)) for k, (name, found) in enumerate(made.attacks.items())}
    return replace(made, clean=replace(made.clean, omega=omega(None)), attacks=attacks)


def samples(n: int, eps: float, side: int = 32) -> Samples:
    """Smooth pictures with a random sign at every pixel."""
    along = torch.linspace(0, 3, side)
    tint = torch.arange(n * 3).reshape(n, 3, 1, 1)
    x = 0.5 + 0.4 * torch.sin(along[:, None] * (1 + tint % 4) + tint) * torch.cos(along * (1 + tint % 3) - tint)
    sign = (Noise(3, torch.arange(n)).uniform(0, (3, side, side)) - 0.5).sign()
    return Samples(attack="pgd-sat", positions=torch.arange(n), x=x, x_adv=(x + eps * sign).clamp(0, 1))


def record(
    label: str = "static PGD-AT",
    *,
    n: int = 300,
    clean: float = 0.9,
    robust: float = 0.5,
    eps: float = 8 / 255,
    seed: int = 0,
    luck: int = 0,
    tells: float | None = None,
    aware: bool = True,
    shown: int = 0,
    history: int = 0,
    **more: Any,
) -> Record:
    """A model with these accuracies on 10 classes.

    Args:
        tells: how far apart clean and attacked images are in P(clean); None: the model does not tell.
        aware: whether an attack on the router was run, where the model tells.
        shown, history: how many samples and epochs there are.
    """
    ids = torch.arange(n)
    labels = ids % 10
    right = hits(n, clean, luck)
    u = Noise(luck + 7, ids)

    def p(shift: float, step: int) -> Tensor | None:
        return None if tells is None else torch.sigmoid(3 * u.normal(step) + shift)

    held = {"fgsm": robust + 0.1, "pgd-sat": robust + 0.01, "pgd-trades": robust + 0.02, "cw-inf": robust - 0.02}
    steps = {"fgsm": 1, "pgd-sat": 20, "pgd-trades": 20, "cw-inf": 30, "router-pgd": 40}
    if tells is not None and aware:
        held["router-pgd"] = robust - 0.03
    attacks = {
        name: result(
            labels,
            hits(n, share, luck + 1, right),
            p(tells * (0.2 if name == "router-pgd" else -1) if tells is not None else 0, k + 1),
            steps[name],
            step_size=0.25,
            loss={"kind": {"cw-inf": "Margin", "router-pgd": "Joint"}.get(name, "CrossEntropy")},
        )
        for k, (name, share) in enumerate(held.items())
    }
    about = {
        "class": "ResNet",
        "parameters": 11_173_962,
        "architecture": {"kind": "ResNetConfig", "depth": 18, "width": 64, "mean": [0.49, 0.48, 0.45]},
        "checkpoint": "runs/cifar10/pgd-at/best",
        "selection": "validation",
    }
    made = Record(
        label=label,
        model=about,
        data={"name": "cifar10", "split": "test", "n": n, "shape": [3, 32, 32], "fingerprint": "5f0c"},
        classes=CLASSES,
        threat={"kind": "Linf", "eps": eps, "text": f"Linf {round(eps * 255)}/255"},
        run={"seed": seed, "engine": {"kind": "Engine", "batch_size": 128, "precision": "float32"}},
        provenance={
            "time": "2026-11-23T04:00:00+00:00",
            "commit": "0123456789ab",
            "command": ["awnet", "evaluate", "runs/cifar10/pgd-at", "--attacks", "standard"],
            "python": "3.11.7",
            "versions": {"awnet": "0.1.0", "torch": "2.13.0"},
            "cpu": "a processor",
            "gpu": None,
        },
        ids=ids,
        labels=labels,
        clean=result(labels, right, p(tells or 0, 0)),
        attacks=attacks,
        samples=samples(shown, eps) if shown else None,
    )
    if history:
        made.model["history"] = [
            {
                "epoch": k + 1,
                "loss": 2.0 / (k + 1) + 0.4,
                "loss_type": 0.7 / (k + 1),
                "loss_adv": 1.2 / (k + 1) + 0.3,
                "lr_factor": 1 - k / history,
                **(
                    {"validation_clean": clean - 0.4 / (k + 1), "validation_robust": robust - 0.2 / (k + 1)}
                    if k % 2
                    else {}
                ),
            }
            for k in range(history)
        ]
    return replace(made, **more)
