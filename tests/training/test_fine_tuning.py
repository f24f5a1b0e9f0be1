"""Fine-tuning: what knows the classes starts afresh, the rest is what the checkpoint was, and a resume needs it no more."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from awnet import checkpoint, experiment
from awnet.cli import main
from awnet.data import DataConfig
from awnet.errors import Mistake
from awnet.evaluation.record import Record
from awnet.experiment import Experiment, Selection, run
from awnet.models import MODELS, Architecture, AWNetConfig, ResNetConfig, RouterConfig, StaticMixtureConfig, create
from awnet.training import TrainingConfig
from awnet.training.fine_tuning import start_from
from awnet.training.optimizer import Constant, SGDConfig
from models.randomised import randomise

NARROW = ResNetConfig(depth=10, width=4)
DYNAMIC = AWNetConfig(base=NARROW, router=RouterConfig(backbone=NARROW))
HEADS = {
    "resnet": (NARROW, ["head.bias", "head.weight"]),
    "awnet": (DYNAMIC, ["head.bias", "head.weight"]),
    "mixture": (
        StaticMixtureConfig(clean=NARROW, robust=NARROW),
        [f"{part}.head.{name}" for part in ("clean", "robust") for name in ("bias", "weight")],
    ),
}


def saved(folder: Path, architecture: Architecture | None, model: nn.Module, classes: int, channels: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    about = {"classes": [f"class {i}" for i in range(classes)], "shape": (channels, 8, 8)}
    checkpoint.save_model(folder, model, architecture, about)
    return folder


@pytest.fixture
def old(tmp_path: Path):
    """Makes a checkpoint whose every number is drawn."""

    def make(architecture: Architecture, classes: int = 3, channels: int = 1) -> Path:
        model = randomise(create(architecture, classes=classes, channels=channels))
        return saved(tmp_path / "old", architecture, model, classes, channels)

    return make


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("classes", [2, 7])
def test_only_what_knows_the_classes_starts_afresh(name, classes, old):
    """Two classes are as many as the rows of AW-Net's type head, which is kept all the same."""
    architecture, heads = HEADS[name]
    folder = old(architecture, classes=2 if classes == 7 else 3)
    model = create(architecture, classes=classes, channels=1, seed=5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    said = start_from(str(folder), model, architecture, channels=1)
    assert said == {"path": str(folder), "weights": checkpoint.read_about(folder)["weights"], "afresh": heads}
    kept = checkpoint.load(folder).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] if name in heads else kept[name]), name
    assert model.eval()(torch.rand(2, 1, 8, 8)).shape == (2, classes)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_network_can_be_fine_tuned(name, old):
    architecture = MODELS[name].narrow()
    folder = old(architecture, channels=3)
    model = create(architecture, classes=4, channels=3)
    afresh = start_from(str(folder), model, architecture, channels=3)["afresh"]
    heads = {"rdi-resnet38": 7, "separate-net": 2, "separate-net-l": 2}.get(name, 1)  # weight and bias each
    assert len(afresh) == 2 * heads and all(4 in model.state_dict()[name].shape for name in afresh)


@pytest.mark.parametrize("name", HEADS)
def test_as_many_classes_keep_everything(name, old):
    architecture = HEADS[name][0]
    folder = old(architecture)
    model = create(architecture, classes=3, channels=1, seed=5)
    assert start_from(str(folder), model, architecture, channels=1)["afresh"] == []
    kept = checkpoint.load(folder).state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def test_a_module_from_python_takes_all_weights_or_none(tmp_path):
    def own(classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))

    before = own(3)
    folder = saved(tmp_path / "own", None, before, classes=3)
    model = own(3).train()
    start_from(str(folder), model, None, channels=1)
    assert torch.equal(model[1].weight, before[1].weight) and model.training
    with pytest.raises(Mistake, match="those of another network: 2 of another shape"):
        start_from(str(folder), own(4), None, channels=1)


