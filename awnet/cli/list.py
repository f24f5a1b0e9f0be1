"""awnet list: what can be chosen by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from awnet.cli.arguments import parse

MIXTURES = {  # of any two networks, so they have no size of their own
    "static mixture": "Two networks' probabilities, averaged (awnet mix).",
    "MixedNUTS": "The same after a nonlinear transform of the robust logits (awnet nuts).",
    "adaptive smoothing": "The same with a weight for each image (awnet train cifar10/adaptive-smoothing).",
}
SMALLER = ("gpu/", "small/")  # scales whose recipes repeat those of the paper's own


@dataclass(frozen=True, kw_only=True)
class List:
    """What can be chosen by name."""

    kind: tyro.conf.Positional[
        Literal["models", "attacks", "detectors", "protocols", "objectives", "data", "recipes", "all"]
    ] = "all"
    """Which."""


def list_names(argv: Sequence[str]) -> None:
    """Print what can be chosen by name."""
    import torch

    import awnet.recipes  # noqa: F401
    from awnet.attacks import ATTACKS
    from awnet.data import DATASETS
    from awnet.data.hub import HubSet
    from awnet.data.source import Source
    from awnet.detection import DETECTORS
    from awnet.evaluation.protocol import protocols
    from awnet.experiment import RECIPES
    from awnet.models import MODELS
    from awnet.models.model import Architecture, parameter_count
    from awnet.training import OBJECTIVES, JointConfig
    from awnet.training.objective import ObjectiveConfig

    options = parse(List, argv, "awnet list")

    def size(architecture: Architecture) -> str:
        with torch.device("meta"):
            count = parameter_count(architecture.build(classes=10))
        return f"{first_line(type(architecture))} {count / 1e6:.2f}M parameters with 10 classes."

    def loss(config: ObjectiveConfig) -> str:
        over = f" Over {first_line(type(config.over))}" if isinstance(config, JointConfig) else ""
        return first_line(type(config)) + over

    def source(entry: Source) -> str:
        return f"{entry.hub_id} on the hub." if isinstance(entry, HubSet) else first_line(type(entry))

    kinds: dict[str, tuple[Mapping[str, Any], Callable[[Any], str]]] = {
        "models": (MODELS, size),
        "attacks": (ATTACKS, first_line),
        "detectors": (DETECTORS, first_line),
        "protocols": (protocols(), str),
        "objectives": (OBJECTIVES, loss),
        "data": (DATASETS, source),
        "recipes": (RECIPES, first_line),
    }
    for kind, (registry, describe) in kinds.items():
        if options.kind in (kind, "all"):
            table = Table(kind, "", box=None, header_style="bold")
            for name, entry in registry.items():
                if not name.startswith(SMALLER):
                    table.add_row(name, describe(entry))
            if kind == "models":
                for name, says in MIXTURES.items():
                    table.add_row(name, says)
            if kind == "recipes":
                for prefix in SMALLER:
                    table.add_row(f"{prefix}…", f"The same systems at scale {prefix[:-1]} (awnet reproduce --help).")
            Console().print(table, "")


def first_line(entry: Any) -> str:
    """What a function or class says of itself."""
    return (entry.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
