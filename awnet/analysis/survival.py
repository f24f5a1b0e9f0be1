"""How much of omega survives the type-wise batch norm of an AW-Net.

In training each batch norm sees images of one type (Eq. 13), right behind the filters that omega scales. Whatever omega has in
common for all images of a type is then divided out again: gamma (omega pi - omega mu) / (omega sigma) is free of omega. What
can act is how omega differs between the images of one type, and so omega is here replaced by

- the mean of its type: nothing that differs within a type is left;
- that of another image of its type, shuffled: what differs is there, and belongs to somebody else;
- one: and the batch norms' statistics no longer fit;
- one, with the statistics estimated anew, each type's by itself.

P_type stays what the router says. The attacked images are those made against the network as it is, so that accuracy on
them says what omega does on these images, and not how robust the network is without it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from awnet.attacks.frozen import frozen_for_attack
from awnet.errors import Mistake
from awnet.models import AWNet, Branch, Routing
from awnet.models.dynamic_conv import DynamicConv2d
from awnet.models.mix_batch_norm import MixConv2d
from awnet.models.model import device_of
from awnet.noise import permutation
from awnet.types import Hits, Images, Labels, Logits, PerExample, Signals

AS_IS = "as it is"
ANEW = "one, batch norms anew"

WAYS: dict[str, Callable[[Signals, Tensor], Tensor]] = {  # from the signals (n, c) of a type and each image's partner
    AS_IS: lambda omega, partner: omega,
    "mean of its type": lambda omega, partner: omega.mean(0).expand_as(omega),
    "shuffled": lambda omega, partner: omega[partner],
    "one": lambda omega, partner: torch.ones_like(omega),
}


class Types(NamedTuple):
    """The same images as they are and attacked, in the same order."""

    clean: Images
    attacked: Images


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the network says of n images with omega replaced.

    Attributes:
        correct: whether the class is right.
        moved: whether it is another than with omega as it is.
        change: the root mean square difference of the logits from those with omega as it is.
    """

    correct: Hits
    moved: Hits
    change: PerExample


def survival(
    model: nn.Module, images: Types, y: Labels, *, seed: int = 0, batch_size: int = 128, fit: Types | None = None
) -> dict[str, dict[str, Answers]]:
    """The network's answers with omega replaced in each way, for "clean" and "attacked" images.

    Args:
        model: an AW-Net, left as it was.
        images: of both types.
        y: their labels.
        seed: of who is shuffled with whom; nobody keeps his own.
        batch_size: how many are looked at together.
        fit: training images of both types for the statistics that are estimated anew; without them, that way is left out.

    Raises:
        Mistake: where the model is no AW-Net or its knob sets omega = 1, or there are fewer than two images.
    """
    if not isinstance(model, AWNet) or not model.knob.omega:
        raise Mistake(f"what survives of omega is asked of an AW-Net that has one, got a {type(model).__name__}")
    if not len(images.clean) == len(images.attacked) == len(y) >= 2:
        raise Mistake(
            f"what survives of omega is asked on 2 or more images of each type, got {len(images.clean)} clean ones, "
            f"{len(images.attacked)} attacked ones and {len(y)} labels"
        )
    order = permutation(seed, len(y))
    partner = torch.empty_like(order).scatter(0, order, order.roll(1))  # one long circle
    found: dict[str, dict[str, Answers]] = {}
    anew = None if fit is None else estimated_anew(model, fit, batch_size)
    with frozen_for_attack(model), torch.no_grad():
        for type_, x in images._asdict().items():
            routing = _routing(model, x, batch_size)
            logits = {
                way: _classify(model, x, routing._replace(signals=_each(change, routing, partner)), batch_size)
                for way, change in WAYS.items()
            }
            if anew is not None:
                logits[ANEW] = _classify(anew, x, routing, batch_size)
            for way, said in logits.items():
                found.setdefault(way, {})[type_] = Answers(
                    correct=said.argmax(1) == y.cpu(),
                    moved=said.argmax(1) != logits[AS_IS].argmax(1),
                    change=(said - logits[AS_IS]).square().mean(1).sqrt(),
                )
    return found


def _each(change: Callable[[Signals, Tensor], Tensor], routing: Routing, partner: Tensor) -> tuple[Tensor, ...]:
    return tuple(change(omega, partner.to(omega.device)) for omega in routing.signals)


def _routing(model: AWNet, x: Images, batch_size: int) -> Routing:
    device = device_of(model)
    parts = [model.router(model.normalize(part.to(device))) for part in x.split(batch_size)]
    signals = tuple(torch.cat(layer) for layer in zip(*(part.signals for part in parts), strict=True))
    return Routing(torch.cat([part.type_logits for part in parts]), signals)


def _classify(model: AWNet, x: Images, routing: Routing, batch_size: int) -> Logits:
    said = []
    for rows in torch.arange(len(x)).split(batch_size):
        part = Routing(routing.type_logits[rows], tuple(omega[rows] for omega in routing.signals))
        x_part = model.normalize(x[rows].to(part.type_logits.device))
        said.append(model.classify(x_part, part, Branch.MIXTURE).float().cpu())
    return torch.cat(said)


def estimated_anew(model: AWNet, fit: Types, batch_size: int = 128) -> AWNet:
    """A copy with omega = 1 whose batch norms have the statistics of these images: BN_nat of the clean, BN_adv of the attacked.

    Every batch counts the same. The router is as it was.
    """
    model = copy.deepcopy(model).eval()
    model = model.turned(replace(model.knob, omega=False))
    for module in model.modules():
        if isinstance(module, (DynamicConv2d, MixConv2d)):
            module.train()
        if isinstance(module, nn.BatchNorm2d) and module.training:  # the router's are not
            module.reset_running_stats()
            module.momentum = None  # the plain mean over the batches
    device = device_of(model)
    with torch.no_grad():
        for x, branch in zip(fit, (Branch.CLEAN, Branch.ADVERSARIAL), strict=True):
            for part in x.split(batch_size):
                part = model.normalize(part.to(device))
                model.classify(part, model.router(part), branch)
    return model.eval()


def share_between_types(clean: Mapping[str, Tensor], attacked: Mapping[str, Tensor]) -> dict[str, float]:
    """The share of omega's variance, filter by filter, that lies between the types: what batch norm takes out again.

    Args:
        clean, attacked: the signals (n, filters) of each layer, as `awnet.evaluation.modulation.signals` finds them.

    Returns:
        In [0, 1], for each layer: 0 where both types have the same mean, 1 where a type's images all have the same
        signals; NaN where omega never changes.
    """
    found = {}
    for layer in clean:
        types = [clean[layer].double(), attacked[layer].double()]
        middle = torch.stack([omega.mean(0) for omega in types]).mean(0)
        between = sum((omega.mean(0) - middle).square().mean() for omega in types)
        whole = sum((omega - middle).square().mean() for omega in types)
        found[layer] = float(between / whole) if whole else float("nan")
    return found
