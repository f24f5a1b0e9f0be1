"""Training beside two finished networks: a model holds them as its parts, and what stands before or between them is trained.

Separate-Net's detector (`awnet.training.type_detector`) and adaptive smoothing's mixing network
(`awnet.training.adaptive_smoothing`) are such. The teachers' weights are put in before the first step and never move.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

import torch
from torch import nn

from awnet.attacks.frozen import frozen_for_attack
from awnet.checkpoint import load_weights
from awnet.errors import Mistake
from awnet.noise import Noise
from awnet.training.objective import Objective
from awnet.training.teacher import Teacher
from awnet.types import Images

APART = 0.02  # of the largest logit; an answer in bfloat16 differs by less


class Whole(Protocol):
    """A model that shows what it has normalised to one of two parts, or to both."""

    clean: nn.Module
    robust: nn.Module

    def normalize(self, x: Images) -> Images: ...


class BesideFinished(Objective):
    """An objective over such a model; of the networks in it, it needs the weights once."""

    def __init__(self, *, clean: nn.Module, robust: nn.Module) -> None:
        super().__init__()
        self.clean, self.robust = Teacher(clean), Teacher(robust)
        self._due = False

    @abstractmethod
    def whole(self, model: nn.Module) -> Whole:
        """The model as what it has to be, or a mistake."""

    def prepare(self, model: nn.Module) -> None:
        whole = self.whole(model)
        load_weights(whole.clean, self.clean.network.state_dict(), "the clean teacher")
        load_weights(whole.robust, self.robust.network.state_dict(), "the robust teacher")
        self._due = True  # images, whose shape is not known yet

    @torch.no_grad()
    def compare(self, model: nn.Module, x: Images) -> None:
        """At the first images, refuse a model in which a teacher's weights compute something else than in the teacher.

        Mean and deviation of the input are no weights, and another kind of network may have layers of the same names.

        Raises:
            Mistake: the answers to noise of the shape of x differ.
        """
        if not self._due:
            return
        self._due, whole = False, self.whole(model)
        noise = Noise(0, torch.arange(4, device=x.device)).uniform(0, tuple(x.shape[1:])).to(x)
        with frozen_for_attack(model):
            for role, teacher, part in (("clean", self.clean, whole.clean), ("robust", self.robust, whole.robust)):
                inside, alone = part(whole.normalize(noise)), teacher(noise)
                if (inside - alone).abs().max() > APART * alone.abs().max():
                    raise Mistake(
                        f"the {role} teacher says something else inside of the {type(model).__name__} than by itself: its "
                        "mean, std or kind differ there; set --model to what the teacher is"
                    )
