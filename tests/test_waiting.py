"""A command that works says where it is, also where nobody watches a terminal."""

from __future__ import annotations

from itertools import count

from awnet.cli.waiting import EVERY, waiting


def test_in_a_file_a_line_now_and_then(capsys):
    ticks = (EVERY / 4 * tick for tick in count())
    with waiting("the first", clock=lambda: next(ticks)) as say:
        for step in range(9):
            say(f"step {step}")
    said = capsys.readouterr().err.splitlines()
    assert 1 <= len(said) <= 3 and all(line.startswith("step ") for line in said)


def test_quiet(capsys):
    with waiting("the first", quiet=True, clock=lambda: 0.0) as say:
        say("a step")
    assert capsys.readouterr().err == ""
