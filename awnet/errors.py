"""What a user is told when something that they gave cannot be used."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class Mistake(Exception):
    """A user's mistake in one sentence: what was expected, what came, what to try.

    The command line prints the sentence and exits with code 2; any other exception is a bug of ours and keeps its
    traceback. It is no ValueError, so that no library in between takes it for one of its own.
    """


def unknown(kind: str, name: str, known: Iterable[str]) -> Mistake:
    """The mistake of naming something that does not exist, with the spellings that may have been meant."""
    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    return Mistake(f"no {kind} is named {name!r}; {hint}")
