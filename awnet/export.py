"""Export: a network as one file that runs without this package, as ONNX (https://onnx.ai) or as a PyTorch program
(torch.export, a .pt2 file), for batches of any size.

The program takes "images" in [0, 1], shape (b, c, h, w); normalisation is inside. It answers with "logits", and for a
model that tells it with "p_clean", the probability in [0, 1] that the image has not been attacked. The file says the names
of the classes, the shape, and the threat model of the training. What was written is run and compared before it gets its
name.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from awnet.attacks.frozen import frozen_for_attack
from awnet.errors import Mistake, unknown
from awnet.folders import replace_file
from awnet.models.model import Detecting, device_of
from awnet.noise import Noise
from awnet.types import Images

TOLERANCE = 1e-4  # of the largest output, or of 1 where that is less: float32 in another order of summation
BATCHES = (1, 5)  # sizes of the batches on which an exported program is compared
NEEDED = ("onnx", "onnxscript", "onnxruntime")

Program = Callable[[Images], Sequence[Tensor]]


def export(model: nn.Module, path: Path, *, to: str, shape: Sequence[int], about: Mapping[str, Any]) -> float:
    """Write a model as a file, and check that the file computes what the model does.

    Args:
        model: from [0, 1] images to logits; left as it was.
        path: the file, ending in .onnx or .pt2.
        to: "onnx" or "torch".
        shape: of one image, (c, h, w).
        about: what the file shall say: strings, numbers and lists. ONNX keeps it in `metadata_props`, a value each; a .pt2
            file in its extra file "awnet.json".

    Returns:
        The largest difference between an output of the file and one of the model, on random images in batches of two sizes.

    Raises:
        Mistake: an unknown format or ending, a package that is missing, a model that cannot be exported, or a file that
            computes something else (beyond `TOLERANCE`); nothing is left behind then, and an older file is kept.
    """
    if to not in FORMATS:
        raise unknown("export format", to, FORMATS)
    ending, write, read = FORMATS[to]
    path = Path(path)
    if path.suffix != ending:
        raise Mistake(f"the file for {to} should end in {ending}, got {path.name!r}")
    device = device_of(model)

    def draw(size: int) -> Images:
        return Noise(0, torch.arange(size, device=device)).uniform(0, tuple(shape))

    with frozen_for_attack(model), torch.no_grad(), _quiet():
        outputs = Outputs(model).eval()
        try:
            content = write(outputs, draw(2), about)  # of one image, the size would become a constant
            difference = _largest_difference(outputs, read(content), draw)
        except Mistake:
            raise
        except Exception as error:  # the exporters raise nearly anything, with pages of advice
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
            raise Mistake(f"{type(model).__name__} cannot be exported to {to}: {reason}") from error
    replace_file(path, content)
    return difference


class Outputs(nn.Module):
    """A model as a program: with one output, or with two where it tells clean images from attacked ones."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.names = ("logits", "p_clean") if isinstance(model, Detecting) else ("logits",)

    def forward(self, images: Images) -> tuple[Tensor, ...]:
        return self.model.detect(images) if isinstance(self.model, Detecting) else (self.model(images),)


def _largest_difference(model: Outputs, program: Program, draw: Callable[[int], Images]) -> float:
    largest = 0.0
    for size in BATCHES:
        x = draw(size)
        for name, wanted, found in zip(model.names, model(x), program(x), strict=True):
            if wanted.shape != found.shape:
                raise Mistake(f"the exported {name} have shape {tuple(found.shape)}, expected {tuple(wanted.shape)}")
            off = (wanted.cpu() - found.cpu()).abs().max().item()
            allowed = TOLERANCE * max(1.0, wanted.abs().max().item())
            if not off <= allowed:  # also refuses NaN
                raise Mistake(
                    f"the exported {name} differ from the model's by {off:.2g}, and rounding explains {allowed:.2g}; "
                    "nothing was written"
                )
            largest = max(largest, off)
    return largest


def _program(model: Outputs, example: Images) -> torch.export.ExportedProgram:
    return torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def _write_torch(model: Outputs, example: Images, about: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.export.save(_program(model, example), file, extra_files={"awnet.json": json.dumps(dict(about), indent=1)})
    return file.getvalue()


def _read_torch(content: bytes) -> Program:
    return torch.export.load(io.BytesIO(content)).module()


def _write_onnx(model: Outputs, example: Images, about: Mapping[str, Any]) -> bytes:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise Mistake(f"ONNX needs {', '.join(missing)}: pip install awnet[export]")
    program = torch.onnx.export(
        _program(model, example), dynamo=True, verbose=False, input_names=["images"], output_names=model.names
    )
    assert program is not None
    proto = program.model_proto
    for key, value in about.items():
        proto.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    return proto.SerializeToString()


def _read_onnx(content: bytes) -> Program:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda x: [torch.from_numpy(output) for output in session.run(None, {"images": x.cpu().numpy()})]


FORMATS: dict[str, tuple[str, Callable[[Outputs, Images, Mapping[str, Any]], bytes], Callable[[bytes], Program]]] = {
    "onnx": (".onnx", _write_onnx, _read_onnx),
    "torch": (".pt2", _write_torch, _read_torch),
}


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of torch's own deprecations, and that torchvision is missing, which nothing here needs."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
