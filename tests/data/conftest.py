"""No test sees the user's sets or fills the user's cache."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's decoded images go."""
    monkeypatch.delenv("AWNET_DATA_DIR", raising=False)
    monkeypatch.setenv("AWNET_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"
