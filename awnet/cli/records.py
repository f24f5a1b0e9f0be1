"""The records in the folders that were named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read_records(paths: Sequence[Path]) -> list[Any]:
    """Each folder is a record, or holds several."""
    from awnet.evaluation.record import Record

    folders = [f for path in paths for f in ([path] if (path / "record.json").exists() or not path.is_dir()
               else sorted(p.parent for p in path.rglob("record.json")) or [path])]  # fmt: skip
    return [Record.load(folder) for folder in folders]
