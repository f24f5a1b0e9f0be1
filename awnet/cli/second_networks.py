"""What the commands ask of a second network, a surrogate or a teacher, before hours of other attacks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from awnet.errors import Mistake

if TYPE_CHECKING:
    import torch

    from awnet.data import Dataset


def check_second(
    name: Path, role: str, dataset: Dataset, device: torch.device, *, trust_range: bool = False
) -> tuple[str, ...]:
    """Refuse a network that cannot be asked about these images, or has other classes.

    A checkpoint says itself what it takes; any other network is looked at, as one that is attacked is
    (`awnet.evaluation.preflight`).

    Args:
        name: of a checkpoint, `package.module:attribute` or `timm:NAME`.
        role: what it is to be, for messages.
        dataset: the images, which may be of many.
        device: where the network will be asked.
        trust_range: whether one may be right more often on images in another range than [0, 1].

    Returns:
        What is odd about it, a sentence each.

    Raises:
        Mistake: it is not there, takes other images or range of pixels, has other classes, or returns probabilities.
    """
    from awnet.attacks.second_network import second_network
    from awnet.checkpoint import read_about
    from awnet.evaluation.preflight import preflight
    from awnet.modules import is_module

    what, classes = f"the {role} {name}", len(dataset.classes)
    if not is_module(name):
        about = read_about(name)
        shape = tuple(about["shape"])
        if shape != tuple(dataset.shape):
            raise Mistake(f"{what} takes images of shape {shape}, {dataset.name} has {tuple(dataset.shape)}")
        if len(about["classes"]) != classes:
            raise Mistake(f"{what} has {len(about['classes'])} classes, {dataset.name} has {classes}")
        return ()
    network = second_network(str(name), device)
    try:
        cleared = preflight(network, dataset, classes=classes, trust_range=trust_range)
    except Mistake as mistake:
        raise Mistake(f"{what} cannot be used: {mistake}") from None
    if cleared.model is not network:
        raise Mistake(f"{what} returns probabilities, on which attacks are weak; hand over one that returns logits")
    return tuple(f"{what}: {remark}" for remark in cleared.remarks)


def short_name(name: Path, among: Sequence[Path]) -> str:
    """What tables call it: its last part, or all of it where another network's is the same."""
    from awnet.modules import is_module

    return str(name) if is_module(name) or [one.name for one in among].count(name.name) > 1 else name.name
