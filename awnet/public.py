"""Public checkpoints in the formats of their authors, by names and shapes: what a layer is called there, and here.

TRADES (Zhang et al., 2019), HAT (Rade and Moosavi-Dezfooli, 2022), MTARD (Zhao et al., 2022) with its teachers, Gowal et al.
(2020), what RobustBench (Croce et al., 2021, https://arxiv.org/abs/2010.09670) holds of these networks, and, to be fine-tuned,
Swin transformers on ImageNet (Liu et al., 2021, and timm). Names were compared with the published code. A file is read as
safetensors, or by `torch.load(weights_only=True)`: tensors and plain containers, and nothing in it is ever run.

Names and shapes say which numbers belong where, not what is computed with them: two codes that name alike and differ
otherwise cannot be told apart. RobustBench has a pre-activation ResNet (Wong et al., 2020) whose shortcut takes x where ours
takes relu(bn(x)); it lacks the last batch norm too, so that one is refused. Measure the clean accuracy of what was read.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from awnet.checkpoint import read_tensors
from awnet.errors import Mistake
from awnet.models.mobilenet_v2 import MobileNetV2Config
from awnet.models.model import Architecture, create, outline
from awnet.models.preact_resnet import PreActResNetConfig
from awnet.models.resnet import BLOCKS, ResNetConfig
from awnet.models.resnet_cifar import ResNetCifarConfig
from awnet.models.swin import SwinConfig
from awnet.models.swin_geometry import resampled
from awnet.models.swish_wide_resnet import SwishWideResNetConfig
from awnet.models.wide_resnet import WideResNetConfig

Rule = tuple[str, str | Callable[[re.Match[str]], str]]  # a pattern of their names, and our name of the same
Names = Collection[str]  # all of theirs

# What wraps a network: DataParallel, a distiller's student, Sequential(network) and Sequential(normalisation, network).
WRAPPERS = {"module", "model", "net", "network", "student", "backbone", "_orig_mod", "0", "1"}
NORMALISED = "1"
MEAN, STD = ("mean", "mu"), ("std", "sigma")
UNUSED = (
    r"sub_block1\.",
    r"n_averaged$",
    r".+\.(relative_position_index|attn_mask)$",
)  # of TRADES, through which no image passes; a counter of averaged weights; and what follows from Swin's windows
HEAD = "head.weight"  # of every network below
DEEPEST = 8  # containers around a state dict


class Adopted(NamedTuple):
    """A network with the weights of a public checkpoint.

    Attributes:
        model: in eval mode.
        architecture: what it was made from, with the normalisation that the file holds.
        classes: how many it tells apart.
        unused: names in the file that stand for no weights which an image passes through.
        resampled: our names of the weights that were made to fit another patch or window (awnet/models/swin_geometry.py).
    """

    model: nn.Module
    architecture: Architecture
    classes: int
    unused: tuple[str, ...]
    resampled: tuple[str, ...]


def read_public(path: str | Path, key: str = "") -> dict[str, Tensor]:
    """The weights in a file, under the names that they have there.

    Args:
        path: a safetensors file, or what torch.save has written.
        key: which of several sets of weights is meant, such as "model_state_dict"; "" where there is one.

    Raises:
        Mistake: no file, a damaged one, one that would have to be unpickled, or none or several sets of weights in it.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return read_tensors(path)
    if not path.is_file():
        raise Mistake(f"cannot read the weights in {path}: there is no such file")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise Mistake(
            f"{path} holds more than tensors, or is no PyTorch file, and to unpickle it would run whatever is in it; where you "
            'trust it, save its weights alone: torch.save({"state_dict": model.state_dict()}, ...), or as safetensors'
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise Mistake(f"cannot read the weights in {path}: {error}; is the file complete?") from None
    found = dict(_sets(loaded))
    if key:
        if key not in found:
            raise Mistake(f"{path} has no weights under {key!r}; it has {_listed(found)}")
        return found[key]
    if len(found) != 1:
        raise Mistake(
            f"{path} holds several sets of weights, {_listed(found)}: say which is meant (--key)"
            if found
            else f"{path} holds no weights: expected a state dict, by itself or under a key"
        )
    return next(iter(found.values()))


def _sets(value: Any, key: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every state dict in nested containers, by where it is; an optimizer's memories have numbers for names."""
    if not isinstance(value, Mapping) or key.count(".") > DEEPEST:
        return
    named = {name: item for name, item in value.items() if isinstance(name, str)}
    tensors = {name: item for name, item in named.items() if isinstance(item, Tensor) and _plain(item)}
    if any(name.endswith(".weight") for name in tensors):
        yield key, tensors
        return
    for name, item in named.items():
        yield from _sets(item, f"{key}.{name}".lstrip("."))


def _plain(t: Tensor) -> bool:
    return t.layout is torch.strided and not t.is_quantized


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, sorted(names))) or "none"


