"""Records as figures: functions from numbers to SVG strings, all drawn by hand in svg.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil, floor, hypot, isfinite
from statistics import mean
from typing import Any, NamedTuple

import torch

from awnet.evaluation.metrics import Accuracy, roc, w_robust
from awnet.evaluation.record import Record
from awnet.report.alike import attack_names, seed_groups, threat_text
from awnet.report.svg import (
    COLOURS,
    Box,
    Canvas,
    Point,
    Scale,
    number,
    place_labels,
    shorten,
    spread,
    text_width,
    ticks,
)
from awnet.report.tables import front_names, names, series, table
from awnet.types import PerExample

ATTACK_COLOURS = COLOURS - 1  # the last one, grey, is for clean images


# --- clean against worst case ---


class _Dot(NamedTuple):
    clean: float
    worst: float
    text: str
    title: str
    series: int
    radius: float
    strong: bool


def tradeoff(
    records: Sequence[Record],
    *,
    gamma_nat: float = 0.5,
    gamma_adv: float = 0.5,
    width: float = 920,
    height: float = 500,
) -> str:
    """Clean accuracy (x) against worst-case accuracy (y), with lines of equal A_w; "" for a single record.

    Records of one front are joined, in the order of their clean accuracy. Records of another threat model than the
    first one's are left out. Seeds of one label are small points around their mean.
    """
    shown = [i for i, r in enumerate(records) if len(r) and threat_text(r) == threat_text(records[0])]
    if len(shown) < 2:
        return ""  # nothing to compare
    clean = {i: records[i].clean_accuracy for i in shown}
    worst = {i: records[i].worst_accuracy for i in shown}
    spans = [
        _padded(min(a.low for a in found), max(a.high for a in found)) for found in (clean.values(), worst.values())
    ]
    x = Scale(*spans[0], 40, width - 46)
    y = Scale(*spans[1], height - 46, 46)
    titles, colours = names(records), series(records)
    said = "; ".join(f"{titles[i]}: {100 * clean[i].value:.1f} and {100 * worst[i].value:.1f}" for i in shown)
    canvas = Canvas(width, height, f"Clean and worst-case accuracy in percent. {said}.")
    _frame(canvas, x, y, "worst case, % right", "clean, % right")
    _iso_lines(canvas, x, y, gamma_nat, gamma_adv)

    obstacles: list[tuple[Box, float]] = []
    grouped = {i for group in seed_groups(records) for i in group}
    for i in (i for i in shown if i not in grouped):
        ends = ((x(clean[i].low), y(worst[i].value)), (x(clean[i].high), y(worst[i].value)))
        canvas.line(*ends, f"thin c{colours[i] % COLOURS}")
        obstacles.append((Box(ends[0][0], ends[0][1] - 1, ends[1][0], ends[1][1] + 1), 0.15))
        ends = ((x(clean[i].value), y(worst[i].high)), (x(clean[i].value), y(worst[i].low)))
        canvas.line(*ends, f"thin c{colours[i] % COLOURS}")
        obstacles.append((Box(ends[0][0] - 1, ends[0][1], ends[1][0] + 1, ends[1][1]), 0.15))

    anchors: list[tuple[Point, str, str]] = []  # where a label belongs, its text and class
    fronts = front_names(records)
    for front in fronts:
        members = sorted((i for i in shown if records[i].front == front), key=lambda i: clean[i].value)
        if len(members) < 2:
            continue
        line = [(x(clean[i].value), y(worst[i].value)) for i in members]
        canvas.path(line, f"curve c{colours[members[0]] % COLOURS}")
        for a, b in pairwise(line):
            steps = max(int(max(abs(a[0] - b[0]), abs(a[1] - b[1])) / 6), 1)
            for k in range(steps + 1):
                u, v = (a[d] + (b[d] - a[d]) * k / steps for d in (0, 1))
                obstacles.append((Box(u - 3, v - 3, u + 3, v + 3), 1.0))
        anchors.append((_middle(line), fronts[front], f"tint c{colours[members[0]] % COLOURS}"))

    for dot in _dots(records, shown):
        at = (x(dot.clean), y(dot.worst))
        canvas.mark(at, dot.series, dot.radius, dot.title)
        anchors.append((at, dot.text, f"tint c{dot.series % COLOURS}" if dot.strong else "dark"))
    texts = [shorten(text, 0.45 * width) for _, text, _ in anchors]
    room = Box(x.start + 2, y.end + 2, x.end + 2, y.start - 2)
    labels = place_labels([at for at, _, _ in anchors], texts, room, obstacles)
    for (_, text, class_), label, short in zip(anchors, labels, texts, strict=True):
        if text:
            canvas.text(label.at, short, f"halo {class_}", label.anchor)
    return canvas.svg()


def _dots(records: Sequence[Record], shown: Sequence[int]) -> list[_Dot]:
    """A point for each record; for the seeds of a label, smaller ones without a name, and their mean."""
    titles, colours = names(records), series(records)
    groups = [group for group in seed_groups(records) if set(group) <= set(shown)]
    grouped = {i for group in groups for i in group}
    fronts = front_names(records)
    dots = []
    for i in shown:
        c, w = records[i].clean_accuracy.value, records[i].worst_accuracy.value
        on_front = records[i].front != "" and sum(records[j].front == records[i].front for j in shown) > 1
        text = "" if i in grouped else _after(fronts[records[i].front], titles[i]) if on_front else titles[i]
        title = f"{titles[i]}: {100 * c:.1f} % clean, {100 * w:.1f} % worst case"
        dots.append(_Dot(c, w, text, title, colours[i], 3 if i in grouped else 5.5, not on_front))
    for group in groups:
        c, w = (mean(getattr(records[i], which).value for i in group) for which in ("clean_accuracy", "worst_accuracy"))
        text = f"{records[group[0]].label} (mean of {len(group)})"
        title = f"{text}: {100 * c:.1f} % clean, {100 * w:.1f} % worst case"
        dots.append(_Dot(c, w, text, title, colours[group[0]], 6.5, True))
    return dots


def _after(front: str, name: str) -> str:
    """What a record's name adds to that of its front."""
    rest = name.removeprefix(front).strip(" ,:;-–·")
    if rest.startswith("(") and rest.endswith(")"):
        rest = rest[1:-1]
    return rest or "as trained"


