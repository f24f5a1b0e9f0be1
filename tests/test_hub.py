"""The hub's layout: what is given away comes back bit for bit, its card says what was measured, and nothing in it can run."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from PIL import Image
from torch import nn

import awnet
from awnet import checkpoint
from awnet.cli import main
from awnet.data import DataConfig
from awnet.errors import Mistake
from awnet.evaluation.record import Record
from awnet.experiment import Experiment, Selection
from awnet.hub import from_pretrained, save_pretrained
from awnet.models import AWNet, AWNetConfig, ResNetConfig, RouterConfig, create
from awnet.threat_model import Linf
from models.randomised import randomise

NARROW = ResNetConfig(depth=10, width=4)
DYNAMIC = AWNetConfig(base=NARROW, router=RouterConfig(backbone=NARROW))
TINY = Experiment(name="tiny/awnet", data=DataConfig(name="digits"), model=DYNAMIC, threat=Linf(0.2))


def described(experiment: Experiment = TINY, **more: Any) -> dict[str, Any]:
    """What a run says of its checkpoint."""
    return {
        "classes": tuple("0123456789"),
        "shape": (1, 8, 8),
        "data": experiment.data,
        "threat": experiment.threat,
        "selection": experiment.selection.on,
        "parameters": 12345,
        "experiment": experiment,
        "given": {},
        "history": [],
        "epoch": 3,
        **more,
    }


def saved(folder: Path, experiment: Experiment = TINY, seed: int = 1, **more: Any) -> nn.Module:
    model = randomise(create(experiment.model, classes=10, channels=1), seed).eval()
    folder.mkdir(parents=True)
    checkpoint.save_model(folder, model, experiment.model, described(experiment, **more))
    return model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with a best and a last checkpoint and a record of each, made by the command line."""
    run = tmp_path_factory.mktemp("runs") / "awnet"
    saved(run / "best")
    saved(run / "last", seed=2, epoch=9)
    for name in ("best", "last"):
        out = ["--out", str(run / "records" / name), "--label", f"{name} one"]
        main(["evaluate", str(run / name), "--attacks", "fgsm", "--limit", "20", *out])
    return run


def card(folder: Path) -> Any:
    return huggingface_hub.ModelCard((folder / "README.md").read_text())


