"""A network as training might leave it: nothing is zero, one, or the same as its twin any more."""

from __future__ import annotations

import torch
from torch import nn

from awnet.models import Router


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 1) -> nn.Module:
    """Draws all parameters and running statistics of a network anew, each layer keeping the scale of its input."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.weight.uniform_(0.3, 1.2).mul_(torch.randn_like(module.weight).sign())
                module.bias.normal_(0, 0.5)
                module.running_mean.normal_(0, 0.5)
                module.running_var.uniform_(0.5, 2)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    module.bias.normal_(0, 0.5)
            elif isinstance(module, nn.LayerNorm):
                module.weight.uniform_(0.3, 1.2)
                module.bias.normal_(0, 0.5)
    return model


@torch.no_grad()
def unsettle(model: nn.Module, x: torch.Tensor, seed: int = 1) -> nn.Module:
    """`randomise`, then scales each router's heads so that the images x get types and signals of all sizes."""
    randomise(model, seed).eval()
    for router in (module for module in model.modules() if isinstance(module, Router)):
        seen: list[torch.Tensor] = []
        hook = router.signal_heads.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        model(x)
        hook.remove()
        for head, spread in ((router.type_head, 1), (router.signal_heads, 1 / 3)):
            if head is None:
                continue
            answer = head(seen[0])
            head.weight.mul_(spread / answer.std(0)[:, None].clamp(min=1e-3))  # over the images 0 +- spread
            head.bias.copy_(-(head.weight @ seen[0].mean(0)))
    return model
