"""Networks whose answers to an attack are known without a search."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from awnet.noise import Noise
from awnet.threat_model import L1, L2, Linf, ThreatModel

SHAPE = (3, 8, 8)
DUAL = {Linf: 1.0, L2: 2.0, L1: float("inf")}  # of the norm of a ball: by how much it moves a linear function


class Batch(NamedTuple):
    """Images and labels."""

    x: Tensor
    y: Tensor


class Tie(nn.Module):
    """Two classes whose logits rise in steps: between label and other class lies a region where they are exactly equal.

    There the label, the first of the two, is what is predicted: a tie is no success.
    """

    def forward(self, x: Tensor) -> Tensor:
        rise = 4 * ((x - 0.5).flatten(1).mean(1) / 0.1)
        steps = rise + ((2 * rise).round() / 2 - rise).detach() - 1.0
        return torch.stack([torch.zeros_like(steps), steps], dim=1)


class Plane(nn.Module):
    """Two classes and a plane between them, from which the distance in every norm is known."""

    def __init__(self, threat: ThreatModel) -> None:
        super().__init__()
        self.w = nn.Parameter(2 * Noise(5, torch.tensor([0])).uniform(0, SHAPE)[0] - 1)
        reach = threat.eps * float(self.w.detach().flatten().norm(p=DUAL[type(threat)]))
        self.w.data /= reach  # so that the ball around an image moves its margin by at most 1

    def forward(self, x: Tensor) -> Tensor:
        margin = ((x - 0.5) * self.w).flatten(1).sum(1)
        return torch.stack([-margin / 2, margin / 2], dim=1)


def across(threat: ThreatModel) -> tuple[Plane, Batch, Tensor]:
    """A linear model, images far from the box of label 0, and which of them have an adversarial image in the ball."""
    model = Plane(threat)
    margins = -torch.linspace(0.05, 0.8, 16)  # the ball moves it by 1
    away = 0.5 + 0.02 * (noise_images(16) - 0.5)
    with torch.no_grad():
        w = model.w
        now = ((away - 0.5) * w).flatten(1).sum(1)
        x = away + ((margins - now) / w.square().sum())[:, None, None, None] * w
        room = 1.0 - ((x - 0.5).abs().flatten(1).amax(1) + (threat.eps if isinstance(threat, Linf) else 0.0))
        assert (room > 0.3).all(), "the box is out of reach"
        there = model(x)[:, 1] * 2 > -0.81
    return model, Batch(x, torch.zeros(16, dtype=torch.int64)), there


class Quarters(nn.Module):
    """Four classes, each of which adds and subtracts the quarters of an image in its own way: logits of H (x - 1/2).

    H is Hadamard's matrix of 4 × 4 signs, so that any two classes differ on half the pixels, by 2 on each of them, and the
    ball moves the margin between any two by the same.
    """

    SLOPE = 4.0  # by how much; a rival twice as far away then counts for nothing in a softmax

    def __init__(self, threat: ThreatModel) -> None:
        super().__init__()
        pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
        quarter = torch.arange(SHAPE[1]) // (SHAPE[1] // 2)
        place = 2 * quarter[:, None] + quarter
        self.w = torch.kron(pair, pair)[:, place][:, None].expand(4, *SHAPE).flatten(1)
        reach = threat.eps * float((self.w[1] - self.w[0]).norm(p=DUAL[type(threat)]))
        self.scale = self.SLOPE / reach

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * nn.functional.linear((x - 0.5).flatten(1), self.w)

    def images(self, logits: Tensor) -> Tensor:
        """Those that have such logits: the rows of H are orthogonal."""
        return 0.5 + (logits @ self.w / (self.scale * self.w.shape[1])).view(-1, *SHAPE)


class Lead(NamedTuple):
    """Images of four classes with one rival each, and what is true of them.

    Attributes:
        right: which are classified right before an attack.
        robust: which are still so after any attack.
    """

    x: Tensor
    y: Tensor
    right: Tensor
    robust: Tensor


def leads(model: Quarters) -> Lead:
    """Every label with every rival, which is ahead by 0.3 of what the ball can change, or behind by 0.2, 0.7 or 1.5."""
    pairs = [(y, rival) for y in range(4) for rival in range(4) if y != rival]
    labels, rivals = (torch.tensor(column).repeat_interleave(4) for column in zip(*pairs, strict=True))
    behind = torch.tensor([-0.3, 0.2, 0.7, 1.5]).repeat(len(pairs))
    logits = torch.full((len(labels), 4), -2.0)  # a third class is out of reach
    logits[torch.arange(len(labels)), labels] = 0.0
    logits[torch.arange(len(labels)), rivals] = -behind
    return Lead(model.images(model.SLOPE * logits), labels, behind > 0, behind > 1)


class Valley(nn.Module):
    """The other class rises to both sides of the image, more steeply to one of them, and never far enough.

    Which side an attack climbs is a matter of its start. The mean of the first channel says which side is the steep one.
    """

    def __init__(self, threat: ThreatModel) -> None:
        super().__init__()
        self.reach = threat.eps * float(torch.ones(SHAPE)[1:].norm(p=DUAL[type(threat)]))

    def forward(self, x: Tensor) -> Tensor:
        side = (x[:, 1:] - 0.5).flatten(1).sum(1) / self.reach  # in [-1, 1] within the ball
        tilt = 8 * (x[:, 0].flatten(1).mean(1) - 0.5)
        other = 0.15 * side.abs() * (side.sign() * tilt).exp() - 4
        return torch.stack([torch.zeros_like(other), other, torch.full_like(other, -8.0)], dim=1)


def among_neighbours() -> tuple[Batch, Batch]:
    """Eight images of a `Valley` with even sides, twice, and sixteen others whose steep sides change over in between."""
    x = torch.full((24, *SHAPE), 0.5)
    tilt = torch.linspace(0.1, 0.3, 16)[:, None, None]  # uneven: no two starts of all of them are worth the same
    y = torch.zeros(24, dtype=torch.int64)
    one, other = x.clone(), x.clone()
    one[8:, 0] += tilt
    other[8:, 0] -= tilt
    return Batch(one, y), Batch(other, y)


class Flat(nn.Module):
    """A gradient of exactly 0, as behind dead ReLUs, in rounding or in the logits of a very confident network."""

    def forward(self, x: Tensor) -> Tensor:
        return x.round().flatten(2).mean(2)


def noise_images(n: int) -> Tensor:
    """Uniform pixels."""
    return Noise(3, torch.arange(n)).uniform(0, SHAPE)
