"""awnet analyse weights, as a user meets it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import awnet
from awnet.analysis.filter_means import filter_means
from awnet.checkpoint import save_model
from awnet.cli import main
from awnet.models import Knob, create
from bad import TOLD
from models.randomised import unsettle
from training.tiny import DYNAMIC

FEW = ["--limit", "12", "--gradients", "4"]


def dynamic_beside(static: Path, folder: Path, **knob: bool) -> Path:
    """A checkpoint of an AW-Net as training might leave it, for the images of the static network."""
    about = json.loads((static / "best/model.json").read_text())
    architecture = replace(DYNAMIC, knob=Knob(**knob))
    model = unsettle(create(architecture, classes=10, channels=1), torch.rand(20, 1, 8, 8))
    folder.mkdir()
    named = {**about["experiment"], "name": "digits/awnet-hard"}
    save_model(
        folder, model, architecture, {name: about[name] for name in (*TOLD, "classes", "shape")} | {"experiment": named}
    )
    return folder


def test_from_checkpoints_to_numbers_and_a_figure(
    static: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, dynamic = tmp_path / "weights", dynamic_beside(static, tmp_path / "dynamic")
    capsys.readouterr()
    main(["analyse", "weights", str(static), str(dynamic), *FEW, "--out", str(out)])
    said = capsys.readouterr().out
    assert "how many times as wide as digits/standard" in said and "mean of its type" in said and str(out) in said
    assert max(map(len, said.splitlines()[:-1])) <= 80
    found = json.loads((out / "weights.json").read_text())
    assert list(found["networks"]) == ["digits/standard", "digits/awnet-hard"]
    assert found["against digits/standard"].keys() == {"digits/awnet-hard"}
    assert found["asked"]["checkpoints"] == [str(static), str(dynamic)] and found["provenance"]["versions"]["torch"]
    ours = found["on images"]["digits/awnet-hard"]
    assert len(ours["effective filters"]) == 8 and ours["data"] == "12 test images of digits"
    assert ours["omega replaced"].keys() >= {"one", "shuffled", "one, batch norms anew"}
    assert ours["Eq. 8"].keys() == {"eps", "eps/10", "eps/100"}
    assert "omega" not in found["on images"]["digits/standard"]
    arrays = load_file(out / "weights.safetensors")
    for name, means in filter_means(awnet.load(static)).items():
        torch.testing.assert_close(arrays[f"digits/standard/weights/{name}"], means)
    assert arrays["digits/awnet-hard/clean/blocks.0.convs.0.conv"].shape == (12, 4)
    svg = (out / "weights.svg").read_text()
    assert "digits/awnet-hard, attacked" in svg and svg.count("convolution 2: filter means") > 0


def test_an_awnet_whose_omega_is_off_says_so(static: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dynamic = dynamic_beside(static, tmp_path / "dynamic", omega=False)
    main(["analyse", "weights", str(dynamic), *FEW, "--out", str(tmp_path / "out")])
    assert "digits/awnet-hard: its knob sets omega = 1" in " ".join(capsys.readouterr().out.split())


def test_weights_alone_and_networks_of_ones_own(static: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_to_analyse.py").write_text(
        "from torch import nn\n\n\ndef net():\n    return nn.Conv2d(1, 4, 3)\n"
    )
    monkeypatch.chdir(tmp_path)
    main(["analyse", "weights", str(static), "mine_to_analyse:net", "--limit", "0", "--layers", "1"])
    found = json.loads(Path("weights/weights.json").read_text())
    assert found["on images"] == {"digits/standard": {"class": "ResNet"}, "mine_to_analyse:net": {"class": "Conv2d"}}
    main(["analyse", "weights", "mine_to_analyse:net", "--layers", "1", "--out", "alone"])
    assert json.loads(Path("alone/weights.json").read_text())["against mine_to_analyse:net"] == {}


def test_a_copy_goes_by_its_path(static: Path, tmp_path: Path) -> None:
    shutil.copytree(static, tmp_path / "copy")
    main(["analyse", "weights", str(static), str(tmp_path / "copy"), "--limit", "0", "--out", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out/weights.json").read_text())
    (against,) = found["against digits/standard"].values()
    assert list(found["networks"]) == ["digits/standard", str(tmp_path / "copy")]
    assert against["weights"]["all layers"]["ratio"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["weights", "RUN", "--layers", "0"], "--layers counts convolutions from 1 to 12, got 0"),
        (["weights", "RUN", "--layers", "2", "99"], "from 1 to 12, got 2, 99"),
        (["weights", "RUN", "--limit", "1"], "--limit counts images, 0 or at least 2"),
        (["weights", "RUN", "--limit", "-3"], "got -3 and 16"),
        (["weights", "RUN", "RUN", "RUN", "--limit", "0"], "is named twice"),
        (["weights", "RUN", "--out", "HELD"], "holds an analysis already; choose another --out"),
        (["weights", "RUN", "--attack", "pgd-sad"], "did you mean pgd-sat"),
        (["weights", "NOWHERE"], "NOWHERE"),
        (["weights"], "awnet analyse --help tells more"),
        (["heights", "RUN"], "heights"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    argv: list[str], says: str, static: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "held").mkdir()
    (tmp_path / "held/weights.json").write_text("{}")
    places = {"RUN": str(static), "HELD": str(tmp_path / "held")}
    argv = [places.get(a, a) for a in argv]
    with pytest.raises(SystemExit) as end:
        main(["analyse", *argv, *([] if "--out" in argv else ["--out", str(tmp_path / "new")])])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and "Traceback" not in error
    assert not (tmp_path / "new").exists() and (tmp_path / "held/weights.json").read_text() == "{}"
