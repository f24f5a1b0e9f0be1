"""Models that mislead an evaluation, each in one way: relatives of a network that works, for the checks to find out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from training.tiny import dataset, own


class Around(nn.Module):
    """A network with something done to its images and to its logits."""

    def __init__(
        self,
        net: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda logits: logits,
    ) -> None:
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.net(self.before(x)))


def snapped(x: Tensor) -> Tensor:
    """Six grey levels: a step function, without a slope anywhere."""
    return (5 * x).round() / 5


def straight_through(x: Tensor) -> Tensor:
    """The same with the slope of the image."""
    return x + (snapped(x) - x).detach()


def neighbours(logits: Tensor) -> Tensor:
    """Less what the batch has in common, as batch statistics do."""
    return logits - logits.mean(0) / 2


def random(logits: Tensor) -> Tensor:
    return logits + 0.3 * torch.randn_like(logits)


def broken(logits: Tensor) -> Tensor:
    """No number where the first class leads."""
    return torch.where(logits.argmax(1, keepdim=True) == 0, float("nan"), logits)


def squeezed(logits: Tensor) -> Tensor:
    """A batch of one loses its dimension."""
    return logits.squeeze(0)


def without_gradient(logits: Tensor) -> Tensor:
    return logits.detach()


def saturated(logits: Tensor) -> Tensor:
    """Logits so far apart that softmax is 0 or 1."""
    return 1e4 * logits


def normalised(x: Tensor) -> Tensor:
    """What undoes a normalisation: behind it a network expects normalised images."""
    return 0.2 * x + 0.45


def of_bytes(x: Tensor) -> Tensor:
    """Behind it a network expects pixels from 0 to 255."""
    return x / 255


class Edgy(nn.Module):
    """Calls every image that is mostly black and white the first class: it grows more accurate as eps grows."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        edgy = (((x <= 0) | (x >= 1)).flatten(1).double().mean(1) > 0.4)[:, None]
        return torch.where(edgy, torch.eye(logits.shape[1])[:1] * 9, logits)


class Alarmed(nn.Module):
    """Tells attacked images by how bright they are."""

    def __init__(self, net: nn.Module, limit: float) -> None:
        super().__init__()
        self.net, self.limit = net, limit

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def detect(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(x), (500 * (self.limit - x.mean((1, 2, 3)))).sigmoid()


class Brittle(nn.Module):
    """Gives images whose neighbouring pixels differ much another class."""

    def __init__(self, net: nn.Module, limit: float) -> None:
        super().__init__()
        self.net, self.limit = net, limit

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        roughness = (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3))
        return torch.where((roughness > self.limit)[:, None], logits.roll(1, dims=1), logits)


class Scaled(nn.Module):
    """A network whose class scores are the filters, all positive, that are scaled image by image."""

    def __init__(self, net: nn.Module, scale: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, x: Tensor) -> Tensor:
        return self.hold(x, self.signals(x))

    def signals(self, x: Tensor) -> dict[str, Tensor]:
        return {"scores": self.scale(x)}

    def hold(self, x: Tensor, signals: Mapping[str, Tensor]) -> Tensor:
        return self.net(x).sigmoid() * signals["scores"]


def common(x: Tensor) -> Tensor:
    """One scale for all classes, which decides nothing."""
    return (0.5 + x.mean((1, 2, 3)))[:, None].repeat(1, 3)


def rugged(x: Tensor) -> Tensor:
    """The same, except that it changes so fast that its slope drowns every other."""
    return common(1e-3 * x) * (1 + 0.5 * (1e4 * x.mean((1, 2, 3))).sin())[:, None]


def telling(x: Tensor) -> Tensor:
    """What tells the class better than any filter: where the image is bright."""
    return torch.stack([6 * band.mean((1, 2, 3)) for band in x.split(3, dim=2)], dim=1).exp()


def fixed(x: Tensor) -> Tensor:
    """The same for all images."""
    return torch.tensor([1.0, 1.5, 0.7]).repeat(len(x), 1)


def sound() -> nn.Module:
    """A network of nobody's misleading: it gets most of the tiny images right, and half of them when attacked."""
    model = own(2)
    x, y = dataset(90).batch(torch.arange(90))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(12):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.zero_grad()
    return model.eval()
