"""Eq. 8 of the AW-Net paper (section 3.2), measured: what one step of adversarial training adds to a step of standard training.

From shared weights w_0, with learning rate eta and (1 - alpha) L(x) + alpha L(x + delta) for Eq. 1,

    w_adv - w_nat = -eta alpha (d/dw L(x + delta) - d/dw L(x))            what is measured, over -eta
                  ~ -eta alpha eps d/dw ||d/dx L(x)||_q                   what Eq. 8 predicts, over -eta

to the first order in eps, where delta is the best step of length eps in the norm p, and 1/p + 1/q = 1. The norm is each
example's own, delta is a number and not a function of w, and no pixel is clipped.

It needs a loss whose second derivatives say how the slope changes. In a network of ReLUs the slope jumps where a unit
switches on or off; the step delta crosses about as many of these places as it is long, which adds a term of the same order
in eps that differentiating twice cannot see. There the two sides differ however small eps is.

As printed, Eq. 8 differs in three ways that do not change the argument: its first line has an eta too many, since Eq. 6
and 7 hold one already; its last line drops the absolute value; and Eq. 2 needs alpha_nat + alpha_adv = 1. It is a
statement about where one step moves the weights, and not about how wide they are spread after many.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor, nn

from awnet.errors import Mistake
from awnet.losses import CrossEntropy, Loss
from awnet.threat_model import L1, L2, Linf, ThreatModel
from awnet.types import Images, Labels, PerExample

DUAL: dict[type[ThreatModel], float] = {Linf: 1.0, L2: 2.0, L1: inf}  # q for each p


@dataclass(frozen=True, kw_only=True)
class FirstOrder:
    """Both sides of Eq. 8 over -eta, for each parameter by name.

    Attributes:
        measured: the gradient of the adversarial loss without that of the standard loss.
        predicted: alpha eps times the gradient of the dual norm.
        filters: the names of the parameters that are filters of convolutions.
    """

    measured: dict[str, Tensor]
    predicted: dict[str, Tensor]
    filters: tuple[str, ...] = ()

    @property
    def residual(self) -> float:
        """||measured - predicted|| over ||predicted||, of all parameters as one vector; 0 where both sides are 0."""
        measured, predicted = _vector(self.measured), _vector(self.predicted)
        off, size = float((measured - predicted).norm()), float(predicted.norm())
        return off / size if size else (inf if off else 0.0)

    @property
    def cosine(self) -> float:
        """Of the angle between the two sides; NaN where one of them is 0."""
        measured, predicted = _vector(self.measured), _vector(self.predicted)
        size = measured.norm() * predicted.norm()
        return float(measured @ predicted / size) if size else float("nan")

    @property
    def filter_mean_correlation(self) -> float:
        """Of the changes of the filters' means, which Fig. 1 and 3 look at; NaN where there are none."""
        if not self.filters:
            return float("nan")
        sides = [
            torch.cat([side[name].flatten(1).mean(1) for name in self.filters])
            for side in (self.measured, self.predicted)
        ]
        a, b = (side - side.mean() for side in sides)
        size = a.norm() * b.norm()
        return float(a @ b / size) if size else float("nan")


def first_order(
    model: nn.Module, x: Images, y: Labels, *, threat: ThreatModel, alpha_adv: float = 0.5, loss: Loss | None = None
) -> FirstOrder:
    """Both sides of Eq. 8 at the weights that a network has, in eval mode and double precision.

    Args:
        model: a classifier of [0, 1] images; left as it was.
        x: images.
        y: their labels.
        threat: the norm and eps.
        alpha_adv: the weight of the adversarial loss, in [0, 1]; the clean one has the rest.
        loss: one number an example; cross-entropy by default.

    Raises:
        Mistake: where the weight is out of range, there are no images, or the norm has no known dual.
    """
    if not 0 <= alpha_adv <= 1:
        raise Mistake(f"alpha_adv is the adversarial loss's share, expected 0 <= alpha_adv <= 1, got {alpha_adv:g}")
    if not len(x):
        raise Mistake("Eq. 8 is measured on images, got none")
    if type(threat) not in DUAL:
        raise Mistake(f"Eq. 8 is measured in the norms Linf, L2 and L1, got {type(threat).__name__}")
    loss = loss or CrossEntropy()
    model = copy.deepcopy(model).double().eval().requires_grad_(True)
    weights = dict(model.named_parameters())

    def by_weights(per_example: PerExample) -> dict[str, Tensor]:
        found = torch.autograd.grad(per_example.mean(), list(weights.values()), allow_unused=True)
        return {n: torch.zeros_like(w) if g is None else g for (n, w), g in zip(weights.items(), found, strict=True)}

    with torch.enable_grad():
        x = x.detach().double().requires_grad_(True)
        natural = loss(model(x), y)
        (slope,) = torch.autograd.grad(natural.sum(), x, create_graph=True)  # of each example's own loss
        predicted = by_weights(alpha_adv * threat.eps * slope.flatten(1).norm(DUAL[type(threat)], dim=1))
        delta = threat.eps * threat.ascend(slope.detach())
        plain, attacked = by_weights(loss(model(x), y)), by_weights(loss(model((x + delta).detach()), y))
    measured = {name: alpha_adv * (attacked[name] - plain[name]) for name in weights}
    convs = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    return FirstOrder(
        measured=measured, predicted=predicted, filters=tuple(n for n in weights if n.removeprefix(".") in convs)
    )


def _vector(side: dict[str, Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in side.values()])
