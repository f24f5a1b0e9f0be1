"""awnet detect --detectors, and what awnet list says of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import awnet.evaluation.detection
from awnet.attacks.adaptive import Steer, evasions
from awnet.cli import main
from awnet.detection import DETECTORS
from awnet.threat_model import ThreatModel


def test_detect_compares_detectors_of_any_network(
    static: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(threat: ThreatModel, caught: float) -> dict[str, Steer]:
        return {"evade-sum": replace(evasions(threat, caught)["evade-sum"], steps=2, then=2, targets=1)}

    monkeypatch.setattr(awnet.evaluation.detection, "evasions", short)
    out = tmp_path / "found"
    more = ["--limit", "40", "--references", "120", "--attacks", "fgsm", "--detectors", "max-softmax", "mahalanobis"]
    main(["detect", str(static), *more, "--out", str(out)])
    said = " ".join(capsys.readouterr().out.split())
    assert "mahalanobis" in said and "no attack evades" in said and "images changed" in said
    found = json.loads((out / "detectors.json").read_text())
    assert (
        set(found["figures"]) == {"max-softmax", "mahalanobis"}
        and 0 <= found["figures"]["mahalanobis"]["fgsm"]["AUC"] <= 1
    )
    aware = json.loads((out / "mahalanobis" / "detection.json").read_text())
    assert aware["detector"] == "mahalanobis" and "accuracy with rejection" in aware["figures"]

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


def test_list_names_the_detectors(capsys: pytest.CaptureFixture[str]) -> None:
    main(["list", "detectors"])
    said = capsys.readouterr().out
    assert all(name in said for name in DETECTORS)
