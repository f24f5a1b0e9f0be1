"""Whether the gradient that attacks follow is the slope of the function that classifies, by finite differences in float64.

A gradient that is cut or made up makes a model look robust (Athalye et al., 2018, https://arxiv.org/abs/1802.00420).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from awnet.attacks.frozen import frozen_for_attack
from awnet.conformance.finding import CannotTell
from awnet.noise import Noise

MOST = 4  # images
DIRECTIONS = 3
STEP = 1e-6  # of a pixel: in float64 rounding is far below, and hardly a ReLU has its kink within
TOLERANCE = 0.02  # of the slope
STEADY = 0.002  # how well differences over two steps agree in float64; rounding to float32 leaves 0.03
ROUNDING = 1e-6  # of the logits, in a slope


def wrong_slopes(model: nn.Module, x: Tensor) -> tuple[int, int]:
    """At how many images, of how many that can be told, the gradient is not the slope in most of several directions.

    Raises:
        CannotTell: there is no copy of the model in float64, or it computes in less.
    """
    x = x[:MOST]
    noise = Noise(11, torch.arange(len(x)))
    shape = tuple(x.shape[1:])
    with torch.random.fork_rng(devices=[]):
        try:
            double = copy.deepcopy(model).double()
            # off black, white and even regions, where clipping, pooling and ReLUs have kinks that are no fault
            x = x.double() * 0.998 + 0.001 + (noise.uniform(0, shape).to(x.device).double() - 0.5) * 1e-3
            with frozen_for_attack(double), torch.enable_grad():
                at = x.clone().requires_grad_()
                logits = double(at * 1)
                mixed = noise.stream(1).normal(0, (logits.shape[1],)).to(logits)
                (gradient,) = torch.autograd.grad((logits * mixed).sum(), at)
        except Exception as error:  # somebody else's code, which need not know of float64
            raise CannotTell(f"no copy in float64 can be asked for gradients ({type(error).__name__})") from error
        if torch.equal(logits.float().double(), logits):  # steps of float32 look like a rounding, which is a fault
            raise CannotTell("a copy in float64 answers in less")

        def slope(direction: Tensor, step: float) -> Tensor:
            with torch.no_grad(), frozen_for_attack(double):
                above, below = double(torch.cat([x + step * direction, x - step * direction])).chunk(2)
            return ((above - below) * mixed).sum(1) / (2 * step)

        autograd, differences = [], []
        for number in range(DIRECTIONS):
            signs = (noise.stream(2).uniform(number, shape) - 0.5).sign()
            shift = noise.stream(3).normal(number, (shape[0],))[:, :, None, None]  # for gates that see the whole image
            direction = (signs + shift).to(x)
            autograd.append((gradient * direction).flatten(1).sum(1))
            differences.append(slope(direction, STEP))
        again = slope(direction, 2 * STEP)
    a, d = torch.stack(autograd, 1), torch.stack(differences, 1)
    size = torch.maximum(a.square().mean(1), d.square().mean(1)).sqrt()
    rounding = ROUNDING * logits.detach().abs().amax(1)
    steady = (d[:, -1] - again).abs() <= STEADY * size + rounding
    if 2 * int(steady.sum()) < len(x):
        raise CannotTell("its differences change with their step: it rounds to less than float64, or is random")
    off = (a - d).abs().median(dim=1).values > TOLERANCE * size + rounding
    return int((off & steady).sum()), int(steady.sum())
