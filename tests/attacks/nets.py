"""Networks for the attack tests: a linear one with closed forms, a small one with everything that can be left changed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from awnet.models.awnet import AWNet


class Linear(nn.Module):
    """Logits w · x + b of images."""

    def __init__(self, w: Tensor, b: Tensor | float = 0.0) -> None:
        super().__init__()
        self.w = nn.Parameter(w)  # (k, c, h, w)
        self.b = b

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.w.flatten(1).T + self.b


def small_net(*, channels: int = 3, classes: int = 10, width: int = 8, pixels: int = 8) -> nn.Sequential:
    """Two convolutions, the second of stride 2, and a linear layer; no batch norm."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * (pixels // 2) ** 2, classes),
    )


@torch.no_grad()
def lively(model: nn.Module, x: Tensor) -> nn.Module:
    """The same network as if it had been trained: uneven batch norms and signals, logits of spread 1 around 0 on x."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.1)
    if isinstance(model, AWNet):
        model.router.signal_heads.weight.normal_(0, 0.3)
    model.eval()
    head = model.head if hasattr(model, "head") else [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    assert isinstance(head, nn.Linear)
    logits = model(x)
    head.weight /= (logits - logits.mean(0)).std()
    head.bias -= model(x).mean(0)
    return model
