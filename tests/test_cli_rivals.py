"""The commands that make checkpoints of other checkpoints: MixedNUTS of two, and another balance of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import awnet
from awnet.attacks import ATTACKS, Engine
from awnet.checkpoint import read_about, read_architecture, save_model
from awnet.cli import main
from awnet.config import to_json
from awnet.data import DataConfig, load
from awnet.evaluation.mixed_nuts import Search, logits_of, search
from awnet.models import MixedNUTS, OATConfig, ResNetConfig, create
from awnet.threat_model import Linf
from models.randomised import randomise

NARROW = ResNetConfig(depth=10, width=4)
THREAT = Linf(0.02)


def saved(folder: Path, architecture, *, seed: int = 1) -> Path:
    """As if trained: random weights, which are right now and then."""
    folder.mkdir()
    model = randomise(create(architecture, classes=10, channels=1), seed).eval()
    about = {"classes": [str(i) for i in range(10)], "shape": [1, 8, 8], "data": DataConfig(), "threat": THREAT}
    about |= {"selection": "", "history": [], "experiment": None, "given": {}, "epoch": 0, "provenance": {}}
    save_model(folder, model, architecture, to_json(about))
    return folder


def refused(typed: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as end:
        main(typed)
    assert end.value.code == 2
    return capsys.readouterr().err


def test_nuts_writes_what_the_search_finds(tmp_path, capsys):
    clean, robust, out = (
        saved(tmp_path / "clean", NARROW),
        saved(tmp_path / "robust", NARROW, seed=2),
        tmp_path / "nuts",
    )
    command = ["nuts", str(clean), str(robust), "--keep", "0.5", "--attack", "fgsm", "--limit", "60", "--out"]
    main([*command, str(out)])
    model, weak = awnet.load(out), awnet.load(robust)
    assert isinstance(model, MixedNUTS)
    images = load(DataConfig()).validation.sample(60, seed=0)
    x, y = images.batch(torch.arange(60))
    x_adv = Engine().run(ATTACKS["fgsm"](THREAT), weak, images).x_adv
    found = search(logits_of(weak, x), logits_of(weak, x_adv), y, Search(keep=0.5))
    assert (model.alpha, model.transform) == (found.alpha, found.transform)
    assert torch.equal(model.clean(x), awnet.load(clean)(x)) and torch.equal(model.robust(x), weak(x))
    assert read_about(out)["search"]["on"] == "60 validation images"
    main(["evaluate", str(out), "--attacks", "fgsm", "--limit", "10", "--out", str(tmp_path / "record")])
    assert "choose another --out" in refused([*command, str(out)], capsys)
    assert "keep" in refused([*command, str(tmp_path / "new"), "--keep", "2"], capsys)
    other = saved(tmp_path / "coloured", NARROW)
    about = (other / "model.json").read_text().replace('"9"', '"nine"')
    (other / "model.json").write_text(about)
    command[2] = str(other)
    assert "different classes" in refused([*command, str(tmp_path / "new")], capsys)
    assert not (tmp_path / "new").exists()


def test_turn_changes_lambda_alone(tmp_path, capsys):
    run = saved(tmp_path / "run", OATConfig(base=NARROW, encoding=8, lam=0.2))
    out = tmp_path / "turned"
    main(["turn", str(run), "--lam", "1", "--out", str(out)])
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(awnet.load(out)(x), awnet.load(run).turned(1.0)(x))
    assert read_architecture(out) == OATConfig(base=NARROW, encoding=8, lam=1.0)
    assert read_about(out)["weights"] == read_about(run)["weights"]
    main(["evaluate", str(out), "--attacks", "fgsm", "--limit", "10", "--out", str(tmp_path / "record")])
    command = ["turn", str(run), "--out", str(tmp_path / "new"), "--lam"]
    assert "0, 0.1, 0.2, 0.3, 0.4, 1, got 0.7" in refused([*command, "0.7"], capsys)
    assert "choose another --out" in refused(["turn", str(run), "--lam", "0", "--out", str(out)], capsys)
    command[1] = str(saved(tmp_path / "static", NARROW))
    assert "this checkpoint is a ResNet" in refused([*command, "0"], capsys)
