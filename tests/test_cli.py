"""The command line as a user meets it: what each command leaves behind. What it says of mistakes: test_bad_input.py."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import awnet
import awnet.checkpoint
import awnet.evaluation.detection
from awnet.attacks import Steer
from awnet.attacks.adaptive import PaperAdaptive, evasions
from awnet.cli import main
from awnet.cli.subject import label_of
from awnet.config import from_json, to_json
from awnet.data import DataConfig, load, load_split
from awnet.detection.operating_point import OperatingPoint
from awnet.evaluation.kinds import knows_the_router
from awnet.evaluation.protocol import attacks_of
from awnet.evaluation.record import Record
from awnet.models import Knob, SeparateNet, SeparateNetConfig
from awnet.threat_model import Linf, ThreatModel
from conftest import TINY
from data.made import class_folders, scan


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


def test_a_subset_has_a_folder_of_its_own(static: Path, tmp_path: Path) -> None:
    """One after the other, as a newcomer tries things: neither is in the other's way."""
    run = tmp_path / "run"
    shutil.copytree(static, run)
    for subset in (["--limit", "20"], ["--limit", "30"], ["--limit", "30", "--seed", "1"]):
        main(["evaluate", str(run), "--attacks", "fgsm", *subset])
    assert sorted(path.name.partition("test-")[2] for path in (run / "records").iterdir()) == [
        "20-of-seed-0",
        "30-of-seed-0",
        "30-of-seed-1",
    ]