def test_there_and_back(run, tmp_path):
    folder = awnet.save_pretrained(run, tmp_path / "given")
    assert folder == tmp_path / "given"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert checkpoint.read_about(folder) == checkpoint.read_about(run / "best")
    model, again = awnet.load(run), awnet.from_pretrained(folder)
    assert isinstance(again, AWNet) and not again.training
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(again(x), model(x))
    save_pretrained(folder, tmp_path / "given on")
    assert (tmp_path / "given on/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert checkpoint.read_about(tmp_path / "given on") == checkpoint.read_about(folder)


def test_from_the_hub(run, tmp_path, monkeypatch):
    folder = save_pretrained(run, tmp_path / "given")
    asked = []

    def snapshot(repo_id, **more):
        asked.append((repo_id, more))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    again = from_pretrained("owner/name", revision="v1")
    assert torch.equal(again.state_dict()["head.weight"], awnet.load(run).state_dict()["head.weight"])
    ((name, more),) = asked
    assert name == "owner/name" and more["revision"] == "v1"
    assert all(pattern.endswith((".json", ".safetensors", ".md")) for pattern in more["allow_patterns"])
    from_pretrained("given")  # a folder is not asked for
    assert len(asked) == 1


def test_all_commands_read_it(run, tmp_path, capsys):
    folder = tmp_path / "given"
    main(["export", str(run), "--to", "hub", "--out", str(folder), "--license", "cc-by-4.0"])
    assert card(folder).data.license == "cc-by-4.0"
    main(["evaluate", str(folder), "--attacks", "fgsm", "--limit", "20"])
    (record,) = (Record.load(path.parent) for path in folder.rglob("record.json"))
    best = Record.load(run / "records/best")
    assert torch.equal(record.clean.prediction, best.clean.prediction)
    Image.new("L", (8, 8), 7).save(tmp_path / "image.png")
    capsys.readouterr()
    main(["predict", str(tmp_path / "image.png"), "--model", str(folder), "--json"])
    assert json.loads(capsys.readouterr().out)["class"] in "0123456789"


# --- the card ---


def test_the_card_says_what_the_records_say(run, tmp_path):
    found = card(save_pretrained(run, tmp_path / "given"))
    data, text = found.data, found.text
    assert (data.library_name, data.license, data.pipeline_tag) == ("awnet", "mit", "image-classification")
    assert {"awnet", "adversarial-robustness"} <= set(data.tags) and data.metrics == ["accuracy"]
    record = Record.load(run / "records/best")
    clean, robust = data.eval_results
    assert (clean.dataset_name, clean.dataset_split, clean.dataset_args) == ("digits", "test", {"examples": 20})
    assert clean.metric_name == "clean accuracy" and clean.metric_value == round(record.clean_accuracy.value, 4)
    assert robust.metric_name == f"robust accuracy, worst case of fgsm ({TINY.threat})"
    assert robust.metric_value == round(record.worst_accuracy.value, 4)
    assert "best one" in text and "last one" not in text, "the last checkpoint is another one"
    row = next(line for line in text.splitlines() if line.startswith("| best one"))
    assert f" {100 * record.clean_accuracy.value:.1f} " in row
    for said in (
        "digits, seed 0",
        str(TINY.threat),
        "epoch 3 of 100",
        "validation images",
        "from_pretrained",
        "(b, 1, 8, 8)",
    ):
        assert said in text, said
    for said in ("an image has not been attacked", "model.detect", "knows the router can evade", "For research"):
        assert said in text, said
    assert "Only weak attacks were run (fgsm)" in text and "None" not in text


def test_a_card_without_records(tmp_path):
    static = replace(TINY, model=NARROW, data=DataConfig(name="cifar10"), selection=Selection(on="paper"))
    init = {"path": "runs/a|b", "weights": "0" * 64, "afresh": []}
    saved(tmp_path / "run", static, classes=("cat|dog", "[x](y)", *"23456789"), init=init)
    found = card(save_pretrained(tmp_path / "run", tmp_path / "given", name="Mine"))
    assert found.data.eval_results is None and found.data.datasets == ["uoft-cs/cifar10"]
    for said in ("# Mine", "Nothing yet: there is no record", "**test images**", "logits = model(images)", "0" * 64):
        assert said in found.text, said
    assert r"cat\|dog" in found.text and r"runs/a\|b" in found.text
    for unsaid in ("p_clean", "router", "Knob"):
        assert unsaid not in found.text, unsaid


def test_records_of_another_checkpoint_are_refused(run, tmp_path):
    records = [Record.load(run / "records" / name) for name in ("best", "last")]
    with pytest.raises(Mistake, match=r"the record 'last one' is not of the checkpoint .*best"):
        save_pretrained(run, tmp_path / "given", records=records)
    assert not (tmp_path / "given").exists()
    twice = [records[0], replace(records[0], label="again")]
    found = card(save_pretrained(run, tmp_path / "given", records=twice))
    named = [result.metric_name.split(" accuracy")[0] for result in found.data.eval_results]
    assert named == ["best one: clean", "best one: robust", "again: clean", "again: robust"]


def test_a_users_network_is_given_away_too(tmp_path):
    def own() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    model = own()
    (tmp_path / "run").mkdir()
    checkpoint.save_model(tmp_path / "run", model, None, {"classes": tuple("0123456789"), "shape": (1, 8, 8)})
    folder = save_pretrained(tmp_path / "run", tmp_path / "given")
    again = from_pretrained(folder, into=own())
    assert torch.equal(again.state_dict()["1.weight"], model.state_dict()["1.weight"])
    assert "into=module" in card(folder).text and "Sequential" in card(folder).text


# --- mistakes ---


def test_a_folder_keeps_what_else_is_in_it(run, tmp_path):
    folder = tmp_path / "given"
    (folder / ".git").mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    save_pretrained(run, folder)
    assert (folder / "mine.txt").read_text() == "mine" and (folder / ".git").is_dir()
    before = (run / "last/model.safetensors").read_bytes()
    with pytest.raises(Mistake, match="holds a checkpoint of its own"):
        save_pretrained(run / "best", run / "last")
    assert (run / "last/model.safetensors").read_bytes() == before


def test_damaged_weights_are_not_given_away(tmp_path):
    saved(tmp_path / "run")
    file = tmp_path / "run/model.safetensors"
    damaged = bytearray(file.read_bytes())
    damaged[-9] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(Mistake, match=r"are not those that were saved with its model\.json"):
        save_pretrained(tmp_path / "run", tmp_path / "given")
    file.unlink()
    with pytest.raises(Mistake, match="cannot read"):
        save_pretrained(tmp_path / "run", tmp_path / "given")
    assert not (tmp_path / "given").exists()


class Evil:
    """Unpickling it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_nothing_is_ever_unpickled(file, run, tmp_path):
    folder = save_pretrained(run, tmp_path / "given")
    (folder / file).write_bytes(pickle.dumps(Evil(tmp_path / "mark")))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(tmp_path / "mark")))
    with pytest.raises(Mistake, match="cannot read"):
        from_pretrained(folder)
    assert not (tmp_path / "mark").exists()


def test_what_cannot_be_had(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text('{"model_type": "bert"}')
    for name, sentence in [
        ("nowhere", "there is no folder nowhere; expected a folder with config.json, or owner/name on the hub"),
        ("../a/b", "there is no folder"),
        ("owner/name", "owner/name is no folder here and cannot be had from the hub"),  # no test has the network
        ("empty", "no checkpoint in empty"),
        ("other", "has format None"),
    ]:
        with pytest.raises(Mistake, match=sentence) as said:
            from_pretrained(name)
        assert "\n" not in str(said.value)
    save_pretrained(run, "owner/name")
    with pytest.raises(Mistake, match="owner/name is a folder here, which has no revision 'v1'"):
        from_pretrained("owner/name", revision="v1")


def test_the_knob_is_turned_after_loading(run, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(run), "--to", "hub", "--out", str(tmp_path / "given"), "--p-max", "0.2"])
    assert stopped.value.code == 2 and "knob" in capsys.readouterr().err
    assert not (tmp_path / "given").exists()
