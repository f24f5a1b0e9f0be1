"""A bound within a time has a record that tables, `verify` and a second look read as any other."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from awnet.errors import Mistake
from awnet.evaluation import Record
from awnet.evaluation.adversarials import read_adversarials
from awnet.evaluation.anytime import Point
from awnet.evaluation.verify import verify
from awnet.evaluation.within import within
from evaluation.test_anytime import ENGINE, RUNGS, bounded
from evaluation.test_evaluate import DATA, THREAT
from evaluation.test_evaluate import model as model  # the fixture


class Crash(Exception):
    """What ends a process in the middle of its work."""


def kept(model: nn.Module, out: Path, **more: Any) -> Record:
    said = {"seconds": 1e5, "threat": THREAT, "out": out, "name": "within a day", "engine": ENGINE, "seed": 3, **more}
    return within(model, DATA, RUNGS, **said)


def test_the_record_is_of_what_was_found(model: nn.Module, tmp_path: Path):
    record = kept(model, tmp_path / "record")
    found = bounded(model, 1e5, seed=3)
    (result,) = record.attacks.values()
    assert torch.equal(record.ids, found.ids) and torch.equal(record.labels, DATA.labels[found.places])
    assert torch.equal(result.correct, found.stands) and record.worst_accuracy == found.bound
    assert result.members and result.members.names == tuple(RUNGS)
    assert torch.equal(result.members.broken_by, found.broken_by)
    assert int(result.forwards.sum() + result.backwards.sum()) == found.curve[-1].passes
    assert Record.load(tmp_path / "record").attacks.keys() == {"within a day"}
    images = read_adversarials(tmp_path / "record", record.adversarials)
    broken = record.clean.correct & ~result.correct
    assert sorted(images.ids.tolist()) == sorted(record.ids[broken].tolist()) and broken.any()


def test_its_claim_can_be_checked(model: nn.Module, tmp_path: Path):
    kept(model, tmp_path / "record")
    assert all(check.passed for check in verify(tmp_path / "record", model, DATA).checks)


def test_the_curve_lies_beside_it(model: nn.Module, tmp_path: Path):
    told: list[Point] = []
    record = kept(model, tmp_path / "record", watch=told.append)
    with (tmp_path / "record" / "curve.csv").open() as file:
        lines = [*csv.DictReader(file)]
    assert [line["attack"] for line in lines] == [point.attack or "clean" for point in told]
    assert float(lines[-1]["accuracy"]) == pytest.approx(record.worst_accuracy.value, abs=1e-6)


def test_an_interrupted_one_goes_on(model: nn.Module, tmp_path: Path):
    whole = kept(model, tmp_path / "whole")

    def stop(point: Point) -> None:
        if point.attack == "twenty":
            raise Crash

    with pytest.raises(Crash):
        kept(model, tmp_path / "record", watch=stop)
    with pytest.raises(Mistake, match="--resume goes on"):
        kept(model, tmp_path / "record")
    resumed = kept(model, tmp_path / "record", resume=True)
    ours, theirs = resumed.attacks["within a day"], whole.attacks["within a day"]
    assert torch.equal(ours.correct, theirs.correct) and torch.equal(ours.forwards, theirs.forwards)
    assert resumed.adversarials == whole.adversarials
    assert sorted(path.name for path in (tmp_path / "record").iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )


def test_a_record_is_not_written_over(model: nn.Module, tmp_path: Path):
    kept(model, tmp_path / "record")
    with pytest.raises(Mistake, match="holds a record already"):
        kept(model, tmp_path / "record", resume=True)
