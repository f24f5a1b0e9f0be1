"""Is this an attack? Checks for anybody's function (model, x, y, eps) -> x_adv, on networks whose answers are known.

After the contract tests of this package, and Zimmermann et al. (2022, "Increasing confidence in adversarial robustness
evaluations", https://arxiv.org/abs/2206.13991): an attack that misses adversarial images which are there says nothing about
those that it does not find.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from awnet.attacks.inputs import threat_model
from awnet.conformance.finding import Finding, looked_at
from awnet.conformance.generators import generator_states, seeded
from awnet.conformance.known import (
    SHAPE,
    Batch,
    Flat,
    Quarters,
    Tie,
    Valley,
    across,
    among_neighbours,
    leads,
    noise_images,
)
from awnet.conformance.planted import BALL, GATES, Planted, planted_sample
from awnet.conformance.traces import traces

Function = Callable[[nn.Module, Tensor, Tensor, float], Tensor]
CLASSES = 5
BUDGETS = {"Linf": (8 / 255, 0.1), "L2": (0.5, 2.0), "L1": (3.0, 12.0)}


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


def check_attack(attack: Function, *, norm: str = "Linf", routing: bool = False) -> list[Finding]:
    """Look at an attack from all sides; some seconds for a fast one.

    Args:
        attack: from a model (a module in eval mode), images in [0, 1] of shape (b, 3, 8, 8), labels and eps to images. If it
            draws random numbers, they come from a global generator (of torch, NumPy or Python), which it leaves unseeded, or
            from a generator of its own.
        norm: of the ball: "Linf", "L2" or "L1".
        routing: whether it is to know of models that decide (`awnet.models.model.Deciding`), and so to find what is there
            behind a router that is detached, hard or saturated.

    Returns:
        What was found. Nothing is raised, whatever the attack raises: see `assert_conforms`.

    Raises:
        Mistake: there is no such norm.
    """
    none = threat_model(norm, 0.0)
    small, large = (threat_model(norm, eps) for eps in BUDGETS[norm])

    def run(model: nn.Module, batch: Batch, eps: float, seed: int = 0) -> Tensor:
        with seeded(seed):
            return attack(model, batch.x.clone(), batch.y.clone(), eps).detach()

    def returns_images() -> str:
        batch, found = _batch(), run(Small(), _batch(), small.eps)
        if found.shape != batch.x.shape or found.dtype != batch.x.dtype or found.device != batch.x.device:
            return (
                f"returns {tuple(found.shape)} in {found.dtype} for images of {tuple(batch.x.shape)} in {batch.x.dtype}"
            )
        return "" if found.isfinite().all() else "returns pixels that are no finite numbers"

    def stays_inside() -> str:
        batch = _batch()
        for threat in (small, large, none):
            found = run(Small(), batch, threat.eps)
            distance = threat.distance(batch.x.double(), found.double()).max()
            if not distance <= threat.eps + threat.rounding(batch.x[0].numel()):  # nor is NaN inside
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
        with seeded(0):
            found = attack(Small(), x, y, eps)
        if not torch.equal(x, batch.x) or not torch.equal(y, batch.y):
            return "changes the images or labels that it was given in place"
        if x.requires_grad or x.grad is not None:
            return "leaves gradients at the images that it was given"
        return "returns the images with the graph of its gradients" if found.requires_grad else ""

    def repeats_itself() -> str:
        model, batch = Small(), _batch()
        return "" if torch.equal(run(model, batch, small.eps), run(model, batch, small.eps)) else "two runs differ"

    def seeds_nothing() -> str:
        ends = []
        for seed in (1, 2):
            with seeded(seed):
                attack(Small(), *_batch(), small.eps)
                ends.append(generator_states())
        fixed = [name for name in ends[0] if ends[0][name] == ends[1][name]]
        return (
            f"leaves the global generator of {' and of '.join(fixed)} in one state, whatever it was before: expected that it "
            "seeds nothing that others draw from; draw from a generator of your own, torch.Generator().manual_seed(seed)"
            if fixed
            else ""
        )

    def neighbours() -> str:
        model, batch = Small(), _batch()
        others = batch.x.clone()
        others[4:] = 1 - others[4:]
        alone, among = run(model, batch, small.eps), run(model, Batch(others, batch.y), small.eps)
        far = ((alone - among)[:4].abs() > 1e-4).float().mean()
        if far > 0.01:
            return f"{far:.0%} of the pixels change with the other images of the batch"
        valley = Valley(small)
        one, other = (run(valley, batch, small.eps) for batch in among_neighbours())
        changed = int(((one - other)[:8].abs().flatten(1).amax(1) > 1e-3).sum())
        return (
            f"{changed} of 8 images end elsewhere where the loss of the others in the batch changes, expected the same images: "
            "keep the best restart of each image by its own loss, not that of the whole batch"
            if changed
            else ""
        )

    def any_size() -> str:
        for x in (noise_images(1), noise_images(3)):
            labels = torch.zeros(len(x), dtype=torch.int64)
            if run(Small(), Batch(x, labels), small.eps).shape != x.shape:
                return f"returns another shape for {len(x)} images"
        return ""

    def finds_what_is_there() -> str:
        model, batch, there = across(large)
        found = _predicted(model, run(model, batch, large.eps)) != batch.y
        missed = int((there & ~found).sum())
        return f"misses {missed} of {int(there.sum())} adversarial images of a linear model" if missed else ""

    def labels_given() -> str:
        model = Quarters(small)
        x, y, right, robust = leads(model)
        left = _predicted(model, run(model, Batch(x, y), small.eps)) == y
        missed, restored = left & right & ~robust, left & ~right
        if missed.any():
            return (
                f"misses {int(missed.sum())} of {int((right & ~robust).sum())} adversarial images of a linear model of four "
                f"classes, all of labels {y[missed].unique().tolist()} of 0 to 3: expected all of them; raise the loss of each "
                "image's own label"
            )
        return (
            f"makes {int(restored.sum())} of {int((~right).sum())} misclassified images right again, expected none: attack the "
            "label that is given, not the model's prediction"
            if restored.any()
            else ""
        )

    def no_slope() -> str:
        batch = Batch(noise_images(6), torch.arange(6) % 3)
        found = run(Flat(), batch, small.eps)
        without = int((~found.isfinite().flatten(1).all(1)).sum())
        return (
            f"returns NaN or infinity for {without} of 6 images at which the gradient is 0, expected images: keep the length "
            "that it divides the gradient by above 0, as by clamp(min=1e-12)"
            if without
            else ""
        )

    def ties() -> str:
        if norm != "Linf":
            return ""
        x = torch.full((4, *SHAPE), 0.5) + 0.01 * noise_images(4)
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
        ("seeds no global generator", seeds_nothing, "where torch, NumPy and Python draw from is left to others"),
        ("neighbours do not matter", neighbours, "an image meets the same attack among other images"),
        ("takes any number of images", any_size, "one, and three"),
        ("finds what is there", finds_what_is_there, "every adversarial image of a linear model, well inside the ball"),
        ("attacks the label that it is given", labels_given, "of four classes, and where the model is wrong already"),
        ("survives a gradient of zero", no_slope, "and returns images where there is no slope"),
    ]  # fmt: skip
    if norm == "Linf":
        checks.append(("does not take a tie for a success", ties, "it goes on where two logits are equal"))
        if routing:
            checks.append(("finds what is there behind a router", behind_routers, f"be it {', '.join(GATES)}"))
    return [looked_at(*check) for check in checks]


@torch.no_grad()
def _predicted(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).argmax(1)


def _batch() -> Batch:
    """Six images, four of them with black and white pixels."""
    x = noise_images(6)
    x[:4] = (2 * x[:4] - 0.5).clamp(0, 1)
    return Batch(x, torch.arange(6) % CLASSES)
