"""A record names the commit that its program was loaded from."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import awnet.provenance

PROGRAM = """
import pathlib, subprocess
from awnet.provenance import provenance
before = provenance()["commit"]
pathlib.Path("awnet/later.py").write_text("")
for command in (["add", "."], ["commit", "-qm", "while it runs"]):
    subprocess.run(["git", *command], check=True)
print(before, provenance()["commit"], subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout)
"""


@pytest.mark.skipif(shutil.which("git") is None, reason="a commit needs git")
def test_a_tree_that_changes_meanwhile_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "nobody")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "nobody@example.org")
    (tmp_path / "awnet").mkdir()
    (tmp_path / "awnet" / "__init__.py").write_text("")
    shutil.copy(awnet.provenance.__file__, tmp_path / "awnet")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    run = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=True)
    before, after, head = run.stdout.split()
    assert before == after and before.rstrip("+") != head[:12]
