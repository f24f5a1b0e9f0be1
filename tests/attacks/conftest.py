"""Trained networks for the attack tests: a small one on the 8x8 digits of scikit-learn, in a second or two."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from attacks.nets import small_net


class Trained(NamedTuple):
    model: nn.Module
    x: Tensor  # images that it did not see and classifies correctly
    y: Tensor


@pytest.fixture(scope="session")
def digits() -> Trained:
    pixels, labels = load_digits(return_X_y=True)
    x = torch.tensor(pixels).float().view(-1, 1, 8, 8) / 16
    y = torch.tensor(labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = small_net(channels=1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(8):
            for batch in torch.randperm(1400).split(50):
                optimizer.zero_grad()
                F.cross_entropy(model(x[batch]), y[batch]).backward()
                optimizer.step()
    model.zero_grad()
    model.eval()
    with torch.no_grad():
        kept = 1400 + (model(x[1400:]).argmax(1) == y[1400:]).nonzero()[:, 0]
    return Trained(model, x[kept], y[kept])
