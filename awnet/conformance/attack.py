"""Is this an attack? Checks for anybody's function (model, x, y, eps) -> x_adv, on networks whose answers are known.

After the contract tests of this package, and Zimmermann et al. (2022, "Increasing confidence in adversarial robustness
evaluations", https://arxiv.org/abs/2206.13991): an attack that misses adversarial images which are there says nothing about
those that it does not find.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from awnet.conformance.finding import Finding, looked_at
from awnet.conformance.planted import BALL, GATES, Planted, planted_sample
from awnet.conformance.traces import traces
from awnet.noise import Noise
from awnet.threat_model import L1, L2, Linf, ThreatModel

Function = Callable[[nn.Module, Tensor, Tensor, float], Tensor]
SHAPE = (3, 8, 8)
CLASSES = 5
BUDGETS = {Linf: (8 / 255, 0.1), L2: (0.5, 2.0), L1: (3.0, 12.0)}


class Small(nn.Module):
    """A convolutional network with everything that can be left changed: modes, statistics, flags, gradients."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
            self.head = nn.Linear(8 * 16, CLASSES)
        self.head.bias.requires_grad_(False)
        self.head.weight.grad = torch.ones_like(self.head.weight)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.avg_pool2d(self.stem(x), 2).flatten(1))


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
        dual = {Linf: 1.0, L2: 2.0, L1: float("inf")}[type(threat)]
        reach = threat.eps * float(self.w.detach().flatten().norm(p=dual))
        self.w.data /= reach  # so that the ball around an image moves its margin by at most 1

    def forward(self, x: Tensor) -> Tensor:
        margin = ((x - 0.5) * self.w).flatten(1).sum(1)
        return torch.stack([-margin / 2, margin / 2], dim=1)


class Batch(NamedTuple):
    """Images and labels."""

    x: Tensor
    y: Tensor


