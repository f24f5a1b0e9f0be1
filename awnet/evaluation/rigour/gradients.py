"""C2: the gradient that attacks follow is the slope of the function that classifies, and there is one.

A gradient that is cut (a router that is detached, a straight-through rounding, a hard gate), or that vanishes in saturated
logits, makes a model look robust (Athalye et al., 2018, https://arxiv.org/abs/1802.00420; Carlini et al., 2019, section 5.6).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from awnet.attacks.attack import Gradient, Steering, evaluate
from awnet.evaluation.kinds import kinds_within
from awnet.evaluation.rigour.check import Part, Trial, check, filled, percent
from awnet.losses import CrossEntropy, Loss, Margin
from awnet.models.awnet import AWNet
from awnet.models.model import Deciding
from awnet.noise import Noise
from awnet.types import Images

MOST = 16  # images for finite differences
DIRECTIONS = 8
STEP = {torch.float64: 1e-6, torch.float32: 1e-3}  # of every pixel; where rounding and kinks of ReLUs cost the same
TOLERANCE = {torch.float64: 0.02, torch.float32: 0.2}  # of the slopes' length
OFTEN = 10.0  # % of the images, from which on it is said
NONE = 1e-12  # the largest slope over the pixels of an image, from which on nobody can climb
SATURATED = 16.0  # a lead of the largest logit at which softmax rounds to 1
SURE = 20.0  # log-odds at which a sigmoid in float32 has lost its slope
SCALE_FREE = {"Margin", "DLR", "TargetedDLR", "TargetedMargin", "FAB", "Square"}  # what saturated logits do not hold up


@check("C2", "exact gradients")
def exact(trial: Trial) -> Iterator[Part]:
    """Autograd against finite differences; vanishing gradients; saturated logits and routers."""
    try:
        yield _against_differences(trial)
    except (RuntimeError, TypeError) as error:
        text = f"The logits have no gradient with respect to the image ({str(error).splitlines()[0]})."
        yield Part(
            "fail", text, "Make forward differentiable; until then only Square (--attacks square) can attack it."
        )
        return
    yield from _vanishing(trial)
    if isinstance(trial.model, Deciding):
        yield from _decision(trial)


def _against_differences(trial: Trial) -> Part:
    """Slopes of a random combination of the logits along random directions of ±1 a pixel."""
    model, dtype = _in_double(trial)
    n = min(len(trial.x), MOST)
    (rows,) = filled(n, max(n, 2))
    step, x = STEP[dtype], trial.x[rows].to(trial.device, dtype)
    x = x * (1 - 4 * step) + 2 * step  # off the edges, where a model may clip
    noise = Noise(trial.seed, trial.examples.ids[rows])
    mixed = noise.stream(1).normal(0, (trial.classes,)).to(x)

    def f(x: Images) -> Tensor:
        return (model(x).to(dtype) * mixed).sum(1)

    with torch.enable_grad():
        at = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(f(at * 1).sum(), at)
    slopes, differences = [], []
    with torch.no_grad():
        for number in range(DIRECTIONS):
            d = (noise.uniform(number, tuple(x.shape[1:])) - 0.5).sign().to(x)
            slopes.append((gradient * d).flatten(1).sum(1))
            differences.append((f(x + step * d) - f(x - step * d)) / (2 * step))
    a, b = torch.stack(slopes, 1)[:n], torch.stack(differences, 1)[:n]
    error = (a - b).norm(dim=1) / torch.maximum(a.norm(dim=1), b.norm(dim=1)).clamp(min=NONE)
    wrong = percent(~(error <= TOLERANCE[dtype]))
    figures = {
        "images compared": float(n),
        "median error of the gradient, %": 100 * error.median().item(),
        "images with a wrong gradient, %": wrong,
    }
    if wrong <= OFTEN:
        return Part("pass", f"Gradients agree with finite differences (in {str(dtype)[6:]}).", "", figures)
    text = (
        f"The gradient of {wrong:.0f} % of the images is not the slope of the model (finite differences in {str(dtype)[6:]}): "
        "something in it is detached, rounded straight through, or has a backward pass of its own."
    )
    return Part("fail", text, CUT, figures)


CUT = (
    "Let the gradient through, or attack frozen forms of the model as well and go on from there (Deciding, "
    "--attacks adaptive)."
)


def _in_double(trial: Trial) -> tuple[Callable[[Images], Tensor], torch.dtype]:
    """The model in float64, or as it is where it holds on to float32."""
    try:
        double = copy.deepcopy(trial.model).double()
        x = trial.x[torch.arange(2) % len(trial.x)].double().to(trial.device)
        with torch.no_grad():
            if double(x).dtype == torch.float64:
                return double, torch.float64
    except (RuntimeError, TypeError, ValueError, NotImplementedError):
        pass
    return trial.model, torch.float32


def _vanishing(trial: Trial) -> Iterator[Part]:
    """Whether the losses of attacks have a gradient in float32 where an attack begins."""
    of = trial.clean.correct.nonzero()[:, 0]
    if not len(of):
        return
    flat = {
        name: percent(_flat(trial, loss, of))
        for name, loss in (("cross-entropy", CrossEntropy()), ("margin", Margin()))
    }
    top = trial.logits(trial.x[of]).topk(2, dim=1).values
    saturated = percent(top[:, 0] - top[:, 1] > SATURATED)
    figures = {f"images without a gradient of the {name}, %": share for name, share in flat.items()}
    figures["images with saturated logits, %"] = saturated
    if flat["margin"] > 1:
        text = f"{flat['margin']:.0f} % of the images have no gradient at all: attacks by gradients stand still there."
        yield Part("fail", text, BLACK_BOX, figures)
    elif max(flat["cross-entropy"], saturated) > OFTEN:
        text = f"The logits of {saturated:.0f} % of the images are so far apart that softmax rounds to 1"
        if flat["cross-entropy"] > OFTEN:
            text += f", and those of {flat['cross-entropy']:.0f} % leave it without a gradient"
        used = [kinds_within(result.settings) for result in trial.record.attacks.values()] if trial.record else []
        held_up = flat["cross-entropy"] > OFTEN and not any(kinds & SCALE_FREE for kinds in used)
        text += ": attacks on the cross-entropy are held up by rounding."
        yield Part("fail" if held_up else "warn", text, "Believe attacks on the margin and on DLR alone.", figures)
    else:
        yield Part("pass", "Cross-entropy and margin have gradients to climb.", "", figures)


BLACK_BOX = (
    "Add attacks that need no gradient or a smoothed one (Square, transfer, a straight-through copy); where they find more, "
    "the gradient was masked."
)


def _flat(trial: Trial, loss: Loss, of: Tensor) -> Tensor:
    """Which of the images have no slope."""
    found = []
    for rows in filled(len(of), trial.engine.batch_size):
        x, y = (t.to(trial.device) for t in trial.examples.batch(of[rows]))
        gradient = evaluate(trial.model, Gradient(x, lambda logits, y=y: loss(logits, y))).gradient
        assert gradient is not None
        found.append(~(gradient.abs().flatten(1).amax(1) > NONE).cpu())
    return torch.cat(found)[: len(of)]


def _decision(trial: Trial) -> Iterator[Part]:
    """The slope of the router's decision, and whether it is saturated."""
    if isinstance(trial.model, AWNet) and trial.model.router.type_head is None:
        return  # an ablation (Table 3), whose batch norms nobody chooses
    (rows,) = filled(n := len(trial.x), max(n, 2))
    x, y = (t.to(trial.device) for t in trial.examples.batch(rows))
    query = Steering(x, lambda logits: Margin()(logits, y), "", torch.zeros_like(y, dtype=torch.bool), x)
    answer = evaluate(trial.model, query)
    assert answer.log_odds is not None and answer.towards_clean is not None
    none = percent(~(answer.towards_clean.abs().flatten(1).amax(1) > NONE))
    sure = percent(answer.log_odds.abs() > SURE)
    figures = {"images without a gradient of the decision, %": none, "images with a saturated decision, %": sure}
    figures |= _saturated_signals(trial.model, x)
    if none > 1:
        yield Part("fail", f"The log-odds of the decision have no slope on {none:.0f} % of the images.", SLOPE, figures)
    elif sure > OFTEN:
        text = f"The decision is so sure on {sure:.0f} % of the images that its sigmoid has no slope in float32."
        yield Part("warn", text, "Steer by the log-odds (--attacks adaptive), which have one.", figures)
    else:
        yield Part("pass", "The decision has a slope and is not saturated.", "", figures)


SLOPE = "Return differentiable log-odds from decide: a careful attacker would rebuild them."


def _saturated_signals(model: nn.Module, x: Images) -> dict[str, float]:
    """How many of AW-Net's signals lie at the ends of tanh (Eq. 19), where they pass no gradient on."""
    if not isinstance(model, AWNet) or not model.knob.omega:
        return {}
    with torch.no_grad():
        omega = torch.cat(list(model.signals(x).values()), dim=1)
    base = omega.clamp(min=0) ** (1 / model.router.beta)  # tanh + 1
    return {"signals with a saturated tanh, %": percent(((base - 1).abs() > 0.999).flatten())}
