"""Other libraries as they are asked in benchmarks, each where it is installed, and the floor below which nobody gets.

Nothing else of the project imports them.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from awnet.checkpoint import load, read_about
from awnet.config import from_json
from awnet.data import DataConfig
from awnet.data import load as load_data
from awnet.models import Architecture, AWNetConfig, ResNetConfig, RouterConfig, WideResNetConfig, create
from awnet.provenance import provenance
from awnet.threat_model import ThreatModel

PACKAGES = {  # and what is imported of them
    "torchattacks": ("torchattacks", "torchattacks"),
    "Foolbox": ("foolbox", "foolbox"),
    "ART": ("adversarial-robustness-toolbox", "art.attacks.evasion"),
    "adversarial-library": ("adv-lib", "adv_lib.attacks"),
}
NETWORKS: dict[str, Architecture] = {
    "resnet18": ResNetConfig(depth=18, width=16),
    "wide-resnet": WideResNetConfig(depth=16, widen=4),
    "awnet": AWNetConfig(base=ResNetConfig(depth=18, width=16), router=RouterConfig(backbone=ResNetConfig(width=16))),
}
Attacker = Callable[[Tensor, Tensor], Tensor]  # images and labels to adversarial images


def common(parser: ArgumentParser) -> None:
    """Options that benchmarks of attacks share."""
    parser.add_argument(
        "--network", default="resnet18", help=f"a checkpoint, or without training {', '.join(NETWORKS)}"
    )
    parser.add_argument("--data-dir", help="where the checkpoint's images are")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--runs", type=int, default=1, help="turns of each contestant")
    parser.add_argument("--threads", type=int, default=0, help="of torch on the CPU; 0: its own choice")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="the record, a JSON file")


def network(name: str, images: int, data_dir: str | None, device: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A network in eval mode with images and labels; without training the labels are what it says."""
    if name in NETWORKS:
        model = create(NETWORKS[name], classes=10).to(device).eval()
        torch.manual_seed(0)
        x = torch.rand(images, 3, 32, 32, device=device)
        with torch.no_grad():
            return model, x, torch.cat([model(part).argmax(1) for part in x.split(64)])
    about = read_about(Path(name))
    config: DataConfig = from_json(about["data"], DataConfig, "data")
    dataset = load_data(replace(config, data_dir=data_dir or config.data_dir)).test
    dataset = dataset.sample(min(images, len(dataset)), seed=0)
    x, y = dataset.batch(torch.arange(len(dataset)))
    return load(Path(name), device=device).eval(), x.to(device), y.to(device)


def installed(package: str, module: str) -> str | None:
    """Its version, or None where it is not installed, or not all that it needs."""
    try:
        imported(module)
        return version(package)
    except (PackageNotFoundError, ImportError):
        return None


def imported(name: str) -> Any:
    """A module of a rival. Some import torchvision, whose Python part asks for two operators of its compiled part.

    Where that was built for another torch and cannot be loaded, they are declared here, and nobody may call them.
    """
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for module in [m for m in sys.modules if m.partition(".")[0] in ("torchvision", name.partition(".")[0])]:
        del sys.modules[module]  # what the failure left half-made
    for operator in ("nms", "qnms") if not _LIBRARIES else ():
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)
    return importlib.import_module(name)


_LIBRARIES: list[Any] = []  # an operator lives as long as its library


def in_batches(attack: Attacker, batch: int) -> Attacker:
    """The attack on one batch after the other."""
    return lambda x, y: torch.cat([attack(*pair) for pair in zip(x.split(batch), y.split(batch), strict=True)])


def art_classifier(model: nn.Module, x: Tensor, device: str) -> Any:
    """The network as ART wants it."""
    return imported("art.estimators.classification").PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="gpu" if device.startswith("cuda") else "cpu",
    )


def art_attacker(attack: Any) -> Attacker:
    """An attack of ART, which speaks NumPy."""
    return lambda x, y: torch.from_numpy(attack.generate(x.cpu().numpy(), y.cpu().numpy())).to(x)


class Took(NamedTuple):
    """A contestant's runs: seconds, seconds of work of the processor's cores, and the images of the last."""

    seconds: list[float]
    cpu: list[float]
    x_adv: Tensor


