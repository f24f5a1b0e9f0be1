"""Fig. 1 and 3 of the AW-Net paper: the means of a layer's filters as densities, with a stroke for every filter below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from awnet.analysis.distributions import density, moments, silverman
from awnet.report.figures import thinned
from awnet.report.svg import COLOURS, Canvas, Scale, shorten, text_width

TALL, LANE, TOP, GAP, FOOT = 130, 19, 30, 34, 34  # of a row: curves, a lane of strokes, title, between panels, ticks


class Panel(NamedTuple):
    """One layer, as the networks have it.

    Attributes:
        title: which layer, and what its means are divided by.
        samples: the filter means by network, each of shape (filters,).
    """

    title: str
    samples: Mapping[str, Tensor]


def filter_densities(rows: Sequence[Sequence[Panel]], *, width: float = 960) -> str:
    """Panels in rows. Colours go by name and are the same in all of them; a sample that is all one value has no curve.

    Each network's lane has its filters as strokes, and at its end the deviation of their means.
    """
    names = list(dict.fromkeys(name for row in rows for panel in row for name in panel.samples))
    across = max(len(row) for row in rows)
    left = min(max(map(text_width, names)) + 14, 0.3 * width)
    each = (width - left + GAP) / across
    lanes = [list(dict.fromkeys(name for panel in row for name in panel.samples)) for row in rows]
    heights = [TOP + TALL + LANE * len(of_row) + FOOT for of_row in lanes]
    said = "; ".join(
        f"{panel.title}: "
        + ", ".join(f"{name} {moments(values).deviation:.3g}" for name, values in panel.samples.items())
        for row in rows
        for panel in row
    )
    canvas = Canvas(width, sum(heights) + 12, f"Densities of filter means; their deviations are: {said}.")
    top = 0.0
    for row, of_row, height in zip(rows, lanes, heights, strict=True):
        for n, name in enumerate(of_row):
            at = top + TOP + TALL + LANE * (n + 0.5) + 8
            canvas.text((0, at), shorten(name, left - 10), f"tint c{names.index(name) % COLOURS}")
        for k, panel in enumerate(row):
            start = left + k * each
            _panel(canvas, panel, names, of_row, start, start + each - GAP, top)
        top += height
    return canvas.svg()


def _panel(
    canvas: Canvas, panel: Panel, names: Sequence[str], lanes: Sequence[str], start: float, end: float, top: float
) -> None:
    x = Scale(*_range(list(panel.samples.values())), start, end - 62)
    grid = torch.linspace(x.low, x.high, 301, dtype=torch.float64)
    curves = {name: density(values, grid) for name, values in panel.samples.items() if silverman(values) > 0}
    highest = max((float(curve.max()) for curve in curves.values()), default=1.0)
    floor = top + TOP + TALL
    y = Scale(0, highest, floor, top + TOP + 4)
    bottom = floor + LANE * len(lanes) + 6
    canvas.text((start, top + 15), shorten(panel.title, end - start - 60), "strong")
    canvas.text((end, floor - 2), "deviation", "pale small", "end")
    for value in x.ticks(max(int((x.end - x.start) / 70), 2)):
        canvas.line((x(value), top + TOP), (x(value), bottom), "grid")
        canvas.text((x(value), bottom + 14), f"{value:.6g}", "pale small", "middle")
    canvas.line((x.start, floor), (x.end, floor), "axis")
    for name, curve in curves.items():
        drawn = [(x(t), y(f)) for t, f in zip(grid.tolist(), curve.tolist(), strict=True)]
        canvas.path(thinned(drawn), _look("curve", names.index(name)))
    for n, name in enumerate(lanes):
        if name not in panel.samples:
            continue
        middle = floor + LANE * (n + 0.5) + 4
        for value in panel.samples[name].tolist():
            canvas.line((x(value), middle - 6), (x(value), middle + 6), f"thin c{names.index(name) % COLOURS}")
        canvas.text((end, middle + 4), f"{moments(panel.samples[name]).deviation:.3g}", "dark", "end")


def _range(samples: Sequence[Tensor]) -> tuple[float, float]:
    """From the least to the largest value, with room for the foot of each curve."""
    low, high = min(float(s.min()) for s in samples), max(float(s.max()) for s in samples)
    air = max(2.5 * max(silverman(s) for s in samples), 0.03 * (high - low))
    return (low - air, high + air) if high > low else (low - 1, high + 1)


def _look(kind: str, series: int) -> str:
    return f"{kind} c{series % COLOURS}{' again' if series >= COLOURS else ''}"