def _middle(line: Sequence[Point]) -> Point:
    """The middle of the longest piece of a line."""
    pieces = list(pairwise(line))
    a, b = max(pieces, key=lambda piece: abs(piece[0][0] - piece[1][0]) + abs(piece[0][1] - piece[1][1]))
    return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2


def _padded(low: float, high: float, least: float = 0.04) -> tuple[float, float]:
    """A range with some air, not too small, and hardly beyond [0, 1]."""
    low, high = (0.0, 1.0) if not (isfinite(low) and isfinite(high)) else (low, high)
    air = max(0.06 * (high - low), (least - (high - low)) / 2)
    return max(low - air, -0.25 * air), min(high + air, 1 + 0.25 * air)


def _frame(canvas: Canvas, x: Scale, y: Scale, title_y: str, title_x: str, percent: bool = True) -> None:
    """Grid, ticks and titles of a plot of shares."""
    unit = 100 if percent else 1
    for value in (v for v in x.ticks(max(int((x.end - x.start) / 80), 2)) if 0 <= v <= 1):
        canvas.line((x(value), y.start), (x(value), y.end), "grid")
        canvas.text((x(value), y.start + 18), f"{unit * value:.6g}", "", "middle")
    for value in (v for v in y.ticks(max(int((y.start - y.end) / 60), 2)) if 0 <= v <= 1):
        canvas.line((x.start, y(value)), (x.end, y(value)), "grid")
        canvas.text((x.start - 8, y(value) + 4), f"{unit * value:.6g}", "", "end")
    canvas.text((0, 12), title_y, "dark")
    canvas.text((x.end, y.start + 38), title_x, "dark", "end")