def adopt(
    tensors: Mapping[str, Tensor], architecture: Architecture, *, channels: int = 3, source: str = "the file"
) -> Adopted:
    """The network that public weights belong to.

    Args:
        tensors: the weights under their authors' names, or already under ours.
        architecture: which network. Its normalisation gives way to that in the file, where there is one; a Swin's patch and
            window may be others than those in the file.
        channels: of the images.
        source: what messages call the file.

    Raises:
        Mistake: a network whose public names are not known, one that normalises in a way that nobody has said, or names
            and shapes that do not fit.
    """
    kind = _known(architecture)
    tensors, architecture = _unwrapped(dict(tensors), architecture, source)
    rules = RULES[kind](architecture, tensors.keys())
    unused = tuple(name for name in tensors if any(re.match(pattern, name) for pattern in UNUSED))
    theirs: dict[str, str] = {}  # their name by ours
    for name in [name for name in tensors if name not in unused]:
        ours = _renamed(name, rules)
        if ours in theirs:
            raise Mistake(f"{source} names the same layer twice: {theirs[ours]} and {name}")
        theirs[ours] = name
    if HEAD not in theirs or tensors[theirs[HEAD]].ndim != 2:
        raise Mistake(f"{source} holds no linear layer of the classes; {_kind(architecture)} expects one")
    classes = len(tensors[theirs[HEAD]])
    own = outline(architecture, classes=classes, channels=channels)
    fitted = resampled({ours: tensors[name] for ours, name in theirs.items()}, own) if kind is SwinConfig else {}
    tensors |= {theirs[name]: t for name, t in fitted.items()}
    _check(own, theirs, tensors, architecture, source)
    weights = {
        name: tensors[theirs[name]].to(t.dtype) if name in theirs else torch.zeros(t.shape, dtype=t.dtype)
        for name, t in own.items()
    }
    model = create(architecture, classes=classes, channels=channels)
    model.load_state_dict(weights)
    return Adopted(model.eval(), architecture, classes, unused, tuple(sorted(fitted)))


def _unwrapped(
    tensors: dict[str, Tensor], architecture: Architecture, source: str
) -> tuple[dict[str, Tensor], Architecture]:
    """The tensors without the names of what wraps the network, and the architecture with the file's normalisation."""
    found: dict[str, tuple[float, ...]] = {}
    for name in list(tensors):
        last = name.rsplit(".", 1)[-1]
        if last in MEAN + STD:
            # the shortest decimals that are these numbers in float32
            found["mean" if last in MEAN else "std"] = tuple(
                float(f"{v:.7g}") for v in tensors.pop(name).flatten().tolist()
            )
    if found:
        architecture = replace(architecture, **found)
    while tensors:
        names = [name for name in tensors if name != "n_averaged"]
        wrapper = names[0].split(".")[0] if names else ""
        if wrapper not in WRAPPERS or any(not name.startswith(f"{wrapper}.") for name in names):
            break
        if wrapper == NORMALISED and not architecture.mean:
            raise Mistake(
                f"the network in {source} is the second of two layers, and the first will have normalised with numbers that "
                "the file does not hold: give them (--mean 0.5 0.5 0.5 --std 0.25 0.25 0.25)"
            )
        tensors = {name.removeprefix(f"{wrapper}."): t for name, t in tensors.items()}
    return tensors, architecture


def _known(architecture: Architecture) -> type[Architecture]:
    """The kind of a network whose layers' names in the published code are known."""
    kind = type(architecture)
    if kind not in RULES:
        known = ", ".join(sorted(kind.__name__.removesuffix("Config") for kind in RULES))
        raise Mistake(f"no public names are known for {_kind(architecture)}; known are those of {known}")
    return kind


