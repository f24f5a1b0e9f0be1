"""awnet detect --detectors, and what awnet list says of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

import awnet.evaluation.detection
import awnet.evaluation.detectors
import awnet.evaluation.modulation
from awnet.attacks.adaptive import Steer, evasions
from awnet.cli import main
from awnet.data import Dataset
from awnet.detection import DETECTORS
from awnet.threat_model import ThreatModel


def test_detect_compares_detectors_of_any_network(
    static: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(threat: ThreatModel, caught: float) -> dict[str, Steer]:
        return {"evade-sum": replace(evasions(threat, caught)["evade-sum"], steps=2, then=2, targets=1)}

    def with_means(model: nn.Module, clean: Dataset) -> nn.Module:
        averaged_over.append(len(clean))
        return model

    averaged_over = []
    monkeypatch.setattr(awnet.evaluation.modulation, "with_means", with_means)
    monkeypatch.setattr(awnet.evaluation.detection, "evasions", short)
    out = tmp_path / "found"
    more = ["--limit", "40", "--references", "120", "--attacks", "fgsm", "--detectors", "max-softmax", "mahalanobis"]
    main(["detect", str(static), *more, "--out", str(out)])
    assert len(averaged_over) == 1 and averaged_over[0] > 40, "over the whole split"
    said = " ".join(capsys.readouterr().out.split())
    assert "mahalanobis" in said and "no attack evades" in said and "images changed" in said
    found = json.loads((out / "detectors.json").read_text())
    assert (
        set(found["figures"]) == {"max-softmax", "mahalanobis"}
        and 0 <= found["figures"]["mahalanobis"]["fgsm"]["AUC"] <= 1
    )
    aware = json.loads((out / "mahalanobis" / "detection.json").read_text())
    assert aware["detector"] == "mahalanobis" and "accuracy with rejection" in aware["figures"]
    assert "as clean as may be" in said and "remarks" not in aware
    assert set(aware["figures"]["under evasion"]) == {"eps", "eps/2"}

    for number, (wrong, sentence) in enumerate(
        [
            (["--detectors", "mahalanobi"], "did you mean mahalanobis?"),
            (["--detectors", "router"], "does not tell clean images"),
            (["--fit-attack", "fgsm"], "name some"),
            (["--detectors", "max-softmax", "--split", "validation"], "--split test"),
            (["--detectors", "max-softmax", "--fit-attack", "pgd-sat"], "not among fgsm"),
        ]
    ):
        with pytest.raises(SystemExit) as end:
            main(
                [
                    "detect",
                    str(static),
                    "--limit",
                    "20",
                    "--attacks",
                    "fgsm",
                    *wrong,
                    "--out",
                    str(tmp_path / f"{number}"),
                ]
            )
        assert end.value.code == 2 and sentence in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--fit-attack", "fgsm"], "fitted under; name some"),
        (["--references", "20"], "--detectors know; name some"),
        (["--detectors", "max-softmax", "--shares", "0.5"], "leave out --shares or --detectors"),
        (["--attacks"], "names no attack"),
        (["--detectors", "max-softmax", "--attacks"], "names no attack"),
    ],
)
def test_what_would_go_unheard_is_refused(given: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["detect", "nowhere", *given])
    assert end.value.code == 2 and sentence in " ".join(capsys.readouterr().err.split())


THEIRS = """
import torch
from sklearn.datasets import load_digits
from torch import nn


class Nearest(nn.Module):
    def __init__(self, scale=1.0, softmax=False, noise=0.0):
        super().__init__()
        ink, digit = load_digits(return_X_y=True)
        means = torch.stack([torch.from_numpy(ink[digit == k]).float().mean(0) for k in range(10)])
        self.register_buffer("means", means / 16 * scale)
        self.softmax, self.noise = softmax, noise

    def forward(self, x):
        x = x + self.noise * torch.randn_like(x)
        logits = -(x.flatten(1)[:, None] - self.means).square().sum(2)
        return logits.softmax(1) if self.softmax else logits


class Tells(Nearest):
    def detect(self, x):
        return self(x), (x.flatten(1).mean(1) - 0.3).sigmoid()


class Steps(Nearest):
    def detect(self, x):
        return self(x), (x.flatten(1).mean(1) > 0.3).float()


class Raises(Nearest):
    def forward(self, x):
        raise RuntimeError("boom")


fit, bytes_, raising, steps = Tells(), Tells(255.0), Raises(), Steps()
probabilities, random = Tells(softmax=True), Tells(noise=0.1)
"""


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments that judge networks of a user's own, by attacks of a few steps."""

    def short(threat: ThreatModel, caught: float) -> dict[str, Steer]:
        return {"evade-sum": replace(evasions(threat, caught)["evade-sum"], steps=2, then=2, targets=1)}

    monkeypatch.setattr(awnet.evaluation.detection, "evasions", short)
    (tmp_path / "nets_of_theirs.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(str(tmp_path))
    usual = "--data digits --eps 0.1 --norm linf --limit 40 --attacks fgsm"
    return [*usual.split(), "--out", str(tmp_path / "found")]


@pytest.mark.parametrize(
    ("name", "more", "sentence"),
    [
        ("raising", [], "raises RuntimeError on images of shape (8, 1, 8, 8) on cpu: boom"),
        ("raising", ["--detectors", "max-softmax"], "raises RuntimeError"),
        ("bytes_", [], "multiplied by 255: it expects these pixels"),
    ],
)
def test_a_network_of_theirs_that_is_not_fit_is_refused(
    theirs: list[str], name: str, more: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["detect", f"nets_of_theirs:{name}", *theirs, *more])
    assert end.value.code == 2 and sentence in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("name", "more", "remark"),
    [
        ("fit", [], None),
        ("bytes_", ["--trust-range"], None),
        ("probabilities", [], "the outputs are probabilities"),
        ("random", [], "draws random numbers"),
        ("steps", [], "nobody who knows it could follow"),
        ("probabilities", ["--detectors", "router", "--references", "50"], "the outputs are probabilities"),
        ("steps", ["--detectors", "router", "--references", "50"], "nobody who knows it could follow"),
    ],
)
def test_what_is_odd_about_a_network_of_theirs_is_said_and_stands_in_the_record(
    theirs: list[str],
    name: str,
    more: list[str],
    remark: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["detect", f"nets_of_theirs:{name}", *theirs, *more])
    said = capsys.readouterr()
    words = " ".join((said.err + said.out).split())
    assert "as clean as may be" in said.out
    folder = tmp_path / "found" / "router" if more[:1] == ["--detectors"] else tmp_path / "found"
    remarks = json.loads((folder / "detection.json").read_text()).get("remarks", [])
    if remark is None:
        assert remarks == [] and "note:" not in words
    else:
        assert remark in words and any(remark in one for one in remarks)


def test_list_names_the_detectors(capsys: pytest.CaptureFixture[str]) -> None:
    main(["list", "detectors"])
    said = capsys.readouterr().out
    assert all(name in said for name in DETECTORS)