def _iso_lines(canvas: Canvas, x: Scale, y: Scale, gamma_nat: float, gamma_adv: float) -> None:
    """Where A_w is a round number."""
    corners = [w_robust(c, w, gamma_nat, gamma_adv) for c, w in ((x.low, y.low), (x.high, y.high))]
    labelled_top, labelled_right = -1e9, -1e9
    for level in ticks(*corners, about=7):
        ends: list[Point] = []
        if gamma_adv:
            ends += [(c, (level - gamma_nat * c) / gamma_adv) for c in (x.low, x.high)]
        if gamma_nat:
            ends += [((level - gamma_adv * w) / gamma_nat, w) for w in (y.low, y.high)]
        inside = {
            (round(c, 9), round(w, 9))
            for c, w in ends
            if x.low - 1e-9 <= c <= x.high + 1e-9 and y.low - 1e-9 <= w <= y.high + 1e-9
        }
        if len(inside) < 2:
            continue
        (c0, w0), (c1, w1) = sorted(inside, key=lambda point: (point[0], -point[1]))[:: len(inside) - 1]
        canvas.line((x(c0), y(w0)), (x(c1), y(w1)), "iso")
        text = f"{100 * level:.6g}"
        if w0 >= y.high - 1e-9 and x(c0) - labelled_top > 34:  # leaves through the top
            labelled_top = x(c0)
            canvas.text((x(c0), y.end - 7), text, "pale small", "middle")
        elif c1 >= x.high - 1e-9 and abs(y(w1) - labelled_right) > 14:  # or through the right
            labelled_right = y(w1)
            canvas.text((x.end + 7, y(w1) + 4), text, "pale small")
    canvas.text((x.end, y.end - 26), "dotted: equal A_w", "pale small", "end")


# --- accuracy by attack ---


class _Lane(NamedTuple):
    """A row of the panels: its name, colour, and what it has in each panel, one accuracy for each of its seeds."""

    name: str
    series: int
    found: list[list[Accuracy]]


def by_attack(records: Sequence[Record], *, width: float = 960, across: int = 5) -> list[str]:
    """A panel for the clean images, one for the worst case, and one for each attack: a dot and interval a row.

    Rows are those of the table: the seeds of a label are small dots, their mean a stroke. A single record has one panel, with
    a row for each of these. Panels stand side by side, at most `across`, with the names beside the first one only.
    """
    titles, lanes = _lanes(records)
    if len(lanes) == 1:  # one panel with a row for each attack
        (lane,) = lanes
        lanes = [_Lane(title, lane.series, [found]) for title, found in zip(titles, lane.found, strict=True)]
        return [_panels(["accuracy, %"], lanes, min(width, 420))]
    sheets = ceil(len(titles) / across)
    each = ceil(len(titles) / sheets)
    return [
        _panels(titles[k : k + each], [lane._replace(found=lane.found[k : k + each]) for lane in lanes], width, each)
        for k in range(0, len(titles), each)
    ]


def _lanes(records: Sequence[Record]) -> tuple[list[str], list[_Lane]]:
    """The panels' titles, and the rows."""
    attacks = attack_names(records)

    def found(record: Record) -> list[Accuracy | None]:
        robust = [record.robust_accuracy(name) if name in record.attacks else None for name in attacks]
        return [record.clean_accuracy, record.worst_accuracy, *robust]

    lanes = []
    for row in table(records).main:
        columns = zip(*(found(records[i]) for i in row.of), strict=True)
        # of no image, there is no accuracy
        name = row.name.replace(f" (mean of {len(row.of)})", "")  # the figure shows how many
        lanes.append(_Lane(name, row.series, [[a for a in column if a and a.n] for column in columns]))
    return ["clean", "worst case", *attacks], lanes


def _panels(titles: Sequence[str], lanes: Sequence[_Lane], width: float, across: int = 1) -> str:
    """Panels side by side; room for `across`, so that sheets of fewer line up with others."""
    row, top, gap = 21, 30, 44
    names_end = min(max(text_width(lane.name) for lane in lanes) + 14, (0.42 if across == 1 else 0.3) * width)
    each = (width - names_end + gap) / across
    bottom = top + row * len(lanes) + 4
    said = "; ".join(
        f"{title}: " + ", ".join(f"{lane.name} {_mean_text(lane.found[k])}" for lane in lanes)
        for k, title in enumerate(titles)
    )
    canvas = Canvas(width, bottom + 20, f"Accuracy in percent. {said}.")
    for n, lane in enumerate(lanes):
        canvas.text((0, top + row * (n + 0.5) + 6), shorten(lane.name, names_end - 10))
    for k, title in enumerate(titles):
        start = names_end + k * each
        end = start + each - gap
        x = Scale(0, 1, start + 5, end - 42)
        canvas.text((start, 13), shorten(title, each - gap), "strong")
        for value in (0, 0.25, 0.5, 0.75, 1):
            canvas.line((x(value), top), (x(value), bottom), "grid")
            if value in (0, 0.5, 1):
                canvas.text((x(value), bottom + 14), f"{100 * value:.6g}", "pale small", "middle")
        for n, lane in enumerate(lanes):
            _dots_of(canvas, x, end, top + row * (n + 0.5) + 2, lane, lane.found[k])
    return canvas.svg()