def check_attack(attack: Function, *, norm: str = "Linf", routing: bool = False) -> list[Finding]:
    """Look at an attack from all sides; some seconds for a fast one.

    Args:
        attack: from a model (a module in eval mode), images in [0, 1] of shape (b, 3, 8, 8), labels and eps to images. If it
            draws random numbers, they come from torch's global generator, or from a seed of its own.
        norm: of the ball.
        routing: whether it is to know of models that decide (`awnet.models.model.Deciding`), and so to find what is there
            behind a router that is detached, hard or saturated.

    Returns:
        What was found. Nothing is raised, whatever the attack raises: see `assert_conforms`.
    """
    ball = {"Linf": Linf, "L2": L2, "L1": L1}[norm]
    small, large = (ball(eps) for eps in BUDGETS[ball])

    def run(model: nn.Module, batch: Batch, eps: float, seed: int = 0) -> Tensor:
        state = torch.get_rng_state()
        torch.manual_seed(seed)
        try:
            return attack(model, batch.x.clone(), batch.y.clone(), eps).detach()
        finally:
            torch.set_rng_state(state)

    def returns_images() -> str:
        batch, found = _batch(), run(Small(), _batch(), small.eps)
        if found.shape != batch.x.shape or found.dtype != batch.x.dtype or found.device != batch.x.device:
            return (
                f"returns {tuple(found.shape)} in {found.dtype} for images of {tuple(batch.x.shape)} in {batch.x.dtype}"
            )
        return "" if found.isfinite().all() else "returns pixels that are no finite numbers"

    def stays_inside() -> str:
        batch = _batch()
        for threat in (small, large, ball(0.0)):
            found = run(Small(), batch, threat.eps)
            distance = threat.distance(batch.x.double(), found.double()).max()
            if distance > threat.eps + threat.rounding(batch.x[0].numel()):
                return f"leaves the ball: {distance:.6g} away in {norm} where eps is {threat.eps:.6g}"
            if found.min() < 0 or found.max() > 1:
                return f"leaves [0, 1]: pixels from {found.min():.6g} to {found.max():.6g}"
        return ""

    def leaves_the_model() -> str:
        model = Small()
        before = traces(model)
        run(model, _batch(), small.eps)
        after = traces(model)
        changed = [name.strip() or "the model" for name in before if before[name] != after.get(name) and name != "rng"]
        changed += [name for name in after if name not in before]
        return f"leaves changed: {', '.join(changed[:5])}" if changed else ""

    def leaves_the_images() -> str:
        batch, eps = _batch(), small.eps
        x, y = batch.x.clone(), batch.y.clone()
        found = attack(Small(), x, y, eps)
        if not torch.equal(x, batch.x) or not torch.equal(y, batch.y):
            return "changes the images or labels that it was given in place"
        if x.requires_grad or x.grad is not None:
            return "leaves gradients at the images that it was given"
        return "returns the images with the graph of its gradients" if found.requires_grad else ""

    def repeats_itself() -> str:
        model, batch = Small(), _batch()
        return "" if torch.equal(run(model, batch, small.eps), run(model, batch, small.eps)) else "two runs differ"

    def neighbours() -> str:
        model, batch = Small(), _batch()
        others = batch.x.clone()
        others[4:] = 1 - others[4:]
        alone, among = run(model, batch, small.eps), run(model, Batch(others, batch.y), small.eps)
        far = ((alone - among)[:4].abs() > 1e-4).float().mean()
        return f"{far:.0%} of the pixels change with the other images of the batch" if far > 0.01 else ""

    def any_size() -> str:
        for x in (_images(1), _images(3)):
            labels = torch.zeros(len(x), dtype=torch.int64)
            if run(Small(), Batch(x, labels), small.eps).shape != x.shape:
                return f"returns another shape for {len(x)} images"
        return ""

    def finds_what_is_there() -> str:
        model, batch, there = _across(large)
        found = _predicted(model, run(model, batch, large.eps)) != batch.y
        missed = int((there & ~found).sum())
        return f"misses {missed} of {int(there.sum())} adversarial images of a linear model" if missed else ""

    def ties() -> str:
        if norm != "Linf":
            return ""
        x = torch.full((4, *SHAPE), 0.5) + 0.01 * _images(4)
        batch = Batch(x, torch.zeros(4, dtype=torch.int64))
        missed = int((_predicted(Tie(), run(Tie(), batch, 0.1)) == 0).sum())
        return (
            f"stops {missed} of 4 times where two logits are equal and the image is still classified right"
            if missed
            else ""
        )

    def behind_routers() -> str:
        wrong = []
        for gate in GATES:
            model = Planted(gate)
            sample = planted_sample(model)
            found = _predicted(model, run(model, Batch(sample.x, sample.y), BALL.eps)) != sample.y
            missed = int((~sample.robust & ~found).sum())
            if missed > 1:
                wrong.append(f"{missed} of {int((~sample.robust).sum())} behind a router that is {gate}")
        return f"misses {', '.join(wrong)}" if wrong else ""

    checks: list[tuple[str, Callable[[], str], str]] = [
        ("returns images", returns_images, "as many, of the same shape and type"),
        ("stays inside the threat model", stays_inside, f"the ball and [0, 1], at eps {small.eps:.3g}, {large.eps:.3g} and 0"),
        ("leaves the model as it was", leaves_the_model, "modes, flags, gradients, statistics and hooks"),
        ("leaves the images as they were", leaves_the_images, "pixels, labels and gradients"),
        ("repeats itself", repeats_itself, "the same seed gives the same images"),
        ("neighbours do not matter", neighbours, "an image meets the same attack among other images"),
        ("takes any number of images", any_size, "one, and three"),
        ("finds what is there", finds_what_is_there, "every adversarial image of a linear model, well inside the ball"),
    ]  # fmt: skip
    if norm == "Linf":
        checks.append(("does not take a tie for a success", ties, "it goes on where two logits are equal"))
        if routing:
            checks.append(("finds what is there behind a router", behind_routers, f"be it {', '.join(GATES)}"))
    return [looked_at(*check) for check in checks]


@torch.no_grad()
def _predicted(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).argmax(1)


def _images(n: int) -> Tensor:
    return Noise(3, torch.arange(n)).uniform(0, SHAPE)


def _batch() -> Batch:
    """Six images, four of them with black and white pixels."""
    x = _images(6)
    x[:4] = (2 * x[:4] - 0.5).clamp(0, 1)
    return Batch(x, torch.arange(6) % CLASSES)


def _across(threat: ThreatModel) -> tuple[Plane, Batch, Tensor]:
    """A linear model, images far from the box of label 0, and which of them have an adversarial image in the ball."""
    model = Plane(threat)
    margins = -torch.linspace(0.05, 0.8, 16)  # the ball moves it by 1
    away = 0.5 + 0.02 * (_images(16) - 0.5)
    with torch.no_grad():
        w = model.w
        now = ((away - 0.5) * w).flatten(1).sum(1)
        x = away + ((margins - now) / w.square().sum())[:, None, None, None] * w
        room = 1.0 - ((x - 0.5).abs().flatten(1).amax(1) + (threat.eps if isinstance(threat, Linf) else 0.0))
        assert (room > 0.3).all(), "the box is out of reach"
        there = model(x)[:, 1] * 2 > -0.81
    return model, Batch(x, torch.zeros(16, dtype=torch.int64)), there