def _renamed(name: str, rules: list[Rule]) -> str:
    for pattern, ours in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(ours) if isinstance(ours, str) else ours(match)
    return name


def _kind(architecture: Architecture) -> str:
    return type(architecture).__name__.removesuffix("Config")


def _check(
    own: Mapping[str, Tensor],
    theirs: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    architecture: Architecture,
    source: str,
) -> None:
    what = f"the weights in {source} are not those of this {_kind(architecture)}"
    for name in [name for name in own if name in theirs]:
        found, expected = tensors[theirs[name]], own[name]
        if found.shape != expected.shape:
            raise Mistake(f"{what}: {theirs[name]} has shape {_shape(found)}, expected {_shape(expected)}")
        if found.is_floating_point() != expected.is_floating_point():
            raise Mistake(f"{what}: {theirs[name]} holds {found.dtype}, expected {expected.dtype}")
        if not found.isfinite().all():
            raise Mistake(f"the weights in {source} are damaged: {theirs[name]} holds numbers that are not finite")
    # old versions of PyTorch did not count batches, and nothing is computed from the count
    missing = sorted(name for name in own.keys() - theirs.keys() if not name.endswith("num_batches_tracked"))
    unexpected = sorted(theirs[name] for name in theirs.keys() - own.keys())
    said = [f"{len(missing)} are missing (such as {missing[0]} as it is called here)"] if missing else []
    said += [f"{len(unexpected)} have no place (such as {unexpected[0]})"] if unexpected else []
    if said:
        raise Mistake(f"{what}: {', '.join(said)}")


def _shape(t: Tensor) -> str:
    return " x ".join(map(str, t.shape)) or "of one number"


def _wide_resnet(architecture: WideResNetConfig, names: Names) -> list[Rule]:
    """TRADES, MTARD, HAT and RobustBench."""
    return [
        (r"conv1\.(.+)", r"stem.\1"),
        (r"block(\d)\.layer\.(\d+)\.convShortcut\.(.+)", lambda m: f"groups.{int(m[1]) - 1}.{m[2]}.shortcut.{m[3]}"),
        (r"block(\d)\.layer\.(\d+)\.(.+)", lambda m: f"groups.{int(m[1]) - 1}.{m[2]}.{m[3]}"),
        (r"bn1\.(.+)", r"bn.\1"),
        (r"fc\.(.+)", r"head.\1"),
    ]


def _swish_wide_resnet(architecture: SwishWideResNetConfig, names: Names) -> list[Rule]:
    """Gowal et al., and after them HAT, MTARD and RobustBench."""
    layers = {"batchnorm_0": "bn1", "conv_0": "conv1", "batchnorm_1": "bn2", "conv_1": "conv2", "shortcut": "shortcut"}
    return [
        (r"init_conv\.(.+)", r"stem.\1"),
        (
            rf"layer\.(\d)\.block\.(\d+)\.({'|'.join(layers)})\.(.+)",
            lambda m: f"groups.{m[1]}.{m[2]}.{layers[m[3]]}.{m[4]}",
        ),
        (r"batchnorm\.(.+)", r"bn.\1"),
        (r"logits\.(.+)", r"head.\1"),
    ]


def _resnet(architecture: ResNetConfig, names: Names) -> list[Rule]:
    """TRADES, MTARD, HAT and RobustBench."""
    return [
        (r"(conv|bn)1\.(.+)", r"trunk.\1.\2"),
        (r"layer(\d)\.(\d+)\.downsample\.(.+)", lambda m: f"trunk.stages.{int(m[1]) - 1}.{m[2]}.shortcut.{m[3]}"),
        (r"layer(\d)\.(\d+)\.(.+)", lambda m: f"trunk.stages.{int(m[1]) - 1}.{m[2]}.{m[3]}"),
        (r"(?:linear|fc)\.(.+)", r"head.\1"),
    ]