@pytest.mark.parametrize("text", ["3\n1\n300\n", "[3, 1, 300]"])
def test_images_named_by_a_file(static: Path, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In its order; the report says so, and the claim can be verified."""
    (tmp_path / "few.txt").write_text(text)
    out = str(tmp_path / "out")
    main(
        [
            "evaluate",
            str(static),
            "--attacks",
            "fgsm",
            "--eps",
            "0.9",
            "--indices",
            str(tmp_path / "few.txt"),
            "--out",
            out,
        ]
    )
    record = Record.load(Path(out))
    assert torch.equal(record.ids, load(DataConfig(name="digits")).test.ids[[3, 1, 300]])
    assert record.data["limit"] is None
    main(["verify", out])
    assert "verified" in capsys.readouterr().out
    main(["report", out, "--out", str(tmp_path / "page.html")])
    assert "Judged on 3 test images named in" in (tmp_path / "page.html").read_text()


def test_a_network_of_ones_own_on_a_folder_as_others_judge_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of many sizes, without splits, those that a list of files names: as ImageNet's are judged."""
    monkeypatch.chdir(tmp_path)
    Path("flat.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 2))\n"
    )
    images = {
        name: [scan(i + 9 * k, width=20 + i, height=18) for i in range(6)] for k, name in enumerate(("n01", "n02"))
    }
    class_folders(tmp_path / "val", images)
    Path("ids.txt").write_text("n02/3.png\r\nn01/0.png\n\nn01/5.png\n")
    command = ["evaluate", "flat:net", "--data", "val", "--split", "all", "--norm", "linf", "--eps", "4/255"]
    sizes = ["--image-size", "12", "--resize", "16", "--indices", "ids.txt", "--attacks", "fgsm"]
    torch.manual_seed(0)
    main([*command, *sizes, "--trust-range", "--out", "out"])
    record = Record.load(Path("out"))
    assert record.ids.tolist() == [9, 0, 5] and record.labels.tolist() == [1, 0, 0]
    assert (record.data["split"], record.data["shape"]) == ("all", [3, 12, 12])
    whole = load_split(DataConfig(name="val", image_size=12, resize=16), "all")
    assert record.data["fingerprint"] == whole.subset(record.ids).fingerprint
    capsys.readouterr()
    torch.manual_seed(0)
    main(["verify", "out"])
    assert "verified" in capsys.readouterr().out
    for more, says in ([], "choose one with image_size"), (sizes[:2], "2 test images of val"):
        with pytest.raises(SystemExit) as end:
            main([*(command[:4] if more else command), *command[6:], *more, "--indices", "ids.txt", "--out", "no"])
        assert end.value.code == 2 and says in capsys.readouterr().err


@pytest.mark.parametrize("command", ["--help", "evaluate --help", "train digits/standard --help"])
def test_who_reads_along_may_stop(command: str) -> None:
    """As `| head` does."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as nobody:
        found = subprocess.run(
            [sys.executable, "-m", "awnet.cli", *command.split()], stdout=nobody, stderr=subprocess.PIPE, text=True
        )
    assert (found.returncode, found.stderr) == (141, "")


def test_a_batch_size_found_by_itself_is_kept(static: Path, tmp_path: Path) -> None:
    command = ["evaluate", str(static), "--limit", "20", "--attacks", "fgsm"]
    main([*command, "--out", str(tmp_path / "found")])
    assert Record.load(tmp_path / "found").run["engine"]["batch_size"] == 32, "20 images, rounded up"
    main([*command, "--out", str(tmp_path / "given"), "--batch-size", "16"])
    with pytest.raises(SystemExit):
        main([*command, "--out", str(tmp_path / "given")])
    main([*command, "pgd-sat", "--out", str(tmp_path / "given"), "--resume"])
    record = Record.load(tmp_path / "given")
    assert record.run["engine"]["batch_size"] == 16 and list(record.attacks) == ["fgsm", "pgd-sat"]


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
    points = awnet.checkpoint.read_about(dynamic)["detector"]
    assert [point["false_alarms"] for point in points] == [0.05], "twenty validation images tell no 1 %"
    assert points[0]["images"] == 20 and points[0]["split"] == "validation"
    for row in rows:
        below = 1 - row["p_adversarial"] < points[0]["threshold"]
        assert row["looks_attacked"] == {"0.05": below} or abs(1 - row["p_adversarial"] - points[0]["threshold"]) < 1e-3
    main(["predict", *map(str, images), "--model", str(dynamic)])
    said = " ".join(capsys.readouterr().out.split())
    assert f"{1 - points[0]['threshold']:.2g}, as 5% of clean images are, wrongly" in said
    assert "set on 20 validation images" in said and "an attacker who knows the router can evade it" in said
    main(["predict", str(images[0]), "--model", str(static), "--json"])
    row = json.loads(capsys.readouterr().out)
    assert row["p_adversarial"] is None and row["looks_attacked"] is None
    main(["predict", str(images[0]), "--model", str(static)])
    said = capsys.readouterr().out
    assert "not told" in said and "evade" not in said


def test_predict_says_what_looks_attacked(
    dynamic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the operating points stored with the checkpoint: at 1 % yes, at 5 % alone perhaps."""
    monkeypatch.chdir(tmp_path)  # a short path, which the table does not wrap
    run = tmp_path / "run"
    shutil.copytree(dynamic / "best", run)
    file, image = run / "model.json", Path("image.png")
    Image.new("L", (8, 8), 7).save(image)
    about = json.loads(file.read_text())
    for low, high, expected in ((0, 0, "no"), (0, 2, "perhaps"), (2, 2, "yes")):
        about["detector"] = [
            to_json(OperatingPoint(false_alarms=rate, threshold=t, images=500, split="validation"))
            for rate, t in ((0.01, low), (0.05, high))
        ]
        file.write_text(json.dumps(about))
        main(["predict", str(image), "--model", str(run)])
        (line,) = (line for line in capsys.readouterr().out.splitlines() if "image.png" in line)
        assert line.split()[-1] == expected
        main(["predict", str(image), "--model", str(run), "--json"])
        assert json.loads(capsys.readouterr().out)["looks_attacked"] == {"0.01": low > 1, "0.05": high > 1}


def test_calibrate_sets_the_operating_points(
    dynamic: Path, static: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(dynamic / "best", run)
    weights = (run / "model.safetensors").read_bytes()
    main(["calibrate", str(run), "--split", "test"])
    assert "set on 359 test images" in " ".join(capsys.readouterr().out.split())
    one, five = (from_json(point) for point in awnet.checkpoint.read_about(run)["detector"])
    assert (one.false_alarms, five.false_alarms) == (0.01, 0.05) and one.threshold <= five.threshold
    main(["evaluate", str(run), "--attacks", "fgsm", "--out", str(tmp_path / "record")])
    record = Record.load(tmp_path / "record")
    # the 3rd and the 18th of 360 places: two and seventeen of these images lie below
    assert [int((record.clean.p_clean.double() < p.threshold).sum()) for p in (one, five)] == [2, 17]
    assert record.model["detector"] == awnet.checkpoint.read_about(run)["detector"]
    assert (run / "model.safetensors").read_bytes() == weights
    with pytest.raises(SystemExit):
        main(["calibrate", str(static)])
    assert "does not tell clean images from attacked ones" in capsys.readouterr().err


def test_mix_writes_a_checkpoint(static: Path, tmp_path: Path) -> None:
    out = tmp_path / "mixture"
    main(["mix", str(static), str(static), "--weight", "0.25", "--out", str(out)])
    assert awnet.load(out).weight == 0.25
    main(["evaluate", str(out), "--attacks", "fgsm", "--limit", "10", "--out", str(tmp_path / "record")])
    alone = tmp_path / "alone"
    main(["evaluate", str(static), "--attacks", "fgsm", "--limit", "10", "--out", str(alone)])
    # a network mixed with itself decides as it does alone
    assert (Record.load(tmp_path / "record").clean.prediction == Record.load(alone).clean.prediction).all()


@pytest.mark.parametrize("own", [False, True])
def test_mix_with_a_detector_writes_a_separate_net(own: bool, static: Path, tmp_path: Path) -> None:
    """The detector is a Separate-Net's, with its bias, or a network of two classes."""
    clean, about = awnet.load(static), awnet.checkpoint.read_about(static)
    architecture = from_json(about.pop("architecture"))
    detector = awnet.create(architecture, classes=2, channels=1, seed=5).eval()
    saved, out = tmp_path / "detector", tmp_path / "whole"
    saved.mkdir()
    if own:
        said = {**about, "classes": ["adversarial", "clean"]}
        awnet.checkpoint.save_model(saved, detector, architecture, said)
    else:
        config = SeparateNetConfig(clean=architecture, robust=architecture, detector=architecture, bias=0.5)
        other = SeparateNet(*(awnet.create(architecture, classes=10, channels=1) for _ in range(2)), detector, bias=0.5)
        awnet.checkpoint.save_model(saved, other, config, about)
    main(["mix", str(static), str(static), "--detector", str(saved), "--soft", "--out", str(out)])
    whole = awnet.load(out)
    assert isinstance(whole, SeparateNet) and whole.soft and whole.bias == (0 if own else 0.5)
    x = torch.rand(5, 1, 8, 8)
    of_type = detector(x)
    torch.testing.assert_close(whole.detect(x)[1], (of_type[:, 1] - of_type[:, 0] + whole.bias).sigmoid())
    torch.testing.assert_close(whole(x), clean(x).log_softmax(1))  # of two equal networks, whatever the detector says


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


def test_train_tells_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "--help"])
    assert "awnet train RECIPE" in capsys.readouterr().out


