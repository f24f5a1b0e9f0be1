"""The command line as a user meets it: what each command leaves behind, and what it says of a mistake."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import awnet
from awnet.cli import main
from awnet.evaluation.record import Record

TINY = ["--training.epochs", "1", "--model.width", "4", "--data.validation", "0.9"]


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static network after one epoch."""
    out = tmp_path_factory.mktemp("runs") / "static"
    main(["train", "digits/standard", *TINY, "--out", str(out)])
    return out


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An AW-Net after one epoch over PGD-AT."""
    out = tmp_path_factory.mktemp("runs") / "dynamic"
    widths = ["--model.base.width", "4", "--model.router.backbone.width", "4", "--objective.over.steps", "1"]
    rest = ["--training.epochs", "1", "--data.validation", "0.9", "--selection.limit", "20"]
    main(["train", "digits/awnet-hard", *widths, *rest, "--out", str(out)])
    return out


def test_the_way_from_training_to_the_page(dynamic: Path, static: Path, tmp_path: Path) -> None:
    for run, name in ((dynamic, "dynamic"), (static, "static")):
        out = str(tmp_path / "records" / name)
        main(["evaluate", str(run), "--attacks", "fgsm", "pgd-sat", "--limit", "30", "--eps", "20/255", "--out", out])
    record = Record.load(tmp_path / "records" / "dynamic")
    assert len(record) == 30 and record.tells_type and list(record.attacks) == ["fgsm", "pgd-sat"]
    assert record.threat["eps"] == pytest.approx(20 / 255)
    assert record.model["experiment"]["name"] == "digits/awnet-hard"
    page = tmp_path / "page.html"
    main(["report", str(tmp_path / "records"), "--out", str(page), "--gamma-nat", "0.25", "--gamma-adv", "0.75"])
    text = page.read_text()
    assert "0.25" in text and "0.75" in text
    assert "digits/awnet-hard" in text and "digits/standard" in text


def test_the_knob_turns_from_the_command_line(dynamic: Path, tmp_path: Path) -> None:
    common = ["evaluate", str(dynamic), "--attacks", "fgsm", "--limit", "20"]
    main([*common, "--p-max", "0", "--out", str(tmp_path / "capped")])
    main([*common, "--type-bias", "-1000", "--out", str(tmp_path / "biased")])
    main([*common, "--omega", "True", "--out", str(tmp_path / "omega")])
    capped, biased, omega = (Record.load(tmp_path / name) for name in ("capped", "biased", "omega"))
    assert capped.model["knob"]["p_max"] == 0 and omega.model["knob"]["omega"] is True
    assert capped.label != biased.label
    assert (capped.clean.prediction == biased.clean.prediction).all()  # both are BN_adv alone


def test_predict_tells_class_and_type(
    dynamic: Path, static: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = []
    for i, mode in enumerate(("L", "RGB", "P")):
        images.append(tmp_path / f"{i}.png")
        Image.new(mode, (20 + i, 30), 7).save(images[-1])
    capsys.readouterr()
    main(["predict", *map(str, images), "--model", str(dynamic), "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["image"] for row in rows] == [str(path) for path in images]
    assert all(row["class"] in "0123456789" and 0 <= row["p_adversarial"] <= 1 for row in rows)
    main(["predict", str(images[0]), "--model", str(static), "--json"])
    assert json.loads(capsys.readouterr().out)["p_adversarial"] is None
    main(["predict", str(images[0]), "--model", str(static)])
    assert "not told" in capsys.readouterr().out


def test_mix_writes_a_checkpoint(static: Path, tmp_path: Path) -> None:
    out = tmp_path / "mixture"
    main(["mix", str(static), str(static), "--weight", "0.25", "--out", str(out)])
    assert awnet.load(out).weight == 0.25
    main(["evaluate", str(out), "--attacks", "fgsm", "--limit", "10", "--out", str(tmp_path / "record")])
    alone = tmp_path / "alone"
    main(["evaluate", str(static), "--attacks", "fgsm", "--limit", "10", "--out", str(alone)])
    # a network mixed with itself decides as it does alone
    assert (Record.load(tmp_path / "record").clean.prediction == Record.load(alone).clean.prediction).all()


def test_a_saved_experiment_runs_again(static: Path, tmp_path: Path) -> None:
    main(["train", str(static / "experiment.json"), "--out", str(tmp_path / "again")])
    first, second = (awnet.load(run / "last").state_dict() for run in (static, tmp_path / "again"))
    assert all((first[name] == second[name]).all() for name in first)


def test_resume_of_a_finished_run_changes_nothing(static: Path) -> None:
    before = (static / "last" / "model.safetensors").read_bytes()
    main(["train", "digits/standard", *TINY, "--out", str(static), "--resume"])
    assert (static / "last" / "model.safetensors").read_bytes() == before


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    main(["list"])
    said = capsys.readouterr().out
    for name in ("awnet-l", "wrn-34-10", "cw-inf", "joint-mtard", "tiny-imagenet", "cifar10/awnet-small"):
        assert name in said


MISTAKES = {
    "unknown command": (["tain"], "train"),
    "no recipe": (["train"], "awnet list recipes"),
    "misspelt recipe": (["train", "digits/awnett"], "digits/awnet"),
    "misspelt field": (["train", "digits/awnet", "--training.epoch", "3"], "--training.epochs"),
    "value of the wrong type": (["train", "digits/awnet", "--training.epochs", "many"], "many"),
    "eps in 255ths": (["train", "digits/awnet", "--threat.eps", "8"], "8/255"),
    "negative learning rate": (["train", "digits/awnet", "--training.optimizer.lr", "-1"], "positive"),
    "p_max above one": (["train", "digits/awnet", "--model.knob.p-max", "2"], "p_max"),
    "no epochs": (["train", "digits/awnet", "--training.epochs", "0"], "epochs >= 1"),
    "unknown device": (["train", "digits/standard", "--device", "tpu"], "cpu, cuda or auto"),
    "unknown data": (["train", "digits/standard", "--data.name", "cifar11"], "cifar10"),
    "missing data folder": (["train", "cifar10/standard-small", "--data-dir", "nowhere"], "nowhere"),
    "no checkpoint": (["evaluate", "nowhere"], "nowhere"),
    "no image": (["predict", "nowhere.png", "--model", "RUN"], "nowhere.png"),
    "no images": (["predict", "--model", "RUN"], "image"),
    "not an image": (["predict", "RUN/log.csv", "--model", "RUN"], "not an image"),
    "unknown attack": (["evaluate", "RUN", "--attacks", "pgd-satt"], "pgd-sat"),
    "eps of another kind": (["evaluate", "RUN", "--eps", "8"], "8/255"),
    "another norm without its eps": (["evaluate", "RUN", "--norm", "l2"], "eps"),
    "limit of nothing": (["evaluate", "RUN", "--limit", "0"], "limit"),
    "knob of a static network": (["evaluate", "RUN", "--p-max", "0.5"], "AW-Net"),
    "images of another shape": (["evaluate", "RUN", "--data", "FOLDER"], "shape"),
    "no record": (["report", "nowhere"], "no record"),
    "weight of one": (["mix", "RUN", "RUN", "--weight", "1", "--out", "mixed"], "between 0 and 1"),
    "another experiment's folder": (["train", "digits/pgd-at", "--out", "RUN"], "another experiment"),
    "a run that is there already": (["train", "digits/standard", *TINY, "--out", "RUN"], "--resume"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_told_in_one_sentence(
    case: str, static: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "0123456789":
        (tmp_path / "folder" / name).mkdir(parents=True)
        for i in range(8):
            Image.new("L", (12, 12), i).save(tmp_path / "folder" / name / f"{i}.png")
    argv, expected = MISTAKES[case]
    argv = [a.replace("RUN", str(static)).replace("FOLDER", str(tmp_path / "folder")) for a in argv]
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    said = capsys.readouterr()
    assert stopped.value.code == 2, said
    assert expected in said.err, said.err
    assert "Traceback" not in said.err
    if "--training.epoch" not in argv and "many" not in argv:  # these two are told by the parser, in a box
        assert len(said.err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("model.json"))  # nothing half-written


def test_importing_does_nothing_and_is_quick() -> None:
    code = "import sys, awnet; heavy = {'torch', 'datasets', 'matplotlib', 'sklearn', 'lightning_fabric'} & set(sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code + "; print(sorted(heavy))"], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    for name in awnet.__all__:
        assert getattr(awnet, name) is not None, name
    with pytest.raises(AttributeError, match="no attribute 'atack'"):
        _ = awnet.atack


def test_versions_agree() -> None:
    toml = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    found = re.search(r'^version = "(.+)"', toml, re.M)
    assert found is None or found[1] == awnet.__version__  # or pyproject reads it from the package
