"""What AW-Net's forward pass costs beside two plain residual networks, which do the same convolutions.

    python benchmarks/forward.py --base 18 --batch 256 --out forward.json

AW-Net is a dynamic network and a router, so it stands beside two ResNets: one like its base, one like its router's
backbone. All run eagerly, in eval mode, without gradients. Batch norm can be left out of a comparison in two ways, so
there are two comparisons:

- unfolded: the plain networks run their batch norms as layers, as evaluation code usually does. The router of AW-Net does
  the same. Its dynamic half has no batch norm layers left: omega, BN_nat, BN_adv and their mixture are one pointwise map of
  each channel, and that is how it is always run.
- folded: every batch norm of the plain networks is folded into the convolution before it, and so is every one in the
  router's backbone. This is the plain networks at their best. The dynamic half cannot go further: its scales and shifts
  differ from image to image, and the weights of a convolution do not, so the pointwise map stays.

The contestants take turns, so that a slow moment of the machine meets all of them. The row printed last is

| base | width | batch | pixels | AW-Net | two ResNets | ratio | AW-Net, router folded | two ResNets, folded | ratio | on |

with medians in milliseconds; the record holds every single time.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from awnet.models import AWNet, AWNetConfig, Branch, ResNetConfig, RouterConfig, create, parameter_count
from awnet.provenance import provenance


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--base", type=int, choices=(18, 34, 50), default=18, help="depth of the dynamic network")
    parser.add_argument("--width", type=int, default=64, help="channels of the stems")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--pixels", type=int, default=32, help="of a side")
    parser.add_argument("--runs", type=int, default=20, help="timed passes of each network")
    parser.add_argument("--warm-up", type=int, default=3, help="passes of each network before the first that is timed")
    parser.add_argument("--threads", type=int, default=0, help="of torch on the CPU; 0: its own choice")
    parser.add_argument("--channels-last", action="store_true", help="the memory format of weights and images")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="the record, a JSON file")
    return parser.parse_args()


def as_trained(model: nn.Module, x: Tensor) -> nn.Module:
    """Running statistics that fit the weights and signals that are not one, so that no activation dies out."""
    model.train()
    if isinstance(model, AWNet):
        heads = model.router.signal_heads
        nn.init.normal_(heads.weight, std=0.1 * heads.in_features**-0.5)
        model(x, Branch.HALVES)
    else:
        model(x)
    return model.eval()


def fold(model: nn.Module) -> nn.Module:
    """Puts every batch norm of a plain residual network, or of its trunk, into the convolution before it."""
    for module in list(model.modules()):
        children = dict(module.named_children())
        for name, conv in children.items():
            after = "1" if name == "0" else name.replace("conv", "bn")  # conv2 and bn2; in a shortcut 0 and 1
            bn = children.get(after)
            if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, bn))
                setattr(module, after, nn.Identity())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    return model


def contestants(options: argparse.Namespace, x: Tensor) -> dict[str, list[nn.Module]]:
    """The four, each one or two networks."""
    base, backbone = ResNetConfig(depth=options.base, width=options.width), ResNetConfig(width=options.width)
    router = RouterConfig(backbone=backbone)
    few = x[:16]  # enough for statistics
    dynamic = as_trained(create(AWNetConfig(base=base, router=router), classes=10).to(x.device), few)
    pair = [as_trained(create(config, classes=10).to(x.device), few) for config in (base, backbone)]
    dynamic_folded, *pair_folded = copy.deepcopy([dynamic, *pair])
    assert isinstance(dynamic_folded, AWNet)
    fold(dynamic_folded.router.backbone)
    for model in pair_folded:
        fold(model)
    for plain, fused in zip([dynamic, *pair], [dynamic_folded, *pair_folded], strict=True):
        torch.testing.assert_close(fused(few), plain(few), rtol=1e-3, atol=1e-3)  # folding changes rounding only

    if options.channels_last:
        for model in (dynamic, dynamic_folded, *pair, *pair_folded):
            model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return {
        "awnet": [dynamic],
        "resnets": pair,
        "awnet_router_folded": [dynamic_folded],
        "resnets_folded": pair_folded,
    }


def timed(models: list[nn.Module], x: Tensor) -> float:
    """Seconds of one pass through all of them, the device's queue being empty before and after."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    began = time.perf_counter()
    for model in models:
        model(x)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - began


@torch.no_grad()
def main() -> None:
    """Times the four and writes the record."""
    options = arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    torch.manual_seed(0)
    x = torch.rand(options.batch, 3, options.pixels, options.pixels).to(device)
    teams = contestants(options, x)
    if options.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)

    for models in teams.values():
        for _ in range(options.warm_up):
            timed(models, x)
    seconds: dict[str, list[float]] = {name: [] for name in teams}
    names = list(teams)
    for i in range(options.runs):
        for name in names[i % len(names) :] + names[: i % len(names)]:  # nobody always follows the same one
            seconds[name].append(timed(teams[name], x))

    ms = {name: 1e3 * median(times) for name, times in seconds.items()}
    plain, fused = ms["awnet"] / ms["resnets"], ms["awnet_router_folded"] / ms["resnets_folded"]
    where = provenance()
    record = {
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
        "provenance": where,
        "parameters": {name: sum(map(parameter_count, models)) for name, models in teams.items()},
        "median_ms": ms,
        "ratio": {"unfolded": plain, "folded": fused},
        "seconds": seconds,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    cells = [
        *(f"ResNet-{options.base}", options.width, options.batch, options.pixels),
        *(f"{ms['awnet']:.1f}", f"{ms['resnets']:.1f}", f"{plain:.2f}"),
        *(f"{ms['awnet_router_folded']:.1f}", f"{ms['resnets_folded']:.1f}", f"{fused:.2f}"),
        where["gpu"] if device.type == "cuda" else f"{where['cpu']}, {where['threads']} threads of {where['cores']}",
    ]
    sys.stdout.write("| " + " | ".join(map(str, cells)) + " |\n")


if __name__ == "__main__":
    main()