def took_turns(teams: dict[str, Attacker], x: Tensor, y: Tensor, runs: int) -> dict[str, Took]:
    """What each contestant took. They take turns, so that a slow moment of the machine meets all of them."""
    found = {name: Took([], [], x) for name in teams}
    names = list(teams)
    for i in range(runs):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            _wait(x)
            began, worked = time.perf_counter(), time.process_time()
            x_adv = teams[name](x.clone(), y.clone()).detach()
            _wait(x)
            seconds, cpu, _ = found[name]
            seconds, cpu = [*seconds, time.perf_counter() - began], [*cpu, time.process_time() - worked]
            found[name] = Took(seconds, cpu, x_adv)
            sys.stderr.write(f"{name}: {seconds[-1]:.1f} s, {cpu[-1]:.1f} s of work\n")
    return found


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


@torch.no_grad()
def standing(model: nn.Module, threat: ThreatModel, x: Tensor, y: Tensor, x_adv: Tensor) -> Tensor:
    """Which images are still right, judged alike for all, in float32; out of bounds by more than 1e-4 is no success."""
    loose = type(threat)(threat.eps + 1e-4)
    prediction = torch.cat([model(part).argmax(1) for part in x_adv.split(64)])
    return (prediction == y) | ~loose.contains(x, x_adv.clamp(0, 1))


def multiplications(model: nn.Module, x: Tensor) -> int:
    """Multiplications of a forward pass of one image, in convolutions and linear layers."""
    count = 0

    def add(module: nn.Module, _: Any, out: Tensor) -> None:
        nonlocal count
        weight = module.weight
        assert isinstance(weight, Tensor)
        count += weight[0].numel() * out[0].numel()

    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    handles = [layer.register_forward_hook(add) for layer in layers]
    with torch.no_grad():
        model(x[:1])
    for handle in handles:
        handle.remove()
    return count


def rate(dtype: torch.dtype, device: str, side: int = 1024) -> float:
    """Multiplications a second, of work, of a matrix product: what the machine can do at best."""
    a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(12):
        _wait(a)
        clock = time.perf_counter if a.is_cuda else time.process_time
        began = clock()
        for _ in range(4):
            torch.mm(a, b)
        _wait(a)
        seconds.append((clock() - began) / 4)
    return side**3 / min(seconds)


def table(found: dict[str, Took], versions: dict[str, str | None], right: dict[str, Tensor], n: int) -> str:
    """Markdown. The ratios are of work where a processor does it, which another job slows less, and otherwise of time."""
    first = next(iter(found.values()))
    on_cpu = not first.x_adv.is_cuda
    lines = [
        "| contestant | version | seconds | images/s | seconds of work | ratio to the first | robust accuracy |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for name in [*found, *(name for name in versions if name not in found)]:
        if name not in found:
            lines.append(f"| {name} | not installed | | | | | |")
            continue
        took, accuracy = found[name], float(right[name].float().mean())
        s, cpu = median(took.seconds), median(took.cpu)
        ratio = cpu / median(first.cpu) if on_cpu else s / median(first.seconds)
        cells = f"{s:.1f} | {n / s:.2f} | {cpu:.1f} | {ratio:.2f} | {accuracy:.1%}"
        lines.append(f"| {name} | {versions.get(name) or ''} | {cells} |")
    return "\n".join(lines) + "\n"


def write(
    options: Namespace,
    found: dict[str, Took],
    versions: dict[str, str | None],
    right: dict[str, Tensor],
    x: Tensor,
    *,
    floor: float,
    **more: Any,
) -> None:
    """Write the record, and print the table and how far ours is from the floor, in seconds."""
    record = {
        # without what tells where files lie
        "settings": {
            **{name: v for name, v in vars(options).items() if not isinstance(v, Path) and name != "data_dir"},
            "network": Path(options.network.removesuffix("/best").removesuffix("/last")).name,
        },
        "provenance": {name: v for name, v in provenance().items() if name != "command"},
        "versions": versions,
        "seconds": {name: took.seconds for name, took in found.items()},
        "seconds of work": {name: took.cpu for name, took in found.items()},
        "robust accuracy": {name: float(t.float().mean()) for name, t in right.items()},
        "floor": floor,
        **more,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    ours = found["awnet, bfloat16"]
    took = median(ours.seconds if x.is_cuda else ours.cpu)
    sys.stdout.write(table(found, versions, right, len(x)))
    sys.stdout.write(f"floor {floor:.2f} s, ours {took / floor:.2f} times as long\n")
