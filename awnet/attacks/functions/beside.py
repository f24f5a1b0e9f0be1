"""The second network of an attack, at hand or by its name, which has to fit the model that it stands beside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from awnet.attacks.inputs import answers_of, check_module, checked
from awnet.attacks.second_network import lent, second_network
from awnet.errors import Mistake
from awnet.models.model import device_of


@contextmanager
def beside(network: nn.Module | str, role: str, model: nn.Module, x: Tensor, y: Tensor) -> Iterator[str]:
    """The name under which attacks find the network while this lasts.

    Args:
        network: a module, left as it was; or the name of a network, which is read.
        role: what it is to the model, for messages.
        model: that is attacked.
        x, y: the images and labels.

    Raises:
        Mistake: they are not what an attack takes; or the network is elsewhere than the model, cannot be asked about the
            images, or has other classes.
    """
    check_module(model)
    if not isinstance(network, str):
        check_module(network)
    x, place = checked(x, y).x, device_of(model, x.device)
    images = x[:1].repeat(2, 1, 1, 1)  # not every network answers a batch of one
    with lent(network) as name:
        other = second_network(name, place)
        if device_of(other, place) != place:
            raise Mistake(f"the {role} is on {device_of(other)}, the model on {place}; put both on one device")
        if len(images):
            classes = answers_of(model, images).shape[1]
            try:
                others = answers_of(other, images).shape[1]
            except Mistake as mistake:
                raise Mistake(f"the {role} does not fit: {mistake}") from None
            if others != classes:
                raise Mistake(f"the {role} has {others} classes, the model {classes}; they must be the same")
        yield name
