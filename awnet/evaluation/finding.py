"""What one check of the rigour report found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "warn", "fail", "skipped"]
STATUSES: tuple[Status, ...] = ("skipped", "pass", "warn", "fail")  # the worst last


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found, in the words of the report.

    Attributes:
        code: such as "C1".
        name: of the check.
        status: "fail": numbers of this evaluation cannot be believed as they are; "warn": they can, less or for less than
            they seem to say; "skipped": there was nothing to look at.
        figures: what was measured, by a name with its unit.
        meaning: what it means, in a sentence or two.
        advice: what to do; "" where nothing is to be done.
    """

    code: str
    name: str
    status: Status
    figures: dict[str, float]
    meaning: str
    advice: str = ""
