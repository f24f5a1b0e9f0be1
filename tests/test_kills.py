"""After SIGKILL at any moment a resumed training or evaluation comes to the end of the uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

TESTS = Path(__file__).parent
TIMES = {"time", "seconds", "spent"}  # what may differ


def content(folder: Path) -> dict[str, Any]:
    """Everything that a run leaves, but for times: every tensor, every word of JSON and of the log."""
    found: dict[str, Any] = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if file.suffix == ".safetensors":
            found |= {f"{name} {key}": t for key, t in load_file(file).items()}
        elif file.suffix == ".json":
            found[name] = timeless(json.loads(file.read_text()))
        elif file.is_file() and not file.name.startswith((".lock", "events.")):
            found[name] = file.read_text()
    return found


def timeless(value: Any) -> Any:
    """JSON without its times, and without the digests that they enter."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in TIMES}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def equal(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
@pytest.mark.parametrize("what", ["train", "evaluate"])
def test_killed_and_gone_on(what: str, tmp_path: Path) -> None:
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, TESTS / "kills.py", what, tmp_path, "0"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(kills) >= 12 and sum("inside a save" in kill["killed"] for kill in kills) == 2
    assert any("epoch" in kill["left"] or "attack" in kill["left"] for kill in kills), "some are resumed half-way"
    whole = content(tmp_path / "whole")
    cuts = sorted(tmp_path.glob("cut-*"))
    for cut in cuts:
        found = content(cut)
        assert found.keys() == whole.keys()
        assert not [name for name in whole if not equal(whole[name], found[name])], cut
    parts = {"train": ("last/training", "best/model", "log.csv"), "evaluate": ("record.safetensors",)}
    for part in parts[what]:
        assert any(part in name for name in whole), "the parts that matter are there"
