"""In which range a network takes its pixels, and whether what comes out are logits.

Every network here takes [0, 1] and normalises inside, so that eps means pixels. A network that was trained on normalised
images, or on 0 to 255, and is given [0, 1] is attacked far from where it works: the most repeated confusion of the field.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from awnet.evaluation.metrics import paired_difference
from awnet.types import Hits, Images, Logits

MEANS = {  # and deviations of a channel
    3: {
        "CIFAR-10's mean and deviation": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        "ImageNet's mean and deviation": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    },
    1: {"MNIST's mean and deviation": ((0.1307,), (0.3081,))},
}
CLEARLY = 0.1  # of accuracy
NEARLY = 0.95  # of the best range's accuracy: then the more usual one is named
SURE = 4.0  # deviations; several conventions are tried


class Better(NamedTuple):
    """A range of pixels in which a network is right much more often than in [0, 1].

    Attributes:
        name: such as "multiplied by 255".
        accuracy: in it.
        own: in [0, 1].
        sentence: for people.
    """

    name: str
    accuracy: float
    own: float

    @property
    def sentence(self) -> str:
        return (
            f"The model is right on {100 * self.own:.0f} % of the images in [0, 1], and on {100 * self.accuracy:.0f} % when "
            f"they are {self.name}: it expects these pixels."
        )


def conventions(x: Images) -> dict[str, Images]:
    """The images as other libraries hand them over."""
    found = {}
    channels = x.shape[1]
    for name, (mean, std) in MEANS.get(channels, {}).items():
        found[f"normalised by {name}"] = (x - x.new_tensor(mean).view(1, -1, 1, 1)) / x.new_tensor(std).view(
            1, -1, 1, 1
        )
    mean, std = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True).clamp(min=1e-3)
    found["normalised by their own mean and deviation"] = (x - mean) / std
    return found | {"scaled to [-1, 1]": 2 * x - 1, "multiplied by 255": 255 * x}


def better_convention(right: Callable[[Images], Hits], x: Images) -> Better | None:
    """The range in which a network is clearly more often right than in [0, 1], by more than chance explains; else None.

    Args:
        right: which images of a set are classified correctly. What it raises about another range than [0, 1], as a model
            does that asserts its own, means that none of them are.
        x: the set, in [0, 1].
    """
    own = right(x)

    def tried(images: Images) -> Hits:
        try:
            return right(images)
        except Exception:  # a user's code can raise anything
            return torch.zeros_like(own)

    others = {name: tried(images) for name, images in conventions(x).items()}
    most = max(int(hits.sum()) for hits in others.values())
    name, best = next((name, hits) for name, hits in others.items() if hits.sum() >= NEARLY * most)
    gap = paired_difference(best, own, z=SURE)
    if gap.low <= 0 or gap.value < CLEARLY:
        return None
    return Better(name, best.double().mean().item(), own.double().mean().item())


def are_probabilities(logits: Logits) -> bool:
    """Whether these can only be probabilities: not negative, and 1 in sum."""
    sums = logits.double().sum(1)
    return bool((logits >= 0).all() and ((sums - 1).abs() < 1e-3).all()) if len(logits) else False


def are_separate_probabilities(logits: Logits) -> bool:
    """Whether these look like a sigmoid's, a probability of each class by itself: all from 0 to 1, and not 1 in sum.

    Logits can happen to be such numbers. To take the log-odds of those changes the losses, and no verdict.
    """
    return bool(((logits >= 0) & (logits <= 1)).all()) and not are_probabilities(logits) if len(logits) else False


class LogOdds(torch.nn.Module):
    """A network of separate probabilities as one of logits: log p - log (1 - p), which is what the sigmoid was given.

    What it has rounded to 0 or 1 stays out of sight: at the smallest normal number, or the largest below 1, without a slope.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Images) -> Logits:
        p = self.model(x)
        kind = torch.finfo(p.dtype)
        p = p.clamp(kind.tiny, 1 - kind.eps / 2)
        return p.log() - (-p).log1p()


class LogProbabilities(torch.nn.Module):
    """A network of probabilities as one of logits: log p differs from logits by one number an image, which no loss sees.

    What softmax has rounded to 0 stays out of sight: at the smallest normal number, without a slope.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Images) -> Logits:
        p = self.model(x)
        return p.clamp(min=torch.finfo(p.dtype).tiny).log()
