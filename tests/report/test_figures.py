import re
from itertools import combinations, pairwise
from math import hypot
from xml.etree import ElementTree

import pytest
import torch

from awnet.evaluation.metrics import roc
from awnet.noise import Noise
from awnet.report import figures
from awnet.report.svg import Box, place_labels, shorten, spread, standalone, text_width, ticks
from report.synthetic import record, scaled

SVG = "{http://www.w3.org/2000/svg}"
NASTY = "<b>\"a\" & 'b'</b>"


def parse(svg):
    """The tree; fails where it is not XML."""
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg" and root.get("role") == "img" and root.get("aria-label")
    assert not [e for e in root.iter() if e.get("id")]  # so that several in one page cannot clash
    assert "nan" not in re.sub(r">[^<]*<", "><", svg) and "inf" not in re.sub(r'aria-label="[^"]*"|>[^<]*<', "", svg)
    return root


def texts(root):
    return [e.text for e in root.iter(f"{SVG}text")]


def centres(root):
    """The middle of each marker, by its title's first words."""
    return {
        e[0].text.split(":")[0]: (float(e.get("cx")), float(e.get("cy"))) for e in root.iter(f"{SVG}circle") if len(e)
    }


@pytest.fixture(scope="module")
def front():
    caps = [(0.1, 0.97, 0.48), (1, 0.99, 0.3), (0.5, 0.98, 0.45)]
    return [record(f"AW-Net, cap {cap}", clean=c, robust=r, tells=1.5, front="AW-Net") for cap, c, r in caps]


def test_every_figure_is_xml_whatever_a_label_holds(front):
    rows = [*front, record(NASTY, history=4, eps=4 / 255), record(NASTY, eps=8 / 255), record("none", n=0)]
    found = [figures.tradeoff(rows), *figures.by_attack(rows), *figures.over_eps(rows), figures.roc_curves(front[0])]
    found += figures.training([{"epoch": 1, f"x_{NASTY}": 1.0}, {"epoch": 2, f"x_{NASTY}": 2.0}])
    found.append(figures.histogram(front[0].clean.p_clean, "bar c1", NASTY))
    found += [*figures.by_attack(rows, width=300, across=1), figures.omegas(scaled(front[0]), "fgsm")]
    assert len(found) > 10
    for svg in found:
        parse(svg)
        parse(standalone(svg))
    assert "<style>" in standalone(found[0])


def test_trade_off_puts_records_where_their_numbers_are(front):
    static = record("static", clean=0.9, robust=0.47)
    root = parse(figures.tradeoff([static, *front]))
    at = centres(root)
    assert set(at) == {"static", *(r.label for r in front)}
    xs, ys = [], []
    for r in [static, *front]:
        xs.append((r.clean_accuracy.value, at[r.label][0]))
        ys.append((r.worst_accuracy.value, -at[r.label][1]))
    for pairs in (xs, ys):  # one straight scale, growing right and up
        slopes = [(v - t) / (b - a) for (a, t), (b, v) in combinations(sorted(pairs), 2) if b - a > 0.005]
        assert min(slopes) > 0 and max(slopes) == pytest.approx(min(slopes), rel=0.05)
    (line,) = (e.get("d") for e in root.iter(f"{SVG}path"))
    order = sorted(front, key=lambda r: r.clean_accuracy.value)
    assert line == "M" + "L".join(f"{at[r.label][0]:g} {at[r.label][1]:g}" for r in order)
    assert {"static", "AW-Net", "cap 0.1", "cap 0.5", "cap 1"} <= set(texts(root))


def test_a_front_named_by_its_path_is_shown_by_its_labels():
    rows = [record(f"digits/awnet{k}", clean=0.9 + c, front="/runs/x") for k, c in (("", 0), (" p_max=0.2", 0.02))]
    assert {"digits/awnet", "as trained", "p_max=0.2"} <= set(texts(parse(figures.tradeoff(rows))))
    elsewhere = [record("a", front="f"), record("b", eps=4 / 255, front="f"), record("c")]
    assert {"a", "c"} <= set(texts(parse(figures.tradeoff(elsewhere))))


def test_trade_off_leaves_other_threats_out_and_needs_two():
    rows = [record("a"), record("b", robust=0.4), record("c", eps=4 / 255)]
    assert set(centres(parse(figures.tradeoff(rows)))) == {"a", "b"}
    assert figures.tradeoff([rows[0], rows[2]]) == ""


