"""The one function behind the others: any attack on images and labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from awnet.attacks.attack import Attack
from awnet.attacks.engine import Engine
from awnet.attacks.inputs import check_module, checked
from awnet.attacks.suite import Suite
from awnet.attacks.sweep import TensorExamples
from awnet.types import Images, Labels

LARGEST_BATCH = 256  # where nobody says


def run(
    attack: Attack | Suite, model: nn.Module, x: Tensor, y: Tensor, *, seed: int = 0, batch_size: int | None = None
) -> Images:
    """Any attack, or suite of attacks, on images and labels.

    Args:
        attack: a value such as `PGD(threat=Linf(8 / 255))`.
        model: maps [0, 1] images to logits.
        x: images in [0, 1], shape (b, c, h, w), float32.
        y: labels, shape (b,).
        seed: of its random numbers.
        batch_size: how many images the model sees at a time; by default all of them, up to 256. Another one changes
            results by rounding only.

    Raises:
        Mistake: where the images, labels or model are not what is expected.
    """
    check_module(model)
    batch: tuple[Images, Labels] = checked(x, y)
    if len(x) == 0:
        return batch[0].clone()
    engine = Engine(batch_size=min(len(x), LARGEST_BATCH) if batch_size is None else batch_size)
    outcome = engine.run(attack, model, TensorExamples(*batch, torch.arange(len(x))), seed=seed)
    return outcome.x_adv.to(x.device)
