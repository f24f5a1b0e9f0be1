"""Networks for the attack tests: a linear one with closed forms, a small one with everything that can be left changed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from awnet.attacks import APGD, Square, Suite, TensorExamples
from awnet.models.awnet import AWNet
from awnet.threat_model import Linf


class Linear(nn.Module):
    """Logits w · x + b of images."""

    def __init__(self, w: Tensor, b: Tensor | float = 0.0) -> None:
        super().__init__()
        self.w = nn.Parameter(w)  # (k, c, h, w)
        self.b = b

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.w.flatten(1).T + self.b


class Blurred(nn.Module):
    """Classes whose weights bfloat16 cannot tell apart, 0 and 1, and one that is a single pixel, 2.

    A grey image is of class 0: every pixel is worth 0.001 eps of its margin, which is nine tenths of all that. In what is left
    for float32 a run of APGD does not come so far. Nothing moves a spotted one, of class 2.
    """

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 3, 1, bias=False), nn.Linear(192, 3)
        sign, spot = torch.ones(192), torch.zeros(192)
        sign[::2], spot[0] = -1, 500
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(3)[:, :, None, None])
            self.last.weight.copy_(torch.stack([1 + 0.0005 * sign, 1 - 0.0005 * sign, spot]))
            self.last.bias.copy_(torch.tensor([0.9 * 0.192 * eps, 0.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).flatten(1))

    @staticmethod
    def suite(eps: float) -> Suite:
        """An attack that takes its last steps in float32, and one that does not."""
        threat = Linf(eps)
        return Suite(members=(("apgd", APGD(threat=threat, steps=40)), ("square", Square(threat=threat, steps=2))))

    @staticmethod
    def images(*, grey: int, spotted: int) -> TensorExamples:
        """So many of each, in this order."""
        x = torch.full((grey + spotted, 3, 8, 8), 0.5)
        y = torch.tensor([0] * grey + [2] * spotted)
        x[:, 0, 0, 0] = (y == 2).float()
        return TensorExamples(x, y, torch.arange(len(x)))


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
