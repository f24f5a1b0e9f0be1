"""Drawing by hand: an SVG that takes its colours and font from the page, has no ids, and so never clashes with another.

Colours are classes and variables of figure.css; a figure on its own (in a README) brings that sheet along.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from math import ceil, floor, log10
from pathlib import Path
from typing import NamedTuple

Point = tuple[float, float]
COLOURS = 8  # of figure.css; more series repeat them in other shapes


class Scale(NamedTuple):
    """From values in [low, high] to coordinates in [start, end]; values outside are drawn at the edge."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low or 1.0
        share = min(max((value - self.low) / span, 0.0), 1.0)
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values in the range, about so many."""
        return ticks(self.low, self.high, about)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / max(about, 1)
    power = 10.0 ** floor(log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    return [i * step for i in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """As short as it can be without moving a pixel."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")  # + 0.0: no minus zero


def text_width(text: str, size: float = 12) -> float:
    """A generous guess, as the font is the reader's."""
    narrow = sum(character in "iljtfrI.,:;|!'()[] -" for character in text)
    wide = sum(character in "mwMW@%—" for character in text)
    return size * (0.66 * (len(text) - narrow - wide) + 0.42 * narrow + 0.95 * wide)


def shorten(text: str, width: float, size: float = 12) -> str:
    """The text, or as much of its beginning and end as fits: names that are alike mostly differ at their ends."""
    kept, short = len(text), text
    while text_width(short, size) > width and kept > 1:
        kept -= 1
        short = text[: kept - kept // 2].rstrip(" ,(") + "…" + text[len(text) - kept // 2 :].lstrip(" ,)")
    return short


class Canvas:
    """A drawing that grows by one element a call.

    Args:
        width, height: in units that are pixels unless the page has less room.
        label: what a reader who does not see it is told.
    """

    def __init__(self, width: float, height: float, label: str) -> None:
        self.width, self.height, self.label = width, height, label
        self.parts: list[str] = []

    def add(self, tag: str, content: str | None = None, /, **attributes: str | float) -> None:
        """An element; `content` is text, escaped here."""
        given = "".join(
            f' {name.rstrip("_").replace("_", "-")}="{escape(value if isinstance(value, str) else number(value))}"'
            for name, value in attributes.items()
        )
        self.parts.append(f"<{tag}{given}/>" if content is None else f"<{tag}{given}>{escape(content)}</{tag}>")

    def line(self, a: Point, b: Point, class_: str) -> None:
        """A straight line."""
        self.add("line", x1=a[0], y1=a[1], x2=b[0], y2=b[1], class_=class_)

    def path(self, points: Iterable[Point], class_: str) -> None:
        """Straight lines through the points."""
        drawn = "L".join(f"{number(x)} {number(y)}" for x, y in points)
        self.add("path", d=f"M{drawn}", class_=class_)

    def text(self, at: Point, text: str, class_: str = "", anchor: str = "start") -> None:
        """Text on a baseline."""
        self.add("text", text, x=at[0], y=at[1], class_=class_, text_anchor=anchor)

    def mark(self, at: Point, series: int, radius: float = 5, title: str = "") -> None:
        """The marker of a series, in its colour and, beyond eight series, in its shape; `title` shows on hovering."""
        x, y = at
        r = radius
        shapes = {
            1: [(x, y - 1.3 * r), (x + 1.3 * r, y), (x, y + 1.3 * r), (x - 1.3 * r, y)],
            2: [
                (x - 0.9 * r, y - 0.9 * r),
                (x + 0.9 * r, y - 0.9 * r),
                (x + 0.9 * r, y + 0.9 * r),
                (x - 0.9 * r, y + 0.9 * r),
            ],
            3: [(x, y - 1.2 * r), (x + 1.1 * r, y + 0.8 * r), (x - 1.1 * r, y + 0.8 * r)],
        }
        shape = series // COLOURS % 4
        if shape == 0:
            drawn = f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(r)}" class="mark c{series % COLOURS}"'
        else:
            points = " ".join(f"{number(px)},{number(py)}" for px, py in shapes[shape])
            drawn = f'<polygon points="{points}" class="mark c{series % COLOURS}"'
        self.parts.append(f"{drawn}><title>{escape(title)}</title></{drawn[1:].split()[0]}>" if title else f"{drawn}/>")

    def svg(self, class_: str = "", *, stretch: bool = False) -> str:
        """The finished element; `stretch` lets the page change its shape."""
        classes = escape(f"figure {class_}".strip())
        shape = ' preserveAspectRatio="none"' if stretch else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="{classes}" role="img" aria-label="{escape(self.label)}" '
            f'viewBox="0 0 {number(self.width)} {number(self.height)}" width="{number(self.width)}" '
            f'height="{number(self.height)}"{shape}>{"".join(self.parts)}</svg>'
        )


