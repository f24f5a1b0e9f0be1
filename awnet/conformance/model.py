"""Is this a model that can be attacked and judged? Checks for anybody's `nn.Module` from [0, 1] images to logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from awnet.attacks.frozen import frozen_for_attack
from awnet.conformance.finding import Finding, looked_at
from awnet.conformance.traces import traces
from awnet.models.model import device_of
from awnet.noise import Noise

NEAR = 1e-3  # of the spread of the logits, in float32


def check_model(
    model: nn.Module, *, shape: tuple[int, int, int] = (3, 32, 32), classes: int | None = None, x: Tensor | None = None
) -> list[Finding]:
    """Look at a model from all sides; a dozen forward passes of eight images and one backward pass.

    Args:
        model: put into eval mode for the time being, and left as it was.
        shape: (c, h, w) of its images.
        classes: how many there are, where known.
        x: at least three images of one's own, instead of noise.

    Returns:
        What was found. Nothing is raised, whatever the model raises: see `assert_conforms`.
    """
    device = device_of(model)
    x = (Noise(7, torch.arange(8)).uniform(0, shape) if x is None else x.detach().clone()).to(device)
    n = len(x)

    def ask(images: Tensor) -> Tensor:
        with torch.no_grad(), frozen_for_attack(model):
            return model(images.clone())

    def near(a: Tensor, b: Tensor, whole: Tensor) -> bool:
        return bool((a - b).abs().max() <= NEAR * (whole.max() - whole.min() + 1e-12))

    def returns_logits() -> str:
        logits = ask(x)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != n or not logits.is_floating_point():
            what = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            return f"returns {what} for {n} images, expected a row of logits each"
        if logits.shape[1] < 2 or classes not in (None, logits.shape[1]):
            return f"has {logits.shape[1]} classes, expected {classes or 'two or more'}"
        return "" if logits.isfinite().all() else "returns logits that are no finite numbers"

    def no_probabilities() -> str:
        logits = ask(x)
        sums = logits.sum(1)
        if logits.min() >= 0 and (sums - 1).abs().max() < 1e-4:
            return (
                "returns probabilities: losses take them for logits, and their gradients vanish; leave the softmax out"
            )
        return ""

    def tells_images_apart() -> str:
        return "" if ask(x).std(0).max() > 0 else "says the same of all images"

    def repeats_itself() -> str:
        return "" if torch.equal(ask(x), ask(x)) else "two runs on the same images differ: is it random in eval mode?"

    def by_itself() -> str:
        logits, order = ask(x), torch.arange(n - 1, -1, -1, device=device)
        if not near(ask(x[order]), logits[order], logits):
            return "says otherwise of images in another order"
        others = x.clone()
        others[2:] = 1 - others[2:]
        if not near(ask(others)[:2], logits[:2], logits):
            return "says otherwise of an image among others: does it use the statistics of the batch?"
        return "" if near(ask(x[:3]), logits[:3], logits) else "says otherwise of an image in a smaller batch"

    def one_image() -> str:
        logits, alone = ask(x), ask(x[:1])
        if alone.shape != logits[:1].shape:
            return f"returns {tuple(alone.shape)} for one image, expected {tuple(logits[:1].shape)}"
        return "" if near(alone, logits[:1], logits) else "says otherwise of an image by itself"

    def gradient() -> str:
        with frozen_for_attack(model), torch.enable_grad():
            images = x.clone().requires_grad_()
            logits = model(images * 1.0)
            if not logits.requires_grad:
                return "is cut off from its images: something in it is detached"
            (found,) = torch.autograd.grad(
                logits.logsumexp(1).sum() - 2 * logits[:, 0].sum(), images, allow_unused=True
            )
        if found is None or not found.isfinite().all():
            return "has no gradient at its images, or one that is no number"
        without = int((found.flatten(1).abs().amax(1) == 0).sum())
        return f"has a gradient of zero at {without} of {n} images" if without else ""

    def leaves_the_images() -> str:
        images = x.clone()
        with torch.no_grad(), frozen_for_attack(model):
            model(images)
        return "" if torch.equal(images, x) else "changes its images in place"

    def leaves_itself() -> str:
        with frozen_for_attack(model):
            before = traces(model)
            with torch.no_grad():
                model(x.clone())
            after = traces(model)
        changed = [name.strip() or "the model" for name in after if before.get(name) != after[name]]
        return f"changes when it is asked: {', '.join(changed[:5])}" if changed else ""

    checks: list[tuple[str, Callable[[], str], str]] = [
        ("returns logits", returns_logits, "a row of finite numbers an image"),
        ("returns no probabilities", no_probabilities, "the rows are no distributions"),
        ("tells images apart", tells_images_apart, "different images, different logits"),
        ("repeats itself", repeats_itself, "the same images, the same logits"),
        ("judges an image by itself", by_itself, "in any order, among any others"),
        ("takes one image", one_image, "and says the same of it"),
        ("has a gradient at its images", gradient, "at each of them"),
        ("leaves the images as they were", leaves_the_images, "nothing is changed in place"),
        ("is not changed by being asked", leaves_itself, "modes, statistics, fields and torch's generator"),
    ]
    return [looked_at(*check) for check in checks]
