"""Fine-tuning: a training that starts from the weights of a checkpoint, whose classes may be others.

What depends on the number of classes starts afresh, everything else is kept: batch norms with their statistics, and of an
AW-Net the router with its type head. Which is which is found by making the network for both numbers of classes.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from torch import nn

from awnet.checkpoint import find, load, read_about
from awnet.config import to_json
from awnet.errors import Mistake
from awnet.models.model import Architecture, create

UNSEEN = ("kind", "mean", "std", "beta", "taps")  # settings that change an answer and no weight's shape


def start_from(path: str, model: nn.Module, architecture: Architecture | None, *, channels: int) -> dict[str, Any]:
    """Give a network that is about to be trained the weights of a checkpoint.

    Args:
        path: a checkpoint, or a run's folder, whose best checkpoint is meant.
        model: the network; its weights and statistics are changed in place.
        architecture: what it was made from; None for a module of the user's own, which takes all of the weights.
        channels: of the images that it will see.

    Returns:
        What it started from: the "path" of the checkpoint, the SHA-256 of its "weights", and which of the network's
        parameters started "afresh".

    Raises:
        Mistake: there is no checkpoint, it is damaged, its images have other channels, or its network is another one.
    """
    folder = find(path)
    about = read_about(folder)
    if about["shape"][0] != channels:
        raise Mistake(
            f"the checkpoint {folder} takes images of {about['shape'][0]} channels, the data has {channels}; "
            "--data.channels grey or rgb makes them alike"
        )
    if architecture is None:
        before = deepcopy(model)
    else:
        before = create(architecture, classes=len(about["classes"]), channels=channels)
    kept, own = load(folder, into=before).state_dict(), model.state_dict()
    made = about.get("architecture")
    if architecture is not None and made is not None and (other := _otherwise(to_json(architecture), made)):
        raise Mistake(
            f"the checkpoint {folder} is of another network: {other}; take over its architecture, or start from none"
        )
    afresh = sorted(name for name, value in own.items() if name not in kept or kept[name].shape != value.shape)
    model.load_state_dict({name: own[name] if name in afresh else kept[name] for name in own})
    return {"path": str(folder), "weights": about["weights"], "afresh": afresh}


def _otherwise(ours: Any, theirs: Any, path: str = "") -> str:
    """The first of the settings that no weight shows and that differs, in words; "" where there is none."""
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        return ""
    for name in (name for name in ours if name in theirs):
        at = f"{path}.{name}".lstrip(".")
        if name in UNSEEN and ours[name] != theirs[name]:
            return f"its {at} is {theirs[name]}, and here {ours[name]}"
        if found := _otherwise(ours[name], theirs[name], at):
            return found
    return ""