def test_iso_lines_join_equal_trade_offs():
    rows = [record("a", clean=0.8, robust=0.3), record("b", clean=0.95, robust=0.5)]
    root = parse(figures.tradeoff(rows, gamma_nat=0.25, gamma_adv=0.75))
    (x0, y0), (x1, y1) = (centres(root)[k] for k in "ab")
    (c0, c1), (w0, w1) = ([getattr(r, k).value for r in rows] for k in ("clean_accuracy", "worst_accuracy"))
    levels = []
    for e in root.iter(f"{SVG}line"):
        if e.get("class") == "iso":
            ends = [(float(e.get(f"x{k}")), float(e.get(f"y{k}"))) for k in "12"]
            back = [(c0 + (x - x0) * (c1 - c0) / (x1 - x0), w0 + (y - y0) * (w1 - w0) / (y1 - y0)) for x, y in ends]
            a, b = (0.25 * c + 0.75 * w for c, w in back)
            assert a == pytest.approx(b, abs=0.002)
            levels.append(a)
    assert len(levels) >= 3 and len({round(100 * (v - levels[0])) for v in levels}) == len(levels)


def test_seeds_are_small_points_around_their_mean():
    rows = [*(record("a", seed=s, luck=s) for s in range(3)), record("b")]
    root = parse(figures.tradeoff(rows))
    at = centres(root)
    assert at["a (mean of 3)"][0] == pytest.approx(sum(at[f"a, seed {s}"][0] for s in range(3)) / 3, abs=0.2)
    assert "a (mean of 3)" in texts(root) and "a, seed 0" not in texts(root)


def test_panels_show_every_accuracy(front):
    rows = [record("static"), *front]
    narrow = [parse(svg) for svg in figures.by_attack(rows, width=300, across=1)]
    assert [texts(panel)[len(rows)] for panel in narrow] == ["clean", "worst case", *front[0].attacks]
    wide = [parse(svg) for svg in figures.by_attack(rows)]
    assert len(wide) == 2, "seven panels, at most five in a row"
    for panels in (narrow, wide):
        said = [text for panel in panels for text in texts(panel)]
        assert said.count("–") == 1, "a static network meets no attack on a router"
        for r in rows:
            found = [r.clean_accuracy, r.worst_accuracy, *map(r.robust_accuracy, r.attacks)]
            assert {f"{100 * a.value:.1f}" for a in found} <= set(said)
    (one,) = figures.by_attack([front[0]])
    assert {"clean", "worst case", "fgsm", "router-pgd"} <= set(texts(parse(one)))


def test_panels_are_where_their_numbers_are(front):
    root = parse(figures.by_attack(front)[0])
    at = sorted(
        (float(e.get("cx")), e[0].text) for e in root.iter(f"{SVG}circle") if e[0].text.startswith(front[0].label)
    )
    shares = [front[0].clean_accuracy, front[0].worst_accuracy, front[0].robust_accuracy("fgsm")]
    assert [text for _, text in at[:3]] == [f"{front[0].label}: {share}" for share in shares]
    ticks_at = [float(e.get("x")) for e in root.iter(f"{SVG}text") if e.text == "100"][:3]
    zeros = [float(e.get("x")) for e in root.iter(f"{SVG}text") if e.text == "0"][:3]
    for (x, _), share, zero, end in zip(at, shares, zeros, ticks_at, strict=False):
        assert (x - zero) / (end - zero) == pytest.approx(share.value, abs=0.01)


def test_seeds_are_one_row_of_a_panel():
    seeds = [record("a", seed=s, luck=s) for s in range(3)]
    root = parse(figures.by_attack([*seeds, record("b")], width=300, across=1)[0])
    assert texts(root)[:2] == ["a", "b"]
    clean = [r.clean_accuracy.value for r in seeds]
    assert f"{100 * sum(clean) / 3:.1f}" in texts(root)
    dots = [float(e.get("cx")) for e in root.iter(f"{SVG}circle") if e[0].text.startswith("a:")]
    (stroke,) = (float(e.get("x1")) for e in root.iter(f"{SVG}line") if "median" in e.get("class"))
    assert len(dots) == 3 and stroke == pytest.approx(sum(dots) / 3, abs=0.1)


def test_omegas_are_those_of_the_record():
    r = scaled(record(tells=1.0))
    root = parse(figures.omegas(r, "pgd-sat"))
    ranges = [e for e in root.iter(f"{SVG}rect")]
    clean, moved = r.clean.omega, r.attacks["pgd-sat"].omega
    medians = [e for e in root.iter(f"{SVG}line") if "median" in e.get("class")]
    expected = [omega for layer in clean for omega in (clean[layer], moved[layer])]
    assert len(ranges) == len(medians) == len(expected) == 8
    one = next(float(e.get("x")) for e in root.iter(f"{SVG}text") if e.text == "ω = 1")
    zero = next(float(e.get("x")) for e in root.iter(f"{SVG}text") if e.text == "0")
    for bar, line, omega in zip(ranges, medians, expected, strict=True):
        left, right = float(bar.get("x")), float(bar.get("x")) + float(bar.get("width"))
        measured = [(x - zero) / (one - zero) for x in (left, float(line.get("x1")), right)]
        assert measured == pytest.approx([omega.low, omega.median, omega.high], abs=0.003)
    shifts = [f"{moved[layer].shift / clean[layer].deviation:.2f}" for layer in clean]
    assert [text for text in texts(root) if text in shifts] == shifts


