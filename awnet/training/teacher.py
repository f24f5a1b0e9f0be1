"""A network that another one learns from: it is asked, and never trained."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from awnet.attacks.attack import frozen_for_attack
from awnet.errors import Mistake
from awnet.noise import Noise
from awnet.types import Images, Logits

APART = 0.02  # of the largest logit; an answer in bfloat16 differs by less


class Teacher(nn.Module):
    """Answers in eval mode and without gradients.

    An objective that holds one moves it with itself to another device, and neither trains it, nor saves it, nor switches it
    to training mode.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = (network.eval(),)  # in a tuple, so that it is no part of this module

    @property
    def network(self) -> nn.Module:
        """The network itself."""
        return self._network[0]

    @torch.no_grad()
    def forward(self, x: Images) -> Logits:
        return self.network(x)

    def check_inside(self, inside: Callable[[Images], Logits], whole: nn.Module, role: str, x: Images) -> None:
        """Refuse a network that holds this one's weights as a part and computes something else with them.

        Mean and deviation of the input are no weights, and another kind of network may have layers of the same names.

        Args:
            inside: the part, with what the network does to images before it.
            whole: that network.
            role: of this teacher, for the sentence.
            x: images of the shape that they are for; noise is put in their place.

        Raises:
            Mistake: the answers differ.
        """
        few = torch.arange(4, device=x.device)
        noise = Noise(0, few).uniform(0, tuple(x.shape[1:])).to(x)
        with frozen_for_attack(whole), torch.no_grad():
            ours, theirs = inside(noise), self(noise)
        if (ours - theirs).abs().max() > APART * theirs.abs().max():
            raise Mistake(
                f"{role} says something else inside of the {type(whole).__name__} than by itself: its mean, std or kind "
                "differ there; set --model to what the teacher is"
            )

    def _apply(self, fn, recurse: bool = True):  # noqa: ANN001, ANN202 - moves the network with the module
        self.network._apply(fn)
        return super()._apply(fn, recurse)