def _dots_of(canvas: Canvas, x: Scale, end: float, middle: float, lane: _Lane, found: Sequence[Accuracy]) -> None:
    if not found:
        canvas.text((end, middle + 4), "–", "pale", "end")
        return
    at = x(mean(share.value for share in found))
    if len(found) == 1:
        canvas.line((x(found[0].low), middle), (x(found[0].high), middle), f"whisker c{lane.series % COLOURS}")
        canvas.mark((at, middle), lane.series, 4.5, f"{lane.name}: {found[0]}")
    else:
        canvas.line((at, middle - 7), (at, middle + 7), f"median c{lane.series % COLOURS}")
        for share in found:
            canvas.mark((x(share.value), middle), lane.series, 3.2, f"{lane.name}: {share}")
    canvas.text((end, middle + 4), _mean_text(found), "dark", "end")


def _mean_text(found: Sequence[Accuracy]) -> str:
    return f"{100 * mean(share.value for share in found):.1f}" if found else "not run"


# --- P(clean) ---


def roc_curves(record: Record) -> str:
    """For each attack, how many attacked images are noticed (y) at a share of false alarms (x)."""
    side, left, top = 290, 40, 26
    x, y = Scale(0, 1, left, left + side), Scale(0, 1, top + side, top)
    said = (
        "How many attacked images are noticed against false alarms, for each attack; the table beside it has the areas."
    )
    canvas = Canvas(left + side + 12, top + side + 42, said)
    _frame(canvas, x, y, "attacked images noticed, %", "false alarms on clean images, %")
    canvas.line((x(0), y(0)), (x(1), y(1)), "iso")
    for k, result in enumerate(record.attacks.values()):
        curve = torch.tensor(roc(record.clean.p_clean, result.p_clean), dtype=torch.float64).T
        pixels = (4 * side * curve).round()
        moved = torch.cat([torch.tensor([True]), (pixels[1:] != pixels[:-1]).any(1)])  # by a quarter of a pixel
        canvas.path(thinned([(x(a), y(b)) for a, b in curve[moved].tolist()]), attack_class(k, "curve"))
    return canvas.svg()


def attack_class(place: int, kind: str) -> str:
    """The look of the attack at this place of a record, in figures that tell attacks apart."""
    return f"{kind} c{place % ATTACK_COLOURS}{' again' if place >= ATTACK_COLOURS else ''}"


def thinned(points: Sequence[Point], within: float = 0.4) -> list[Point]:
    """The ends, and so many points between them that no other lies further than `within` pixels from the lines
    (Douglas and Peucker, 1973)."""
    kept, pieces = {0, len(points) - 1}, [(0, len(points) - 1)]
    while pieces:
        first, last = pieces.pop()
        (a, b), (c, d) = points[first], points[last]
        length = hypot(c - a, d - b) or 1.0
        off = [
            abs((c - a) * (y - b) - (d - b) * (x - a)) / length if (a, b) != (c, d) else hypot(x - a, y - b)
            for x, y in points[first + 1 : last]
        ]
        if off and max(off) > within:
            far = first + 1 + off.index(max(off))
            kept.add(far)
            pieces += [(first, far), (far, last)]
    return [points[k] for k in sorted(kept)]


def histogram(p: PerExample, class_: str, label: str, bins: int = 40) -> str:
    """A strip of bars over P(clean) from 0 to 1, the tallest as high as the strip."""
    width, height = 240, 30
    p = p[p.isfinite()]
    counts = (p.double().clamp(0, 1) * bins).long().clamp(max=bins - 1).bincount(minlength=bins).tolist()
    canvas = Canvas(width, height, label)
    canvas.line((0, height - 0.5), (width, height - 0.5), "grid")
    for k, count in enumerate(counts):
        if count:
            tall = max((height - 2) * count / max(counts), 1.0)
            canvas.add(
                "rect",
                x=k * width / bins + 0.5,
                y=height - 1 - tall,
                width=width / bins - 1,
                height=tall,
                class_=class_,
            )
    return canvas.svg("strip", stretch=True)