def test_what_does_not_fit_is_a_mistake(old, tmp_path):
    folder = old(NARROW, channels=3)

    def start(path: Path, architecture: Architecture, channels: int) -> None:
        start_from(str(path), create(architecture, classes=4, channels=channels), architecture, channels=channels)

    with pytest.raises(Mistake, match=r"takes images of 3 channels, the data has 1; --data.channels grey or rgb"):
        start(folder, NARROW, 1)
    for other in (replace(NARROW, width=6), replace(NARROW, depth=18), DYNAMIC):
        with pytest.raises(Mistake, match="are those of another network") as said:
            start(folder, other, 3)
        assert "\n" not in str(said.value)
    with pytest.raises(
        Mistake, match=r"of another network: its mean is \[\], and here \[0.3, 0.3, 0.3\]"
    ):  # no weight shows it
        start(folder, replace(NARROW, mean=(0.3,) * 3, std=(0.35,) * 3), 3)
    with pytest.raises(Mistake, match="no checkpoint in"):
        start(tmp_path / "nowhere", NARROW, 3)


# --- a run ---


TINY = Experiment(
    name="tiny",
    data=DataConfig(name="digits", validation=0.97),
    model=NARROW,
    # so slow that the weights can be recognised
    training=TrainingConfig(epochs=2, batch_size=32, optimizer=SGDConfig(lr=1e-9), schedule=Constant()),
    selection=Selection(gamma_adv=0, limit=20),
)


def test_a_run_starts_there_says_so_and_resumes_without(old, tmp_path, monkeypatch):
    folder = old(DYNAMIC)
    start = replace(TINY, model=NARROW, init=str(folder))
    with pytest.raises(Mistake, match="another network"):
        run(start, tmp_path / "run", quiet=True)
    shutil.rmtree(folder)
    folder = old(NARROW)
    began = checkpoint.load(folder).state_dict()
    validate = experiment._validate
    calls = []

    def once(*args):
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError
        return validate(*args)

    monkeypatch.setattr(experiment, "_validate", once)
    with pytest.raises(ZeroDivisionError):
        run(start, tmp_path / "run", quiet=True)
    shutil.rmtree(folder)
    assert json.loads((tmp_path / "run/experiment.json").read_text())["experiment"]["init"] == str(folder)
    run(start, tmp_path / "run", quiet=True, resume=True)
    about = checkpoint.read_about(tmp_path / "run" / "last")
    assert about["epoch"] == 2 and len(calls) == 3
    assert about["init"]["path"] == str(folder) and about["init"]["afresh"] == ["head.bias", "head.weight"]
    assert len(about["init"]["weights"]) == 64
    now = checkpoint.load(tmp_path / "run" / "last").state_dict()
    for name in ("trunk.conv.weight", "trunk.stages.3.0.bn2.weight"):
        torch.testing.assert_close(now[name], began[name], rtol=0, atol=1e-6)
    assert now["head.weight"].shape == (10, 32)


def test_a_run_that_was_saved_before_there_was_fine_tuning_goes_on(tmp_path):
    out = run(TINY, tmp_path / "run", quiet=True)
    text = json.loads((out / "experiment.json").read_text())
    del text["experiment"]["init"]
    (out / "experiment.json").write_text(json.dumps(text))
    run(TINY, out, quiet=True, resume=True)
    assert experiment.complete(out, TINY)
    with pytest.raises(Mistake, match="holds another experiment"):
        run(replace(TINY, init="somewhere"), out, quiet=True, resume=True)


def test_the_command_line_takes_the_checkpoints_architecture(old, tmp_path, capsys):
    folder = old(DYNAMIC)  # the recipe's network is another
    few = ["--training.epochs", "1", "--data.validation", "0.97", "--selection.limit", "20"]
    command = ["train", "digits/awnet-hard", *few, "--objective.over.steps", "1", "--model.knob.p-max", "0.5"]
    command += ["--init", str(folder), "--out", str(tmp_path / "run")]
    main(command)
    about = checkpoint.read_about(tmp_path / "run")
    assert checkpoint.read_architecture(tmp_path / "run") == replace(DYNAMIC, knob=replace(DYNAMIC.knob, p_max=0.5))
    assert about["init"]["path"] == about["experiment"]["init"] == str(folder)

    main(["evaluate", str(tmp_path / "run"), "--attacks", "fgsm", "--limit", "10", "--out", str(tmp_path / "record")])
    assert Record.load(tmp_path / "record").model["init"] == about["init"]

    weights = (tmp_path / "run/last/model.safetensors").read_bytes()
    shutil.rmtree(folder)
    main([*command, "--resume"])
    assert (tmp_path / "run/last/model.safetensors").read_bytes() == weights
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main([*command[:-1], str(tmp_path / "other")])
    assert stopped.value.code == 2 and "no checkpoint in" in capsys.readouterr().err
