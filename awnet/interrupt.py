"""Ctrl-C that loses nothing: the first one is noted, and whoever works stops where its state is whole."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interrupt(KeyboardInterrupt):
    """The user pressed Ctrl-C and the state has been saved; the message says how to go on."""


def _to_stderr(text: str) -> None:
    sys.stderr.write(f"{text}\n")


class CtrlC:
    """While it is entered, the first Ctrl-C sets `pressed` instead of raising; a second one raises at once.

    Only the main thread may do so: in another one, nothing changes.

    Args:
        say: told what happens next, at the first Ctrl-C.
    """

    def __init__(self, say: Callable[[str], None] = _to_stderr) -> None:
        self.pressed = False
        self._say = say
        self._previous: Any = None

    def __enter__(self) -> CtrlC:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True
        self._say("stopping after this step; press Ctrl-C again to stop at once and lose it")