def test_thinning_moves_a_curve_by_less_than_it_may():
    r = record(n=3000, tells=1.0)
    curve = roc(r.clean.p_clean, r.attacks["fgsm"].p_clean)
    points = [(300 * a, 300 * b) for a, b in zip(*curve, strict=True)]
    kept = figures.thinned(points, 0.4)
    assert kept[0] == points[0] and kept[-1] == points[-1] and len(kept) < len(points) / 5

    def away(p, a, b):
        t = ((p[0] - a[0]) * (b[0] - a[0]) + (p[1] - a[1]) * (b[1] - a[1])) / (
            hypot(b[0] - a[0], b[1] - a[1]) ** 2 or 1
        )
        t = min(max(t, 0), 1)
        return hypot(p[0] - a[0] - t * (b[0] - a[0]), p[1] - a[1] - t * (b[1] - a[1]))

    assert max(min(away(p, a, b) for a, b in pairwise(kept)) for p in points[::7]) <= 0.41


def test_roc_goes_from_corner_to_corner():
    root = parse(figures.roc_curves(record(tells=2.0)))
    paths = [e.get("d") for e in root.iter(f"{SVG}path")]
    assert len(paths) == 5
    for d in paths:
        assert d.startswith("M40 316") and d.endswith("330 26")


def test_bars_are_as_high_as_their_counts():
    p = torch.tensor([0.0] * 4 + [0.999] * 2 + [1.0] * 2 + [0.5])
    bars = list(parse(figures.histogram(p, "bar c0", "x", bins=10)).iter(f"{SVG}rect"))
    assert [float(b.get("height")) for b in bars] == pytest.approx([28, 7, 28])  # 4, 1, 2 + 2
    assert [float(b.get("x")) for b in bars] == [0.5, 120.5, 216.5]


def test_training_gathers_families_and_leaves_out_what_is_no_number():
    history = record(history=6).model["history"]
    history[2]["note"], history[3]["loss"] = "resumed", float("nan")
    panels = [parse(svg) for svg in figures.training(history)]
    assert [texts(p)[0] for p in panels] == ["validation accuracy, %", "loss", "lr factor"]
    assert {"clean", "robust"} <= set(texts(panels[0])) and {"type", "adv"} <= set(texts(panels[1]))
    assert figures.training(history[:1]) == []


def test_eps_needs_several_of_one_label():
    assert figures.over_eps([record("a"), record("b", eps=4 / 255)]) == []
    (svg,) = figures.over_eps([record("a"), record("a", eps=4 / 255, robust=0.7), record("b")])
    root = parse(svg)
    assert [e[0].text.split("% at ")[1] for e in root.iter(f"{SVG}circle")] == ["0", "4", "8"]
    assert "eps, in 255ths (Linf)" in texts(root)


def test_labels_keep_apart():
    noise = Noise(5, torch.arange(12))
    points = [
        (100 + 500 * float(u), 60 + 300 * float(v)) for u, v in zip(noise.uniform(0), noise.uniform(1), strict=True)
    ]
    room = Box(40, 20, 700, 420)
    labels = place_labels(points, [f"network {k}" for k in range(12)], room, [])
    for a, b in combinations(labels, 2):
        assert a.box.overlap(b.box) == 0
    for label in labels:
        assert label.box.overlap(room) == pytest.approx(label.box.area())
        assert sum(label.box.overlap(Box(x - 4, y - 4, x + 4, y + 4)) for x, y in points) == 0


def test_labels_stay_in_the_room():
    room = Box(40, 20, 300, 200)
    corners = [(u, v) for u in (42, 298) for v in (22, 198)]
    for label in place_labels(corners, ["network"] * 4, room, []):
        assert label.box.overlap(room) == pytest.approx(label.box.area())


def test_small_helpers():
    assert ticks(0, 1, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert ticks(0.83, 0.97, 5) == pytest.approx([0.85, 0.9, 0.95])
    assert ticks(1, 1) == [1]
    placed = spread([10, 11, 50, 12], 10, 0, 100)
    assert placed[2] == pytest.approx(50) and sorted(placed) == [placed[0], placed[1], placed[3], placed[2]]
    assert all(b - a >= 9.99 for a, b in zip(sorted(placed), sorted(placed)[1:], strict=False))
    assert shorten("short", 100) == "short"
    cut = shorten("a network with a long name, Linf 4/255", 120)
    assert text_width(cut) <= 120 and cut.startswith("a net") and cut.endswith("/255") and "…" in cut
