"""JSON files that anybody may have written, or a disk damaged: read within bounds, or refused in a sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from awnet.errors import Mistake

LARGEST = 1 << 24  # bytes of a file; ours have some thousands
DEEPEST = 64  # brackets within brackets; ours go ten deep, and readers that call themselves end at a thousand


def read_json(path: Path) -> dict[str, Any]:
    """The object that a file holds.

    Args:
        path: a file of at most 16 MiB in UTF-8. Its numbers may be NaN and infinite, as `json.dumps` writes them.

    Raises:
        Mistake: where there is no such file, it is no JSON object, or what is in it is beyond what any writer means: 64
            levels of nesting, whole numbers of 64 bits, text that is no Unicode.
    """
    if not path.is_file():  # reading a pipe would wait for ever, a device never end
        raise Mistake(f"cannot read {path}: {'it is no file' if os.path.lexists(path) else 'there is no such file'}")
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ValueError("it is not the description of anything, but a list or a single value")
        _check(data)
    except RecursionError:
        raise Mistake(f"cannot read {path}: it is nested too deeply; is the file complete?") from None
    except (OSError, ValueError) as error:
        raise Mistake(f"cannot read {path}: {error}; is the file complete?") from None
    return data


def _check(data: dict[str, Any]) -> None:
    waiting: list[tuple[Any, int]] = [(data, 1)]
    while waiting:
        item, depth = waiting.pop()
        if depth > DEEPEST:
            raise ValueError("it is nested too deeply")
        if isinstance(item, dict):
            waiting += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list):
            waiting += [(part, depth + 1) for part in item]
        elif isinstance(item, str):
            item.encode()  # half of a surrogate pair cannot be printed
        elif isinstance(item, int) and not -(2**63) <= item < 2**63:
            raise ValueError("it has a whole number of more than 64 bits")
