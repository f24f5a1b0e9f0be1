"""From what was typed to a frozen value of options, or to one sentence that says what is wrong."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import fields
from itertools import groupby
from typing import Any

import tyro

from awnet.errors import Mistake


def parse(options: Any, argv: Sequence[str], program: str) -> Any:
    """The options that were typed; what the parser has to say against them becomes a Mistake.

    A list that is given twice is one too, as the parser would keep the last and forget the first.
    """
    names = Counter(a.split("=")[0].replace("_", "-") for a in argv if a.startswith("--"))
    for field in fields(options):
        name = f"--{field.name.replace('_', '-')}"
        if names[name] > 1 and str(field.type).startswith("tuple["):
            raise Mistake(f"{name} is given twice; give it once, with all of its values after it")
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(options, prog=program, args=list(argv), config=(tyro.conf.AvoidSubcommands,))
    except SystemExit as end:
        if end.code:
            raise Mistake(_sentence(said.getvalue(), program)) from None
        raise


# What the parser says of a value that it cannot read, and the kinds of value by the names that it and Python give them.
ONE_OF = re.compile(r"Error parsing (--\S+): no type matching (.*) could be instantiated from \[(.*?)\]")
ONE = re.compile(r"Error parsing (--\S+): (?:invalid literal for|could not convert string to) (int|float).*: ('.*')")
NUMBER = "a number such as 0.03 or 8/255"
KINDS = {"INT": "a whole number", "int": "a whole number", "FLOAT": NUMBER, "float": NUMBER}


def _sentence(box: str, program: str) -> str:
    """What the parser says in a box of several lines: its first part, and the names that it proposes."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", box)
    rows = [line.strip(" │") for line in plain.splitlines() if line.strip()]
    parts = [list(part) for rule, part in groupby(rows, lambda row: "────" in row or "----" in row) if not rule]
    parts = parts if plain.startswith("╭") else parts[1:] or [rows]  # without a frame, the title is a part of its own
    what = " ".join(" ".join(parts[0]).split()).rstrip(".")
    if wrong := ONE_OF.match(what) or ONE.match(what):
        kinds = [KINDS.get(kind, kind.strip("{}")) for kind in wrong[2].split("|") if kind != "{None}"]
        return f"{wrong[1]} expects {' or '.join(kinds)}, got {wrong[3]}; {program} --help tells more"
    near = [row.split()[0] for part in parts if part[0].startswith("Perhaps") for row in part if row.startswith("--")]
    hint = f"; did you mean {' or '.join(near[:3])}?" if near else ""
    return f"{what[:1].lower()}{what[1:]}{hint}; {program} --help tells more"


def number(argument: str) -> str:
    """Let radii be written as the field does: 8/255."""
    fraction = re.fullmatch(r"((?:--?[\w.-]+=)?)(\d+(?:\.\d+)?)/(\d+)", argument)
    if not fraction or not int(fraction[3]):
        return argument
    return f"{fraction[1]}{float(fraction[2]) / int(fraction[3])!r}"
