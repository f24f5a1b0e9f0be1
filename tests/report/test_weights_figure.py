"""The figure of filter means, read back as XML."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
import torch

from awnet.report.svg import standalone
from awnet.report.weights import Panel, filter_densities

SVG = "{http://www.w3.org/2000/svg}"
WIDE = torch.linspace(-1, 1, 9).double()


def drawn(rows) -> ElementTree.Element:
    return ElementTree.fromstring(standalone(filter_densities(rows)))


def of_class(root: ElementTree.Element, tag: str, start: str) -> list[ElementTree.Element]:
    return [e for e in root.iter(SVG + tag) if e.get("class", "").startswith(start)]


def heights(path: ElementTree.Element) -> list[float]:
    return [float(point.split()[1]) for point in path.get("d", "")[1:].split("L")]


def test_a_curve_a_stroke_for_each_filter_and_its_deviation():
    root = drawn([[Panel("convolution 2", {"standard": WIDE, "robust <1>": WIDE / 10})]])
    wide, narrow = of_class(root, "path", "curve")
    assert [p.get("class") for p in (wide, narrow)] == ["curve c0", "curve c1"]
    top, bottom = min(heights(narrow)), max(heights(wide))
    assert (bottom - top) / (bottom - min(heights(wide))) == pytest.approx(10, rel=0.05), "ten times as high"
    strokes = [float(e.get("x1", "")) for e in of_class(root, "line", "thin c0")]
    assert len(strokes) == 9 and strokes == sorted(strokes)
    assert strokes[1] - strokes[0] == pytest.approx(strokes[8] - strokes[7], abs=0.2)
    texts = [e.text for e in root.iter(SVG + "text")]
    assert "0.645" in texts and "0.0645" in texts and "robust <1>" in texts
    assert "standard 0.645, robust <1> 0.0645" in root.get("aria-label", "")


def test_names_keep_their_colours_and_rows_their_lanes():
    rows = [
        [Panel("1", {"a": WIDE, "b": WIDE})],
        [Panel("2", {"b": 2 * WIDE, "c": WIDE}), Panel("2 free", {"b": WIDE})],
    ]
    root = drawn(rows)
    assert [p.get("class") for p in of_class(root, "path", "curve")] == [f"curve c{k}" for k in (0, 1, 1, 2, 1)]
    assert [e.text for e in of_class(root, "text", "tint")] == ["a", "b", "b", "c"]
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    for line in root.iter(SVG + "line"):
        assert 0 <= float(line.get("x2", "")) <= width and 0 <= float(line.get("y2", "")) <= height


def test_a_single_value_has_strokes_and_no_curve():
    root = drawn([[Panel("1", {"dead": torch.zeros(3), "alive": WIDE})]])
    assert len(of_class(root, "path", "curve")) == 1 and len(of_class(root, "line", "thin c0")) == 3
    assert not of_class(drawn([[Panel("1", {"dead": torch.zeros(3)})]]), "path", "curve")
