"""awnet demo: the whole way on embedded images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from awnet.cli.arguments import parse


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Train two teachers, AW-Net and its rivals on the embedded digits, attack them all, and write the report."""

    out: Path = Path("runs/demo")
    """Where everything goes."""
    adaptive: bool = False
    """Also attack with knowledge of the router (--attacks adaptive), which takes several times as long."""


def demo(argv: Sequence[str]) -> None:
    """Run the demo."""
    from awnet.demo import run_demo

    options = parse(Demo, argv, "awnet demo")
    run_demo(options.out, adaptive=options.adaptive)
