"""Export: the file alone computes what the model does, says what its outputs mean, and is whole or not there."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from awnet import checkpoint
from awnet import export as module
from awnet.cli import main
from awnet.errors import Mistake
from awnet.export import export
from awnet.models import AWNetConfig, Knob, ResNetConfig, RouterConfig, create
from awnet.models.model import Architecture
from models.randomised import unsettle

NARROW = ResNetConfig(depth=10, width=4)
STATIC = ResNetConfig(depth=10, width=4, mean=(0.5,), std=(0.2,))
DYNAMIC = AWNetConfig(base=NARROW, router=RouterConfig(backbone=NARROW), mean=(0.5,), std=(0.2,), knob=Knob(p_max=0.7))
ABOUT = {"classes": ["cat", "dog", "é"], "shape": [1, 8, 8], "eps": 0.1, "norm": "Linf"}
ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}


class Told(nn.Module):
    """The smallest model that tells clean images from attacked ones."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))

    def detect(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x), x.flatten(1).mean(1).sigmoid()


def network(architecture: Architecture) -> nn.Module:
    """As if trained, in eval mode."""
    return unsettle(create(architecture, classes=3, channels=1), torch.rand(8, 1, 8, 8)).eval()


def opened(path: Path) -> tuple[Callable[[Tensor], Sequence[Tensor]], dict[str, Any]]:
    """The program of a file, and what the file says, by nothing of this package."""
    if path.suffix == ".pt2":
        said = {"awnet.json": ""}
        program = torch.export.load(path, extra_files=said)
        return program.module(), json.loads(said["awnet.json"])
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["images"]
    assert [o.name for o in session.get_outputs()] in (["logits"], ["logits", "p_clean"])
    said = session.get_modelmeta().custom_metadata_map
    said = {key: value if key == "norm" else json.loads(value) for key, value in said.items()}
    return lambda x: [torch.from_numpy(y) for y in session.run(None, {"images": x.numpy()})], said


def needs(to: str) -> None:
    if to == "onnx":
        for name in module.NEEDED:
            pytest.importorskip(name)


@pytest.mark.parametrize(
    ("to", "model"),
    [
        ("torch", STATIC),
        ("onnx", STATIC),
        ("onnx", Told()),
        pytest.param("onnx", DYNAMIC, marks=pytest.mark.slow),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@torch.no_grad()
def test_the_file_computes_what_the_model_does(to, model, tmp_path):
    needs(to)
    model = network(model) if isinstance(model, Architecture) else model.train()
    modes = [m.training for m in model.modules()]
    path = tmp_path / f"model{ENDINGS[to]}"
    drawn = torch.random.get_rng_state()
    difference = export(model, path, to=to, shape=(1, 8, 8), about=ABOUT)
    assert 0 <= difference < 1e-4 and [p.name for p in tmp_path.iterdir()] == [path.name]
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert [m.training for m in model.modules()] == modes and all(p.requires_grad for p in model.parameters())

    program, said = opened(path)
    assert said == ABOUT
    model.eval()
    for size in (1, 2, 7):
        x = torch.rand(size, 1, 8, 8)
        wanted = (model(x),) if isinstance(model, type(network(STATIC))) else model.detect(x)
        found = program(x)
        assert len(found) == len(wanted)
        for a, b in zip(wanted, found, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4)


# --- what is not right is not left behind ---


class Fickle(nn.Module):
    """A model that no export can follow."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] * (1 if x.sum().item() > 3 else 2)


@pytest.mark.parametrize("off", [0.1, float("nan"), "shape"])
@pytest.mark.parametrize("older", [False, True])
def test_a_file_that_computes_something_else_is_not_written(off, older, tmp_path, monkeypatch):
    path = tmp_path / "model.pt2"
    if older:
        path.write_text("older")
    ending, write, read = module.FORMATS["torch"]

    def wrong(content: bytes):
        program = read(content)
        return lambda x: [y[:1] if off == "shape" else y + off for y in program(x)]

    monkeypatch.setitem(module.FORMATS, "torch", (ending, write, wrong))
    with pytest.raises(Mistake, match="have shape" if off == "shape" else "differ from the model's by") as said:
        export(Told(), path, to="torch", shape=(1, 8, 8), about=ABOUT)
    assert "\n" not in str(said.value)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["older"] * older


def test_one_output_of_two_that_is_wrong_is_noticed(tmp_path, monkeypatch):
    ending, write, read = module.FORMATS["torch"]

    def wrong(content: bytes):
        program = read(content)
        return lambda x: [program(x)[0], program(x)[1] + 0.1]

    monkeypatch.setitem(module.FORMATS, "torch", (ending, write, wrong))
    with pytest.raises(Mistake, match="p_clean differ"):
        export(Told(), tmp_path / "model.pt2", to="torch", shape=(1, 8, 8), about=ABOUT)


@pytest.mark.parametrize(
    ("to", "name", "model", "sentence"),
    [
        ("onnx", "model.pt2", Told(), r"should end in \.onnx, got 'model\.pt2'"),
        ("torch", "model", Told(), r"should end in \.pt2"),
        ("onyx", "model.onnx", Told(), "did you mean onnx"),
        ("torch", "model.pt2", Fickle(), "Fickle cannot be exported to torch"),
        ("torch", "no/model.pt2/model.pt2", Told(), "cannot write"),
    ],
)
def test_mistakes(to, name, model, sentence, tmp_path):
    (tmp_path / "no").mkdir()
    (tmp_path / "no/model.pt2").write_text("in the way")
    with pytest.raises(Mistake, match=sentence) as said:
        export(model, tmp_path / name, to=to, shape=(1, 8, 8), about=ABOUT)
    assert "\n" not in str(said.value)
    assert [p.name for p in tmp_path.rglob("*")] == ["no", "model.pt2"]


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(Mistake, match=r"ONNX needs onnxscript: pip install awnet\[export\]"):
        export(Told(), tmp_path / "model.onnx", to="onnx", shape=(1, 8, 8), about=ABOUT)
    assert not list(tmp_path.iterdir())


@torch.no_grad()
def test_an_awnet_from_the_command_line_with_its_knob_turned(tmp_path, capsys):
    folder = tmp_path / "run" / "best"
    folder.mkdir(parents=True)
    model = network(DYNAMIC)
    about = {"classes": ["cat", "dog", "é"], "shape": (1, 8, 8), "threat": {"kind": "Linf", "eps": 0.1}}
    checkpoint.save_model(folder, model, DYNAMIC, about)
    out = tmp_path / "model.pt2"
    main(["export", str(tmp_path / "run"), "--to", "torch", "--out", str(out), "--p-max", "0"])
    assert "differ from the model's by at most" in capsys.readouterr().out
    program, said = opened(out)
    for size in (1, 5):
        x = torch.rand(size, 1, 8, 8)
        found = program(x)
        for a, b in zip(found, model.turned(Knob(p_max=0.0)).detect(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert (found[0] - model(x)).abs().max() > 1e-2
    assert said["classes"] == ["cat", "dog", "é"] and said["shape"] == [1, 8, 8]
    assert (said["norm"], said["eps"], said["knob"]["p_max"]) == ("Linf", 0.1, 0)
    assert said["weights"] == checkpoint.read_about(folder)["weights"]
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(tmp_path / "run"), "--to", "onnx", "--out", str(out)])
    assert stopped.value.code == 2 and ".onnx" in capsys.readouterr().err
