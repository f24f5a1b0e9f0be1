"""Is this a model that can be attacked and judged? Checks for anybody's `nn.Module` from [0, 1] images to logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from awnet.attacks.frozen import frozen_for_attack
from awnet.conformance.finding import CannotTell, Finding, looked_at
from awnet.conformance.slopes import wrong_slopes
from awnet.conformance.traces import traces
from awnet.models.model import device_of
from awnet.noise import Noise

NEAR = 1e-3  # of the spread of the logits, in float32
NONE = 1e-12  # the largest slope over the pixels of an image, from which on nobody can climb


def check_model(
    model: nn.Module, *, shape: tuple[int, int, int] = (3, 32, 32), classes: int | None = None, x: Tensor | None = None
) -> list[Finding]:
    """Look at a model from all sides; some forty forward passes of eight images, a third of them in float64.

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
    first: list[Tensor] = []

    def ask(images: Tensor) -> Tensor:
        with torch.no_grad(), frozen_for_attack(model):
            return model(images.clone())

    def near(a: Tensor, b: Tensor, whole: Tensor) -> bool:
        return bool((a - b).abs().max() <= NEAR * (whole.max() - whole.min() + 1e-12))

    def returns_logits() -> str:
        logits = ask(x)
        first.append(logits)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != n or not logits.is_floating_point():
            what = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            return f"returns {what} for {n} images, expected a row of logits each"
        if logits.shape[1] < 2 or classes not in (None, logits.shape[1]):
            return f"has {logits.shape[1]} classes, expected {classes or 'two or more'}"
        return "" if logits.isfinite().all() else "returns logits that are no finite numbers"

    def no_probabilities() -> str:
        with frozen_for_attack(model), torch.enable_grad():
            logits = model(x.clone().requires_grad_() * 1.0)
        last = type(logits.grad_fn).__name__
        sums = logits.detach().double().sum(1)
        if logits.min() < 0 or logits.max() > 1:
            return ""
        if (sums - 1).abs().max() < 1e-3 or last.startswith("Sigmoid"):
            how = "sigmoid" if last.startswith("Sigmoid") else "softmax"
            return (
                f"returns probabilities: losses take them for logits, and their gradients vanish; leave the {how} out"
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

    def unsaturated() -> str:
        with frozen_for_attack(model), torch.enable_grad():
            images = x.clone().requires_grad_()
            logits = model(images * 1.0)
            if not logits.requires_grad:
                raise CannotTell("it has no gradient at all")
            loss = nn.functional.cross_entropy(logits, logits.argmax(1), reduction="sum")
            (of_loss,) = torch.autograd.grad(loss, images, retain_graph=True)
            (of_margin,) = torch.autograd.grad(logits.amax(1).sum() - logits.amin(1).sum(), images)
        climbs, slanted = (g.flatten(1).abs().amax(1) > NONE for g in (of_loss, of_margin))
        lost = int((~climbs & slanted).sum())
        if 2 * lost <= n:
            return ""
        top = logits.detach().topk(2, dim=1).values
        return (
            f"leaves the cross-entropy no gradient at {lost} of {n} images, expected one: the largest logit leads by "
            f"{float((top[:, 0] - top[:, 1]).median()):.3g}, and float32 rounds its probability to 1; divide the logits by a "
            "temperature, or attack the margin"
        )

    def slopes() -> str:
        wrong, told = wrong_slopes(model, x)
        return (
            f"has another gradient than its slope at {wrong} of {told} images (finite differences in float64), expected the "
            "same: look for what is detached, rounded straight through, or has a backward pass of its own"
            if 2 * wrong >= told
            else ""
        )

    def channels_last() -> str:
        usual = ask(x)
        try:
            logits = ask(x.contiguous(memory_format=torch.channels_last))
        except Exception as error:  # somebody else's code
            said = " ".join(str(error).split())[:100]
            return f"fails on images in channels-last memory, in which attacks may hand them over ({said}); reshape, not view"
        return "" if near(logits, usual, usual) else "says otherwise of images in channels-last memory"

    def same_at_last() -> str:
        if not first:
            raise CannotTell("it gave no answer to begin with")
        return (
            "says otherwise of the same images than when it was first asked: look for a counter or a memory that its answers "
            "depend on"
            if not near(ask(x), first[0], first[0])
            else ""
        )

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
        ("leaves the cross-entropy a gradient", unsaturated, "its logits are not so far apart that float32 loses it"),
        ("has the gradient of its answers", slopes, "as finite differences in float64 find it"),
        ("takes images channels-last", channels_last, "and says the same of them"),
        ("leaves the images as they were", leaves_the_images, "nothing is changed in place"),
        ("is not changed by being asked", leaves_itself, "modes, statistics, fields and torch's generator"),
        ("says the same at last", same_at_last, "as when it was first asked"),
    ]
    return [looked_at(*check) for check in checks]