# --- omega ---


def omegas(record: Record, attack: str, *, width: float = 720) -> str:
    """For each dynamic layer the signals on clean images and, below them, on attacked ones: 5 to 95 % and the median.

    At the right, how far an attack moves an image's signals, in units of their deviation between clean images.
    """
    row, top, bar = 30, 34, 8
    clean, moved = record.clean.omega, record.attacks[attack].omega
    layers = [layer for layer in clean if layer in moved]
    look = attack_class(list(record.attacks).index(attack), "")
    names_end = max(text_width(layer) for layer in layers) + 14
    most = max(max(clean[layer].high, moved[layer].high) for layer in layers)
    x = Scale(0, max(1.05 * most, 1.2), names_end, width - 62)
    bottom = top + row * len(layers)
    said = "; ".join(
        f"{layer}: median {clean[layer].median:.2f} clean, {moved[layer].median:.2f} attacked" for layer in layers
    )
    canvas = Canvas(width, bottom + 40, f"Signals of each layer on clean images and under {attack}. {said}.")
    canvas.text((width, 13), "shift", "dark", "end")
    for value in x.ticks(max(int((x.end - x.start) / 70), 2)):
        canvas.line((x(value), top - 6), (x(value), bottom), "grid")
        canvas.text((x(value), bottom + 16), f"{value:.6g}", "pale small", "middle")
    canvas.line((x(1), top - 6), (x(1), bottom), "axis")
    canvas.text((x(1), top - 12), "ω = 1", "pale small", "middle")
    canvas.text((x.end, bottom + 34), "signal ω", "pale small", "end")
    for k, layer in enumerate(layers):
        middle = top + row * (k + 0.5)
        canvas.text((0, middle + 4), layer)
        for omega, y, colour in ((clean[layer], middle - bar, "c7"), (moved[layer], middle + 1, look)):
            left, right = x(omega.low), x(omega.high)
            canvas.add("rect", x=left, y=y, width=max(right - left, 1), height=bar - 1, rx=2, class_=f"range {colour}")
            canvas.line((x(omega.median), y - 1), (x(omega.median), y + bar), f"median {colour}")
        ratio = shift_ratio(record, attack, layer)
        canvas.text((width, middle + 4), "–" if ratio is None else f"{ratio:.2f}", "dark", "end")
    return canvas.svg()


def shift_ratio(record: Record, attack: str, layer: str) -> float | None:
    """How far an attack moves an image's signals, in units of their deviation between clean images; None without any."""
    shift, deviation = record.attacks[attack].omega[layer].shift, record.clean.omega[layer].deviation
    return None if shift is None or deviation < 1e-6 else shift / deviation


# --- training ---


