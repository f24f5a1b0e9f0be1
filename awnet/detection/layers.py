"""What a network makes of images on the way: the outputs of named layers.

A layer's name is the one that `named_modules` gives it. The hooks that listen are there for one forward pass and gone after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from awnet.detection.detector import in_batches
from awnet.errors import Mistake
from awnet.models.swin import Merge, SwinBlock
from awnet.types import Images, Logits

CONTAINERS = (nn.Sequential, nn.ModuleList)
TOKENS = (SwinBlock, Merge)  # their outputs are (b, h, w, c)


def blocks_of(model: nn.Module) -> tuple[str, ...]:
    """The layers that are listened to where none are named: the blocks, or in a network without, the convolutions.

    A block is what stands in a list or sequence of modules and has parts of its own; not those within another block. In an
    AW-Net they are the router's and the dynamic network's.

    Raises:
        Mistake: the network has neither.
    """
    blocks = tuple(_blocks(model, ""))
    found = blocks or tuple(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    if not found:
        raise Mistake(f"a {type(model).__name__} has neither blocks nor convolutions; name the layers to listen to")
    return found


def _blocks(module: nn.Module, name: str) -> Iterator[str]:
    for part, child in module.named_children():
        below = f"{name}.{part}" if name else part
        if isinstance(module, CONTAINERS) and not isinstance(child, CONTAINERS) and any(child.children()):
            yield below
        else:
            yield from _blocks(child, below)


@contextmanager
def listening(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """The outputs of these layers in the forward passes while it lasts, the last one of each, by name.

    Raises:
        Mistake: there is no such layer.
    """
    modules = dict(model.named_modules())
    if missing := [name for name in names if name not in modules]:
        raise Mistake(f"a {type(model).__name__} has no layer {missing[0]!r}; named_modules() tells them")
    heard: dict[str, Tensor] = {}

    def listen(name: str) -> RemovableHandle:
        def note(module: nn.Module, args: Any, out: Tensor) -> None:
            heard[name] = out

        return modules[name].register_forward_hook(note)

    hooks = [listen(name) for name in names]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def activations(
    model: nn.Module, x: Images, names: Sequence[str], *, pooled: bool = True
) -> tuple[Logits, list[Tensor]]:
    """Logits, and the outputs of the layers as vectors, each (b, features).

    Args:
        model: the network.
        x: the images.
        names: of the layers.
        pooled: means over space, one number a channel; else everything.

    Raises:
        Mistake: there is no such layer, or the forward pass does not call it.
    """
    with listening(model, names) as heard:
        logits = model(x)
    if missing := [name for name in names if name not in heard]:
        raise Mistake(f"the layer {missing[0]!r} of a {type(model).__name__} is not called; name another one")
    modules = dict(model.named_modules())
    return logits, [_vector(heard[name], isinstance(modules[name], TOKENS), pooled) for name in names]


def _vector(out: Tensor, tokens: bool, pooled: bool) -> Tensor:
    if out.ndim == 4 and pooled:
        return out.mean((1, 2) if tokens else (2, 3))
    return out.flatten(1)


@torch.no_grad()
def all_activations(
    model: nn.Module, x: Images, names: Sequence[str], *, pooled: bool = True
) -> tuple[Logits, list[Tensor]]:
    """`activations` of many images, a batch at a time, without gradients."""
    parts = [activations(model, part, names, pooled=pooled) for part in in_batches(x)]
    logits = torch.cat([logits for logits, _ in parts])
    return logits, [torch.cat([vectors[i] for _, vectors in parts]) for i in range(len(names))]


class Embedding(nn.Module):
    """What goes into the last linear layer of a network, whose output is the logits.

    Args:
        model: the network.
        x: some images, to see which layer that is.

    Raises:
        Mistake: the logits are not a linear layer's output.
    """

    def __init__(self, model: nn.Module, x: Images) -> None:
        super().__init__()
        self.model = model
        linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        with torch.no_grad(), listening(model, linear) as heard:
            logits = model(x[:1])
        last = [name for name, out in heard.items() if out is logits]
        if not last:
            raise Mistake(
                f"this detector needs a network that ends in a linear layer, a {type(model).__name__} does not"
            )
        self.head = last[-1]

    def forward(self, x: Images) -> tuple[Logits, Tensor]:
        """Logits, and the features (b, f) that they are linear in."""
        seen: list[Tensor] = []
        hook = self.model.get_submodule(self.head).register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        try:
            logits = self.model(x)
        finally:
            hook.remove()
        return logits, seen[-1]

    @torch.no_grad()
    def all(self, x: Images) -> tuple[Logits, Tensor]:
        """The same of many images, a batch at a time, without gradients."""
        parts = [self(part) for part in in_batches(x)]
        return torch.cat([logits for logits, _ in parts]), torch.cat([features for _, features in parts])
