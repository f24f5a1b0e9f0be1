"""What a person sees while a command works: a line that changes on a terminal, a line now and then in a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

EVERY = 30.0  # seconds between two lines where there is no terminal


@contextmanager
def waiting(
    first: str = "", *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[object], None]]:
    """While it lasts, a function that says on stderr where the work is.

    Args:
        first: said at once, on a terminal.
        quiet: say nothing.
        clock: the time in seconds.
    """
    if quiet or sys.stderr.isatty():
        with Console(stderr=True, quiet=quiet).status(first) as status:
            yield lambda now: status.update(str(now))
        return
    last = clock()

    def say(now: object) -> None:
        nonlocal last
        if clock() - last >= EVERY:
            last = clock()
            print(now, file=sys.stderr, flush=True)

    yield say
