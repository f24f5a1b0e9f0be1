"""DAJAT, diverse augmentation-based joint adversarial training (Addepalli, Jain and Babu, NeurIPS 2022,
https://arxiv.org/abs/2210.15318): a simple view of each image, and others that AutoAugment has changed.

    mean over the views v of (CE(f_v(x_v), y) + beta KL(f_v(x_v) || f_v(x_v + delta_v))) + js JS(p_1, ..., p_n)
    p_v = softmax(f_v(x_v)),   JS = mean_v KL(p_v || mean_u p_u)

Strong augmentation alone costs robustness, as its images are distributed otherwise; so the f_v share all weights but the batch
norms, of which the simple view has one set, that of the network, and all AutoAugment views a second one, which is trained
beside it and no part of the network afterwards.

The published runs let the radius rise from 0 over the whole training (`TrainingConfig.eps_warm_up` = 1), average the weights
(`ema`), and perturb the weights for the simple view's sake (AWP), which is left out here, as are smooth labels for CIFAR-100.
There each view has a crop of its own and AutoAugment comes before it; here it changes the image that the simple view shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from math import inf, log

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from awnet.config import setting
from awnet.data.auto_augment import auto_augment
from awnet.errors import Mistake
from awnet.noise import Noise, fold
from awnet.threat_model import ThreatModel
from awnet.training.objective import OBJECTIVES, Losses, Moment, Objective, ObjectiveConfig
from awnet.training.trades import TRADES, TRADESConfig
from awnet.types import Images, Labels, Logits, PerExample

_VIEWS = 1  # the stream of a step's seed from which the views come


@setting
@dataclass(frozen=True, kw_only=True)
class DAJATConfig(ObjectiveConfig):
    """mean CE + beta * mean KL(f(x) || f(x_adv)) over the views, and js * mean JS between them.

    Args:
        views: of AutoAugment, beside the simple one; published: 1, 2 and 3.
        beta: of stability; 11 in the published code.
        js: of the views' agreement; 2 in the published code.
        steps: of the inner PGD on the KL, from x + 0.001 N(0, 1); 2 with a small budget, 5 of eps/2 with a large one.
        step_size: as a fraction of eps.
    """

    views: int = 1
    beta: float = 11.0
    js: float = 2.0
    steps: int = 2
    step_size: float = 1.0

    def __post_init__(self) -> None:
        if self.views < 1 or not (0 <= self.beta < inf and 0 <= self.js < inf):
            raise Mistake(
                "DAJAT needs 1 or more views, and beta and js of 0 or more, got "
                f"{self.views}, {self.beta:g} and {self.js:g}"
            )

    def build(self, threat: ThreatModel, teachers: dict[str, nn.Module]) -> DAJAT:
        return DAJAT(self, threat)


class DAJAT(Objective):
    """The DAJAT loss, with the second set of batch norms. In eval mode the simple view alone: the network's own statistics."""

    def __init__(self, config: DAJATConfig, threat: ThreatModel) -> None:
        super().__init__()
        self.config = config
        settings = TRADESConfig(beta=config.beta, steps=config.steps, step_size=config.step_size)
        self.pair = TRADES(settings, threat)
        self.second = nn.ModuleList()
        self.places: tuple[str, ...] = ()  # in the network, of the batch norms that they stand for

    def prepare(self, model: nn.Module) -> None:
        norms = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
        self.places = tuple(norms)
        self.second = nn.ModuleList(deepcopy(norm) for norm in norms.values())

    def adversarial(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Images:
        return self.pair.adversarial(model, x, y, ids, moment)

    def forward(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Losses:
        views: list[tuple[nn.Module, Images, Moment]] = [(model, x, moment)]
        if self.training:
            if not self.places:
                self.prepare(model)
            other = _Otherwise(model, dict(self._tensors()))
            for number in range(self.config.views):
                seed = fold(moment.seed, _VIEWS, number)
                views.append((other, augmented(x, Noise(seed, ids)), moment._replace(seed=seed)))

        losses, logits = [], []
        for network, shown, when in views:
            x_adv = self.pair.find(model, network, network, shown, y, ids, when)
            adversarial, clean = network(x_adv), network(shown)
            losses.append(self.pair.compare(clean, adversarial, shown, x_adv, y, when))
            logits.append(clean)
        terms = {name: torch.stack([each.terms[name] for each in losses]).mean(0) for name in losses[0].terms}
        terms["agreement"] = jensen_shannon(logits)
        return Losses(terms, {**losses[0].weights, "agreement": self.config.js}, {})

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The second set's parameters and buffers under the names of those of the network."""
        for place, norm in zip(self.places, self.second, strict=True):
            for name, t in chain(norm.named_parameters(), norm.named_buffers()):
                yield f"{place}.{name}" if place else name, t


class _Otherwise(nn.Module):
    """A network with some other parameters and buffers, which are trained and moved in place of its own."""

    def __init__(self, model: nn.Module, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self._model, self._tensors = (model,), tensors

    def forward(self, x: Images) -> Logits:
        return functional_call(self._model[0], self._tensors, (x,))


def augmented(x: Images, noise: Noise) -> Images:
    """AutoAugment on images in [0, 1]."""
    return auto_augment((255 * x).round().to(torch.uint8), noise).to(x) / 255


def jensen_shannon(logits: list[Logits]) -> PerExample:
    """mean_v KL(p_v || mean_u p_u), p_v = softmax(z_v)."""
    log_p = torch.stack(logits).log_softmax(2)
    log_mean = log_p.logsumexp(0) - log(len(logits))
    return (log_p.exp() * (log_p - log_mean)).sum(2).mean(0)


OBJECTIVES.register("dajat")(DAJATConfig())