def _resnet_cifar(architecture: ResNetCifarConfig, names: Names) -> list[Rule]:
    """The ResNet-56 that teaches MTARD."""
    place = _in_one_row([(architecture.depth - 2) // 6] * 3)
    return [
        (r"(conv|bn)1\.(.+)", r"\1.\2"),
        (r"layer(\d)\.(\d+)\.downsample\.(.+)", lambda m: f"{place(m)}.shortcut.{m[3]}"),
        (r"layer(\d)\.(\d+)\.(.+)", lambda m: f"{place(m)}.{m[3]}"),
        (r"(?:linear|fc)\.(.+)", r"head.\1"),
    ]


def _preact_resnet(architecture: PreActResNetConfig, names: Names) -> list[Rule]:
    """HAT and RobustBench."""
    place = _in_one_row(BLOCKS[architecture.depth])
    return [
        (r"conv1\.(.+)", r"stem.\1"),
        (r"layer(\d)\.(\d+)\.shortcut\.0\.(.+)", lambda m: f"{place(m)}.shortcut.{m[3]}"),
        (r"layer(\d)\.(\d+)\.(.+)", lambda m: f"{place(m)}.{m[3]}"),
        (r"(?:linear|fc)\.(.+)", r"head.\1"),
    ]


def _mobilenet_v2(architecture: MobileNetV2Config, names: Names) -> list[Rule]:
    """MTARD."""
    return [
        (r"conv1\.(.+)", r"stem.\1"),
        (r"conv2\.(.+)", r"last.\1"),
        (r"layers\.(.+)", r"blocks.\1"),
        (r"linear\.(.+)", r"head.\1"),
    ]


def _swin(architecture: SwinConfig, names: Names) -> list[Rule]:
    """Liu et al. and timm. Queries, keys and values, the biases, and the four tokens that are merged lie in our order."""
    if "patches.weight" in names:  # they are ours, whose `norm` is another than theirs
        return []
    merges_last = "layers.0.downsample.norm.weight" in names  # in a stage; newer versions of timm merge first, as we do
    layers = {"norm1": "norm1", "norm2": "norm2", "attn.qkv": "attention.qkv", "attn.proj": "attention.out"}
    layers |= {"mlp.fc1": "mlp.0", "mlp.fc2": "mlp.2"}
    merge = {"norm": "norm", "reduction": "reduce"}

    def block(match: re.Match[str]) -> str:
        stage, block = int(match[1]), int(match[2])
        return f"stages.{stage}.{block + bool(stage)}"  # after the merge

    return [
        (r"patch_embed\.proj\.(.+)", r"patches.\1"),
        (r"patch_embed\.norm\.(.+)", r"norm.\1"),
        (r"layers\.(\d)\.blocks\.(\d+)\.attn\.relative_position_bias_table", lambda m: f"{block(m)}.attention.bias"),
        (
            rf"layers\.(\d)\.blocks\.(\d+)\.({'|'.join(map(re.escape, layers))})\.(.+)",
            lambda m: f"{block(m)}.{layers[m[3]]}.{m[4]}",
        ),
        (
            r"layers\.(\d)\.downsample\.(norm|reduction)\.(.+)",
            lambda m: f"stages.{int(m[1]) + merges_last}.0.{merge[m[2]]}.{m[3]}",
        ),
        (r"norm\.(.+)", r"last_norm.\1"),
        (r"head\.fc\.(.+)", r"head.\1"),
    ]


def _in_one_row(counts: list[int] | tuple[int, ...]) -> Callable[[re.Match[str]], str]:
    """Block j of stage i, counted from 1, as one of a single row of blocks."""
    before = [0, *accumulate(counts)]

    def place(match: re.Match[str]) -> str:
        stage, block = int(match[1]) - 1, int(match[2])
        if stage >= len(counts) or block >= counts[stage]:
            return match[0]  # which is then a name that has no place
        return f"blocks.{before[stage] + block}"

    return place


RULES: dict[type[Architecture], Callable[[Any, Names], list[Rule]]] = {
    MobileNetV2Config: _mobilenet_v2,
    PreActResNetConfig: _preact_resnet,
    ResNetConfig: _resnet,
    ResNetCifarConfig: _resnet_cifar,
    SwinConfig: _swin,
    SwishWideResNetConfig: _swish_wide_resnet,
    WideResNetConfig: _wide_resnet,
}
