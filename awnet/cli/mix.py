"""awnet mix: one network from two: the static mixture, or with a detector a Separate-Net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from awnet.cli.arguments import parse
from awnet.cli.checkpoints import few, load_checkpoint, load_pair, save_made_of
from awnet.errors import Mistake

if TYPE_CHECKING:
    from torch import nn

    from awnet.models.model import Architecture

    Part = tuple[nn.Module, Architecture]


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Make one network of two checkpoints: the mixture of their probabilities, or with a detector a Separate-Net."""

    clean: tyro.conf.Positional[Path]
    """The accurate network."""
    robust: tyro.conf.Positional[Path]
    """The robust network."""
    out: Path
    """The new checkpoint's folder."""
    weight: float = 0.5
    """Of the clean network's probabilities."""
    sharpness: float = 1.0
    """What the robust network's logits are multiplied by."""
    detector: Path | None = None
    """A Separate-Net whose detector is to choose between the two, or a network of the classes adversarial and clean."""
    soft: bool = False
    """Whether the detector mixes the two by P(clean) instead of choosing one."""


def mix(argv: Sequence[str]) -> None:
    """Write a network that is made of two."""
    options = parse(Mix, argv, "awnet mix")
    (clean, about_clean), (robust, about) = load_pair(options.clean, options.robust, options.out, "cpu")
    parts = (clean, _architecture(about_clean)), (robust, _architecture(about))
    network, config = _mixture(options, *parts) if options.detector is None else _separate_net(options, *parts)
    paths = [path for path in (options.clean, options.robust, options.detector) if path]
    save_made_of(options.out, network, config, about, paths)
    print(f"mixture: {options.out}; next: awnet evaluate {options.out}")


def _architecture(about: dict[str, Any]) -> Architecture:
    from awnet.config import from_json
    from awnet.models.model import Architecture

    return from_json(about["architecture"], Architecture, "architecture")


def _mixture(options: Mix, clean: Part, robust: Part) -> Part:
    from awnet.models.static_mixture import StaticMixture, StaticMixtureConfig

    if options.soft:
        raise Mistake("--soft says how a detector mixes the two networks; name one by --detector")
    weight, sharpness = options.weight, options.sharpness
    config = StaticMixtureConfig(clean=clean[1], robust=robust[1], weight=weight, sharpness=sharpness)
    return StaticMixture(clean[0], robust[0], weight=weight, sharpness=sharpness), config


def _separate_net(options: Mix, clean: Part, robust: Part) -> Part:
    from awnet.models.separate_net import SeparateNet, SeparateNetConfig

    if (options.weight, options.sharpness) != (Mix.weight, Mix.sharpness):
        raise Mistake("--weight and --sharpness are of a mixture without --detector")
    assert options.detector is not None
    detector, about = load_checkpoint(options.detector, "cpu")
    described, bias = _architecture(about), 0.0
    if isinstance(detector, SeparateNet) and isinstance(described, SeparateNetConfig):
        if described.mean or described.std:
            raise Mistake(f"{options.detector} normalises before its parts, so its detector cannot stand by itself")
        detector, described, bias = detector.detector, described.detector, described.bias
    elif about["classes"] != ["adversarial", "clean"]:
        raise Mistake(
            "a detector is a Separate-Net's, or a network of the classes adversarial and clean, in this order; "
            f"{options.detector} has {few(about['classes'])}"
        )
    config = SeparateNetConfig(clean=clean[1], robust=robust[1], detector=described, bias=bias, soft=options.soft)
    return SeparateNet(clean[0], robust[0], detector, bias=bias, soft=options.soft), config
