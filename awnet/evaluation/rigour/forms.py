"""Frozen forms: the network itself, with its decision or what scales its filters held still, as a network to be attacked."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from awnet.models.model import Deciding, Holding
from awnet.types import Images, Logits


class Form(nn.Module):
    """A model that decides, with every image in one of its frozen forms."""

    def __init__(self, model: nn.Module, form: str) -> None:
        super().__init__()
        self.model, self.form = model, form

    def forward(self, x: Images) -> Logits:
        assert isinstance(self.model, Deciding)
        return self.model.decide(x, x, self.form, torch.ones(len(x), dtype=torch.bool, device=x.device)).logits


class Held(nn.Module):
    """A model that modulates, with the filters of every image scaled by the same constants."""

    def __init__(self, model: nn.Module, signals: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.model, self.signals = model, signals

    def forward(self, x: Images) -> Logits:
        assert isinstance(self.model, Holding)
        return self.model.hold(x, self.signals)