def training(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """A panel for each family of numbers (`validation_clean` and `validation_robust` share one) over the epochs."""
    families: dict[str, dict[str, list[Point]]] = {}
    for k, entry in enumerate(history):
        for key, value in entry.items():
            plain = isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
            if plain and key != "epoch":
                family, _, rest = key.partition("_")
                line = families.setdefault(family, {}).setdefault(rest.replace("_", " ") or family, [])
                line.append((float(entry.get("epoch", k + 1)), float(value)))
    order = sorted(families, key=lambda family: family != "validation")
    families = {family: families[family] for family in order}
    return [_curves(family, lines) for family, lines in families.items() if any(len(p) > 1 for p in lines.values())]


def _curves(family: str, lines: Mapping[str, Sequence[Point]]) -> str:
    width, height, left, top = 300, 190, 40, 30
    values = [value for line in lines.values() for _, value in line]
    shares = family in ("validation", "train", "test", "accuracy") and all(0 <= value <= 1 for value in values)
    several = len(lines) > 1
    column = max(text_width(name) for name in lines) + 12 if several else 6
    epochs = [epoch for line in lines.values() for epoch, _ in line]
    x = Scale(min(epochs), max(epochs), left, width - min(column, 110))
    low, high = min(values), max(values)
    low = 0.0 if 0 <= low < high / 2 and not shares else low
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    y = Scale(*((floor(20 * low) / 20, ceil(20 * high) / 20) if shares else (low, high)), height - 34, top)
    title = family if several else next(iter(lines)) if family in lines else f"{family} {next(iter(lines))}"
    title = f"{title} accuracy, %" if shares else title
    ends = "; ".join(f"{name} {line[0][1]:.4g} to {line[-1][1]:.4g}" for name, line in lines.items())
    canvas = Canvas(width, height, f"{title} over the epochs: {ends}.")
    canvas.text((0, 13), title, "strong")
    for value in y.ticks(4):
        canvas.line((left, y(value)), (x.end, y(value)), "grid")
        canvas.text((left - 7, y(value) + 4), f"{(100 if shares else 1) * value:.3g}", "small", "end")
    for value in (epoch for epoch in x.ticks(5) if epoch == round(epoch)):
        canvas.text((x(value), height - 16), f"{value:.6g}", "small", "middle")
    canvas.text((x.end, height - 2), "epoch", "pale small", "end")
    finals = spread([y(line[-1][1]) for line in lines.values()], 14, top, height - 34)
    for k, ((name, line), final) in enumerate(zip(lines.items(), finals, strict=True)):
        canvas.path([(x(epoch), y(value)) for epoch, value in line], f"curve c{k % COLOURS}")
        if several:
            canvas.text((x.end + 8, final + 4), shorten(name, 98), f"tint c{k % COLOURS}")
    return canvas.svg()


# --- budgets ---


def over_eps(records: Sequence[Record]) -> list[str]:
    """Worst-case accuracy against eps, a figure for each norm; a line for each label that was judged at several."""
    kinds: dict[str, dict[str, dict[float, list[Record]]]] = {}
    for record in records:
        eps = record.threat.get("eps")
        if isinstance(eps, (int, float)):
            of_kind = kinds.setdefault(str(record.threat.get("kind", "")), {})
            of_kind.setdefault(record.label, {}).setdefault(float(eps), []).append(record)
    figures = []
    for kind, labels in kinds.items():
        lines = {label: found for label, found in labels.items() if len(found) > 1}
        if lines:
            figures.append(_over_eps(kind, lines, dict(zip((r.label for r in records), series(records), strict=True))))
    return figures


def _over_eps(kind: str, lines: Mapping[str, Mapping[float, Sequence[Record]]], colours: Mapping[str, int]) -> str:
    width, height, left, top = 620, 340, 40, 30
    unit = 255 if kind == "Linf" else 1
    column = min(max(text_width(label) for label in lines) + 14, 220)
    x = Scale(0, unit * max(eps for found in lines.values() for eps in found), left, width - column)
    y = Scale(0, 1, height - 46, top)
    points: dict[str, list[Point]] = {}
    for label, found in lines.items():
        clean = mean(record.clean_accuracy.value for of_eps in found.values() for record in of_eps)
        held = [(unit * eps, mean(r.worst_accuracy.value for r in found[eps])) for eps in sorted(found) if eps > 0]
        points[label] = [(0.0, clean), *held]
    said = "; ".join(f"{n}: " + ", ".join(f"{100 * v:.1f} at {e:.3g}" for e, v in line) for n, line in points.items())
    canvas = Canvas(width, height, f"Worst-case accuracy in percent against eps. {said}.")
    for value in x.ticks(6):
        canvas.text((x(value), y.start + 18), f"{value:.6g}", "", "middle")
    for value in y.ticks(5):
        canvas.line((left, y(value)), (x.end, y(value)), "grid")
        canvas.text((left - 8, y(value) + 4), f"{100 * value:.6g}", "", "end")
    canvas.text((0, 12), "worst case, % right", "dark")
    canvas.text((x.end, y.start + 38), f"eps{', in 255ths' if unit == 255 else ''} ({kind})", "dark", "end")
    finals = spread([y(line[-1][1]) for line in points.values()], 15, top, y.start)
    for (label, line), final in zip(points.items(), finals, strict=True):
        colour = colours[label]
        drawn = [(x(eps), y(value)) for eps, value in line]
        canvas.path(drawn, f"curve c{colour % COLOURS}")
        for at, (eps, value) in zip(drawn, line, strict=True):
            canvas.mark(at, colour, 4.5, f"{label}: {100 * value:.1f} % at {number(eps)}")
        canvas.text((x.end + 12, final + 4), shorten(label, column - 14), f"tint c{colour % COLOURS}")
    return canvas.svg()
