"""Models that route, with known robust accuracy: two linear experts behind a linear router, on images of label 0.

The fragile expert looks at shared and at loud pixels, the robust one at shared ones. The router sends images to the fragile
expert, until it sees what an attack does to the loud pixels; what is done to the quiet ones, which no expert looks at, can
appease it. Who follows the class alone is found out, and the robust expert holds.

As all of it is linear, the largest margin of a class at a given log-odds is a linear programme in a box with one equation.
Its dual has one variable and its minimum at a breakpoint, so that the truth needs no search but one over log-odds.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from awnet.models.model import Decision
from awnet.threat_model import Linf

Gate = Literal["honest", "detached", "hard", "saturated"]
GATES: tuple[Gate, ...] = ("honest", "detached", "hard", "saturated")
BALL = Linf(0.1)
SIDE = 6
PIXELS = SIDE * SIDE


class Affine(NamedTuple):
    """w · (x - 1/2) + b, of images with their pixels in a row."""

    w: Tensor  # (n, pixels) or (pixels,)
    b: float

    def __call__(self, pixels: Tensor) -> Tensor:
        return nn.functional.linear(pixels - 0.5, self.w) + self.b


class Planted(nn.Module):
    """Class margins over label 0, p fragile(x) + (1 - p) robust(x), with p = sigmoid(log-odds) in one of four ways.

    Args:
        gate: "honest": with its gradient. "detached": without. "hard": p is 0 or 1. "saturated": the log-odds are so large
            that float32 knows no slope.
    """

    forms = ("clean", "adversarial")

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate: Gate = gate
        generator = torch.Generator().manual_seed(0)
        shared, loud, quiet = torch.eye(3).repeat_interleave(PIXELS // 3, dim=1)
        size = torch.rand(3, PIXELS, generator=generator) + 0.5
        sign = torch.randint(0, 2, (3, PIXELS), generator=generator) * 2.0 - 1
        fragile = size[:2] * sign[:2] * (shared + loud)
        self.fragile = Affine(fragile, -2.2)
        self.robust = Affine(0.3 * size[2] * sign[:2] * shared, -1.5)
        scale = {"honest": 5.0, "detached": 5.0, "hard": 5.0, "saturated": 1e5}[gate]
        router = 0.7 * size[2] * sign[2] * quiet - fragile.sum(0) * loud
        self.router = Affine(scale * router, scale * 1.0)

    def weight(self, log_odds: Tensor) -> Tensor:
        """p."""
        return (log_odds > 0).float() if self.gate == "hard" else log_odds.sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.decide(x, x, "", torch.zeros(len(x), dtype=torch.bool)).logits

    def decide(self, x: Tensor, seen: Tensor, form: str, forced: Tensor) -> Decision:
        log_odds = self.router(seen.flatten(1))
        p = self.weight(log_odds)
        p = p.detach() if self.gate == "detached" else p
        p = torch.where(forced, float(form == "clean"), p)[:, None] if form else p[:, None]
        margins = p * self.fragile(x.flatten(1)) + (1 - p) * self.robust(x.flatten(1))
        return Decision(torch.cat([torch.zeros_like(margins[:, :1]), margins], dim=1), log_odds)

    def detect(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, log_odds = self.decide(x, x, "", torch.zeros(len(x), dtype=torch.bool))
        return logits, log_odds.sigmoid()

    def best_margin(self, x: Tensor, above: float = -torch.inf) -> Tensor:
        """The largest margin of a wrong class in the ball around each image, in float64, shape (b,).

        With `above`, among images of larger log-odds alone; -infinity where there are none.
        """
        x = x.flatten(1).double()
        low, high = (-BALL.eps * torch.ones_like(x)).maximum(-x), (BALL.eps * torch.ones_like(x)).minimum(1 - x)
        r = self.router.w.double()
        now = self.router(x.float()).double()
        least, most = now + (r * torch.where(r > 0, low, high)).sum(1), now + (r * torch.where(r > 0, high, low)).sum(1)
        best = torch.full_like(now, -torch.inf)
        everywhere = [torch.lerp(least, most, at) for at in torch.linspace(0, 1, 20, dtype=torch.float64)]
        where_p_moves = [least.maximum(at).minimum(most) for at in torch.linspace(-10, 10, 61, dtype=torch.float64)]
        for log_odds in everywhere + where_p_moves:
            log_odds = log_odds.clamp(min=above)
            p = self.weight(log_odds.float()).double()[:, None]
            for of_fragile, of_robust in zip(self.fragile.w.double(), self.robust.w.double(), strict=True):
                w = p * of_fragile + (1 - p) * of_robust  # (b, pixels)
                b = p[:, 0] * self.fragile.b + (1 - p[:, 0]) * self.robust.b
                prices = torch.cat([w[:, r != 0] / r[r != 0], torch.zeros_like(p)], dim=1)
                slack = w[:, None] - prices[:, :, None] * r  # (b, prices, pixels)
                inside = (slack * torch.where(slack > 0, high[:, None], low[:, None])).sum(2)
                raised = (inside + prices * (log_odds - now)[:, None]).amin(1)
                best = best.maximum(((x - 0.5) * w).sum(1) + b + raised)
        return torch.where(most > above, best, -torch.inf)


class Sample(NamedTuple):
    """Images that the model classifies correctly, their labels, and which of them withstand every attack."""

    x: Tensor
    y: Tensor
    robust: Tensor


def planted_sample(model: Planted, n: int = 100) -> Sample:
    """Images whose truth is clear: nearly ties are left out."""
    x = 0.3 + 0.4 * torch.rand(3 * n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    best = model.best_margin(x)
    with torch.no_grad():
        right = model(x).argmax(1) == 0
    kept = (right & (best.abs() > 0.03)).nonzero()[:n, 0]
    assert len(kept) == n
    return Sample(x[kept], torch.zeros(n, dtype=torch.int64), best[kept] < 0)
