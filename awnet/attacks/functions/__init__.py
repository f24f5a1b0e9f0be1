"""The attacks as plain functions: images and labels in, adversarial images out, nothing else changed.

    from awnet.attacks.functions import apgd
    x_adv = apgd(model, x, y, eps=8 / 255)

For any loop of anybody's. The model maps [0, 1] images to logits and is evaluated in eval mode, whatever mode it is in, and
left as it was; x_adv is on the device of x, float32, in [0, 1] and within eps. The results are those of `Engine.run` with the
attack of the same settings: functions of the seed and of each image's place in x.

In all of them `eps` is the radius in the norm "Linf", "L2" or "L1", and a loss is "ce", "dlr" or "margin".
"""

from awnet.attacks.functions.classifiers import (
    apgd,
    auto_attack,
    cw,
    deep_sloth,
    diversified,
    eot,
    fab,
    fgsm,
    pgd,
    rays,
    square,
    transfer,
)
from awnet.attacks.functions.deciding import (
    adaptive,
    adaptive_paper,
    evade,
    expert_only,
    joint,
    orthogonal,
    router_only,
    selective,
    small,
    stay,
    warm,
)
from awnet.attacks.functions.run import run

__all__ = [
    "adaptive",
    "adaptive_paper",
    "apgd",
    "auto_attack",
    "cw",
    "deep_sloth",
    "diversified",
    "eot",
    "evade",
    "expert_only",
    "fab",
    "fgsm",
    "joint",
    "orthogonal",
    "pgd",
    "rays",
    "router_only",
    "run",
    "selective",
    "small",
    "square",
    "stay",
    "transfer",
    "warm",
]