def standalone(svg: str) -> str:
    """A figure for a file of its own, with its style sheet."""
    sheet = (Path(__file__).parent / "figure.css").read_text(encoding="utf-8")
    head, tail = svg.split(">", 1)
    return f"{head}><style>{sheet} svg {{ padding: 16px; }}</style>{tail}\n"


class Box(NamedTuple):
    """A rectangle, for what must not lie on something else."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """The common area."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)

    def area(self) -> float:
        """Width times height."""
        return (self.right - self.left) * (self.bottom - self.top)


class Label(NamedTuple):
    """Where a text goes: its baseline, how it is anchored, and the box that it fills."""

    at: Point
    anchor: str
    box: Box


def place_labels(
    points: Sequence[Point], texts: Sequence[str], room: Box, obstacles: Sequence[tuple[Box, float]], size: float = 12
) -> list[Label]:
    """A place beside each point, where it covers least of the room's edge, the points, the obstacles and other labels.

    Args:
        points: what is labelled.
        texts: their labels.
        room: where labels may be.
        obstacles: boxes with how bad it is to cover them, in (0, 1].
        size: of the font.

    Returns:
        A label for each point, placed one after the other, the hardest (most crowded) point first, and then moved twice
        to where it is better now that the others are there.
    """
    bad = [*obstacles, *((Box(x - 7, y - 7, x + 7, y + 7), 1.0) for x, y in points)]
    crowd = [sum(1 / (30 + abs(x - u) + abs(y - v)) for u, v in points) for x, y in points]
    found: dict[int, Label] = {}
    for _ in range(3):
        for i in sorted(range(len(points)), key=lambda i: -crowd[i]):
            others = [(label.box, 2.0) for k, label in found.items() if k != i]
            found[i] = _best_label(points[i], text_width(texts[i], size), room, [*bad, *others], size)
    return [found[i] for i in range(len(points))]


def _best_label(point: Point, width: float, room: Box, bad: Sequence[tuple[Box, float]], size: float) -> Label:
    """The place around a point that covers least."""
    x, y = point
    best: tuple[float, Label] | None = None
    for reach in (11.0, 17.0, 25.0, 35.0, 47.0):
        for dx, dy in ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1)):
            slant = 0.7 if dx and dy else 1.0
            u, middle = x + dx * reach * slant, y + dy * reach * slant
            left = u if dx > 0 else u - width if dx < 0 else u - width / 2
            box = Box(left, middle - 0.6 * size, left + width, middle + 0.6 * size)
            outside = box.area() - box.overlap(room)
            cost = 8 * outside + 0.5 * (reach - 11) * size + 2.0 * (dx <= 0) + 1.0 * bool(dx and dy)
            cost += sum(weight * 4 * box.overlap(other) for other, weight in bad)
            label = Label((u, middle + 0.35 * size), "start" if dx > 0 else "end" if dx < 0 else "middle", box)
            if best is None or cost < best[0]:
                best = cost, label
    assert best is not None
    return best[1]


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near the wanted ones, in the same order, at least `gap` apart and in [low, high] if they fit."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [min(max(wanted[i], low), high) for i in order]
    for _ in range(200):
        moved = False
        for k in range(len(placed) - 1):
            short = gap - (placed[k + 1] - placed[k])
            if short > 1e-6:
                placed[k], placed[k + 1], moved = placed[k] - short / 2, placed[k + 1] + short / 2, True
        placed = [min(max(p, low), high) for p in placed] if len(placed) * gap <= high - low + gap else placed
        if not moved:
            break
    return [placed[order.index(i)] for i in range(len(wanted))]