def test_the_label_says_how_far_the_knob_is_turned() -> None:
    knob = to_json(Knob(type_bias=math.inf, p_max=0.5, omega=False))
    assert label_of({}, Path("run"), knob) == "run type_bias=inf p_max=0.5 omega=0"


def test_a_budget_gives_a_bound_and_its_record(
    dynamic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copied = tmp_path / "run"
    shutil.copytree(dynamic, copied)
    main(["evaluate", str(copied), "--budget", "2s"])
    said = capsys.readouterr().out
    (place,) = (copied / "records").iterdir()
    assert "robust accuracy at most" in said and "within 2s" in said and place.name.endswith("within-2s")
    assert Record.load(place).attacks.keys() == {"within 2s"}
    main(["verify", str(place)])
    assert "verified: " in capsys.readouterr().out
    for argv, says in (["2s"], "holds a record already"), (["soon"], "expected a time such as 90s"):
        with pytest.raises(SystemExit) as end:
            main(["evaluate", str(copied), "--budget", *argv])
        assert end.value.code == 2 and says in capsys.readouterr().err


def test_a_protocol_takes_the_place_of_attacks(
    static: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--limit", "8", "--out", str(tmp_path / "record"), "--no-adversarials"]
    main(["evaluate", str(static), "--protocol", "quick@1", *more])
    found = Record.load(tmp_path / "record")
    assert found.attacks.keys() == attacks_of("quick@1", Linf(found.threat["eps"])).keys()
    assert not found.adversarials and not (tmp_path / "record" / "adversarials.safetensors").exists()
    with pytest.raises(SystemExit) as end:
        main(["evaluate", str(static), "--protocol", "quick@9", *more])
    assert end.value.code == 2 and "quick@1" in capsys.readouterr().err


def test_images_of_a_surrogate_are_attacks_too(dynamic: Path, static: Path, tmp_path: Path) -> None:
    more = ["--attacks", "fgsm", "--limit", "20", "--out", str(tmp_path / "record")]
    main(["evaluate", str(dynamic), "--surrogates", str(static), *more])
    found = Record.load(tmp_path / "record")
    assert list(found.attacks) == ["fgsm", f"pgd-sat from {static.name}", f"cw-inf from {static.name}"]
    assert all(result.backwards.sum() == 0 for name, result in found.attacks.items() if "from" in name)


def test_the_papers_own_attack_with_its_teacher(dynamic: Path, static: Path, tmp_path: Path) -> None:
    """As the attack by itself finds it, with what the teacher says taken as given and through it; the router is in it too."""
    more = ["--attacks", "adaptive-paper", "--limit", "20", "--eps", "30/255", "--out", str(tmp_path / "record")]
    main(["evaluate", str(dynamic), "--teacher", str(static), *more])
    found, threat = Record.load(tmp_path / "record"), Linf(30 / 255)
    ways = {"adaptive-paper": ("", False)}
    ways |= {f"adaptive-paper {how} {static.name}": (str(static), how == "through") for how in ("with", "through")}
    assert list(found.attacks) == list(ways)
    model, images = awnet.checkpoint.load(dynamic), load(DataConfig(name="digits")).test.sample(20, seed=0)
    engine = from_json(found.run["engine"])
    for name, (teacher, through) in ways.items():
        attack = PaperAdaptive(threat=threat, teacher=teacher, through_teacher=through)
        assert from_json(found.attacks[name].settings) == attack and knows_the_router(name, to_json(attack))
        assert torch.equal(found.attacks[name].correct, engine.run(attack, model, images).correct)
    main(["verify", str(tmp_path / "record")])


def test_detect_judges_the_type_head(
    dynamic: Path,
    static: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def short(threat: ThreatModel, caught: float) -> dict[str, Steer]:
        return {"evade-sum": replace(evasions(threat, caught)["evade-sum"], steps=2, then=2, targets=1)}

    monkeypatch.setattr(awnet.evaluation.detection, "evasions", short)
    more = ["--limit", "10", "--attacks", "fgsm"]
    main(["detect", str(dynamic), *more, "--out", str(tmp_path / "found")])
    said = capsys.readouterr().out
    assert "sign noise" in said and "with rejection" in said and "changed" in said
    figures = json.loads((tmp_path / "found" / "detection.json").read_text())["figures"]
    assert figures["images"] == 10 and set(figures["attacks"]) == {"fgsm"}
    mistakes = (static, "other", "does not tell clean images"), (dynamic, "found", "holds a record already")
    for run, out, sentence in mistakes:
        with pytest.raises(SystemExit) as end:
            main(["detect", str(run), *more, "--out", str(tmp_path / out)])
        assert end.value.code == 2 and sentence in capsys.readouterr().err


def test_verify_holds_and_says_what_does_not(dynamic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "record"
    attack = ["evaluate", str(dynamic), "--attacks", "pgd-sat", "--limit", "30", "--eps", "60/255", "--p-max", "0.5"]
    main([*attack, "--out", str(out)])
    capsys.readouterr()
    main(["verify", str(out)])
    said = capsys.readouterr().out
    assert "verified: " in said and "NOT" not in said and "✗" not in said
    file = out / "record.json"
    about = json.loads(file.read_text())
    file.write_text(json.dumps(about | {"summary": about["summary"] | {"worst case": 0.99}}))
    with pytest.raises(SystemExit) as end:
        main(["verify", str(out), "--model", str(dynamic)])
    assert end.value.code == 1 and "NOT verified" in (said := capsys.readouterr().out) and "fails: summary" in said


def test_verify_needs_the_model_and_the_images(
    dynamic: Path, static: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "record"
    main(["evaluate", str(static), "--attacks", "fgsm", "--limit", "10", "--out", str(out)])
    file = out / "record.json"
    about = json.loads(file.read_text())
    for arguments, sentence in {
        (str(out), "--model", str(dynamic)): "about another network",
        (str(tmp_path),): "no record in",
        (str(out), "--data-dir", "nowhere", "--data", "cifar10"): "",
    }.items():
        with pytest.raises(SystemExit) as end:
            main(["verify", *arguments])
        assert end.value.code == 2 and sentence in capsys.readouterr().err
    for name, sentence in (("elsewhere", "which the record is about, is not there"), (None, "give --model")):
        file.write_text(json.dumps(about | {"model": about["model"] | {"checkpoint": name}}))
        with pytest.raises(SystemExit) as end:
            main(["verify", str(out)])
        assert end.value.code == 2 and sentence in capsys.readouterr().err


def test_the_report_s_table_as_a_file(static: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, page = str(tmp_path / "record"), str(tmp_path / "page.html")
    main(["evaluate", str(static), "--attacks", "fgsm", "--limit", "10", "--out", out])
    for ending, begins in ((".md", "| model"), (".tex", r"\begin{tabular}"), (".csv", "model,threat,parameters,clean")):
        main(["report", out, "--out", page, "--table", str(tmp_path / f"table{ending}")])
        assert (tmp_path / f"table{ending}").read_text().startswith(begins)
        assert f"table: {tmp_path}" in capsys.readouterr().out.replace("\n", "")
    Path(page).unlink()
    with pytest.raises(SystemExit) as end:
        main(["report", out, "--out", page, "--table", "table.doc"])
    assert end.value.code == 2 and ".tex" in capsys.readouterr().err and not Path(page).exists()
