"""How far an evaluation is: what still stands by now, and how long what is left takes at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from awnet.attacks.attack import Attack
from awnet.attacks.suite import Suite
from awnet.attacks.sweep import Sweep
from awnet.types import Hits


class Progress(NamedTuple):
    """Where an evaluation is, over the examples of this process.

    Attributes:
        attack: the attack at work; of a suite "name: member"; "again in float32" after it where some meet it a second time.
        finished, of: how many examples need nothing more of it, of how many.
        robust: the share of them that is right as it is and after all that was run so far, in [0, 1]: an upper bound.
        seconds: that all attacks still take at most, at the pace of the one at work, without what will be made again; None
            before there is a pace.
    """

    attack: str
    finished: int
    of: int
    robust: float
    seconds: float | None

    def __str__(self) -> str:
        left = "" if self.seconds is None else f" · at most {_duration(self.seconds)} left"
        return (
            f"{self.attack}: {self.finished:,} of {self.of:,} images · at most {100 * self.robust:.1f} % robust{left}"
        )


class Pace:
    """Tells how far an evaluation is, from how long it took so far.

    Args:
        attacks: those that are run, in order.
        clock: the time in seconds.
    """

    def __init__(self, attacks: Mapping[str, Attack | Suite], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._members = {
            name: attack.members if isinstance(attack, Suite) else (("", attack),) for name, attack in attacks.items()
        }
        self._clock = clock
        self._at: tuple[str, int, bool] = "", 0, False  # the attack and member that are timed, and whether again, since
        self._since, self._before = 0.0, 0  # when it had made so many evaluations

    def now(self, name: str, sweep: Sweep, stands: Hits) -> Progress:
        """Where the evaluation is in the course of an attack, and who stood before it: shape (n,)."""
        members, place = self._members[name], int(sweep.member)
        member, again = members[place][0], bool(sweep.again)
        made, here = sweep.passes[:, place], sweep.correct & ~sweep.fallen
        if self._at != (name, place, again):
            self._at, self._since, self._before = (name, place, again), self._clock(), int(made.sum())
        fresh = int(made.sum()) - self._before
        ahead = int((sweep.most - made)[~sweep.left].sum())
        ahead += int(here.sum()) * sum(later.queries for _, later in members[place + 1 :] if not again)
        names = list(self._members)
        for later in names[names.index(name) + 1 :]:
            ahead += len(stands) * sum(attack.queries for _, attack in self._members[later])
        return Progress(
            attack=(f"{name}: {member}" if member else name) + (", again in float32" if again else ""),
            finished=sweep.finished,
            of=len(sweep.left),
            robust=float((stands & here).double().mean()),
            seconds=ahead * (self._clock() - self._since) / fresh if fresh else None,
        )


def _duration(seconds: float) -> str:
    """In words, to the minute where it takes minutes."""
    if seconds < 60:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
