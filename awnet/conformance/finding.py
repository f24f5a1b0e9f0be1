"""What a check of somebody's code found, and how a check that is brought down by that code says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from awnet.errors import Mistake


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        name: of the check.
        passed: whether all is well.
        sentence: what was seen.
    """

    name: str
    passed: bool
    sentence: str

    def __str__(self) -> str:
        return f"{'pass' if self.passed else 'FAIL'}  {self.name}: {self.sentence}"


class CannotTell(Exception):
    """Raised by a check that this code cannot be put to; it counts as passed and says so."""


def assert_conforms(findings: Sequence[Finding]) -> None:
    """For a test of one's own: `assert_conforms(check_attack(my_attack))`.

    Raises:
        Mistake: with every check that failed.
    """
    failed = [f"{finding.name}: {finding.sentence}" for finding in findings if not finding.passed]
    if failed:
        raise Mistake(f"{len(failed)} of {len(findings)} checks failed; " + "; ".join(failed))


def looked_at(name: str, check: Callable[[], str], well: str) -> Finding:
    """Run a check, which returns what is wrong, or "" where nothing is.

    Args:
        name: of the check.
        check: may raise whatever the code that it looks at raises.
        well: what to say where nothing is wrong.
    """
    try:
        wrong = check()
    except CannotTell as reason:
        return Finding(name, True, f"cannot tell: {reason}")
    except Exception as error:  # somebody else's code
        wrong = f"raises {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return Finding(name, not wrong, wrong or well)
