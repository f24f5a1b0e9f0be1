import csv
import re
from io import StringIO
from pathlib import Path
from statistics import mean, stdev

import pytest
from rich.console import Console

from awnet.errors import Mistake
from awnet.evaluation.metrics import w_robust
from awnet.report.tables import (
    MISSING,
    csv_table,
    front_names,
    latex_table,
    markdown_table,
    names,
    rich_table,
    series,
    table,
    write_table,
)
from report.synthetic import record


@pytest.fixture(scope="module")
def records():
    return [
        record("static", robust=0.47),
        record("AW-Net, cap 0.2", clean=0.96, robust=0.5, luck=1, tells=1.5, front="AW-Net"),
        record("AW-Net, cap 1", clean=0.97, robust=0.3, luck=2, tells=1.5, front="AW-Net"),
    ]


def test_every_number_is_that_of_the_record(records):
    found = table(records, gamma_nat=0.3, gamma_adv=0.7, per_attack=True)
    for row, r in zip(found.rows, records, strict=True):
        cells = dict(zip((c.title for c in found.columns), row.cells, strict=True))
        assert cells["clean"].value == r.clean_accuracy.value
        assert (cells["worst case"].low, cells["worst case"].high) == r.worst_accuracy[1:3]
        assert cells["A_w"].value == w_robust(r.clean_accuracy.value, r.worst_accuracy.value, 0.3, 0.7)
        for name in r.attacks:
            robust = r.robust_accuracy(name)
            assert cells[name].value == robust.value
            assert cells[f"A_w, {name}"].value == w_robust(r.clean_accuracy.value, robust.value, 0.3, 0.7)
    assert {row.parameters for row in found.rows} == {11_173_962}


def test_markdown_says_the_same_and_marks_the_best(records):
    header, rule, *body = (line.strip("|").split("|") for line in markdown_table(records).splitlines())
    header = [title.strip().replace("\\", "") for title in header]
    assert header[:5] == ["model", "10^6 param.", "clean", "worst case", "A_w"] and "router-pgd" in header
    assert len(rule) == len(header) and len(body) == len(records)
    for column, values in {
        "clean": [r.clean_accuracy.value for r in records],
        "worst case": [r.worst_accuracy.value for r in records],
        "cw-inf": [r.robust_accuracy("cw-inf").value for r in records],
    }.items():
        said = [line[header.index(column)].strip() for line in body]
        assert said == [f"**{100 * v:.1f}**" if v == max(values) else f"{100 * v:.1f}" for v in values]
    assert body[0][header.index("router-pgd")].strip() == MISSING
    assert [line[1].strip() for line in body] == ["11.2"] * 3


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(text)))


def test_csv_says_the_same_with_intervals(records):
    rows = rows_of(csv_table(records, gamma_nat=0.3, gamma_adv=0.7, per_attack=True))
    assert [row["model"] for row in rows] == [r.label for r in records] and rows[0]["parameters"] == "11173962"
    for row, r in zip(rows, records, strict=True):
        for title, found in {
            "clean": r.clean_accuracy,
            "worst case": r.worst_accuracy,
            "cw-inf": r.robust_accuracy("cw-inf"),
        }.items():
            said = [float(row[title + part]) for part in ("", " low", " high")]
            assert said == pytest.approx([100 * v for v in found[:3]], abs=1e-4)
        assert float(row["A_w"]) == pytest.approx(
            100 * w_robust(r.clean_accuracy.value, r.worst_accuracy.value, 0.3, 0.7), abs=1e-4
        )
    assert rows[0]["router-pgd"] == rows[0]["router-pgd low"] == rows[0]["A_w, router-pgd"] == ""
    assert "clean deviation" not in rows[0] and "A_w low" not in rows[0]


def test_csv_has_means_and_their_seeds():
    seeds = [record("AW-Net", robust=0.4 + 0.02 * s, seed=s, luck=s) for s in range(3)]
    rows = rows_of(csv_table([*seeds, record("static")]))
    assert len(rows) == 5 and rows[0]["clean low"] == rows[1]["clean deviation"] == ""
    worst = [100 * r.worst_accuracy.value for r in seeds]
    said = [float(rows[0][title]) for title in ("worst case", "worst case deviation")]
    assert said == pytest.approx([mean(worst), stdev(worst)], abs=1e-4)


@pytest.mark.parametrize("label", ['a "quoted", one', "two\nlines", "=1+1", "a;b"])
def test_labels_come_back_from_csv(label):
    assert [row["model"] for row in rows_of(csv_table([record(label), record("other")]))] == [label, "other"]


@pytest.mark.parametrize(("ending", "write"), [(".md", markdown_table), (".tex", latex_table), (".csv", csv_table)])
def test_the_ending_says_which(ending, write, records, tmp_path: Path):
    path = write_table(records, tmp_path / f"new/table{ending}", gamma_nat=0.2, gamma_adv=0.8)
    assert path.read_text() == write(records, gamma_nat=0.2, gamma_adv=0.8)


@pytest.mark.parametrize("name", ["table.html", "table"])
def test_another_ending_is_a_mistake(name, records, tmp_path: Path):
    with pytest.raises(Mistake, match=f"end in .md, .tex or .csv, got '{name}'"):
        write_table(records, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_second_decimal_needs_many_examples():
    assert "| 89.80 |" in markdown_table([record(n=5000)]) or re.search(
        r"\| \d\d\.\d\d \|", markdown_table([record(n=5000)])
    )
    assert not re.search(r"\d\d\.\d\d", markdown_table([record(n=5000), record(n=4999)]).replace("10^6", ""))


def test_one_row_is_no_best():
    assert "**" not in markdown_table([record()])


def test_the_best_is_of_its_own_threat_model():
    rows = [record("a", robust=0.5), record("b", robust=0.4), record("a", robust=0.7, eps=4 / 255)]
    found = table([*rows, record("b", robust=0.6, eps=4 / 255)])
    assert [row.cells[1].best for row in found.rows] == [True, False, True, False]
    assert [row.short for row in found.rows] == ["a", "b", "a", "b"]
    assert "| a | Linf 4/255 |" in markdown_table(rows) and "threat" not in markdown_table(rows[:2])


def test_seeds_of_a_label_get_their_mean():
    seeds = [record("AW-Net", robust=0.4 + 0.02 * s, seed=s, luck=s) for s in range(3)]
    found = table([*seeds, record("static")])
    assert [row.name for row in found.rows] == [
        "AW-Net (mean of 3)",
        *(f"AW-Net, seed {s}" for s in range(3)),
        "static",
    ]
    assert [row.name for row in found.main] == ["AW-Net (mean of 3)", "static"]
    worst = [r.worst_accuracy.value for r in seeds]
    cell = found.rows[0].cells[1]
    assert (cell.value, cell.deviation) == pytest.approx((mean(worst), stdev(worst)))
    text = markdown_table([*seeds, record("static", robust=0.3)])
    assert f"| **{100 * mean(worst):.1f} ± {100 * stdev(worst):.1f}** |" in text and "seed" not in text
    assert not any(cell.best for row in found.rows if row.merged for cell in row.cells)


def test_names_are_all_different():
    rows = [record("a"), record("a"), record("a", eps=4 / 255), record("b", seed=1), record("b", seed=2), record("c")]
    assert names(rows) == ["a, Linf 8/255", "a, Linf 8/255 #2", "a, Linf 4/255", "b, seed 1", "b, seed 2", "c"]


@pytest.mark.parametrize(
    "label", ["a|b", "*bold*", "<b>x</b>", "under_score", "[red]x[/red]", "50 % & $3 #1 {x} \\y ~^"]
)
def test_labels_cannot_break_a_table(label):
    records = [record(label), record("other")]
    lines = markdown_table(records).splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(re.findall(r"\|", lines[1]))}
    assert not re.search(r"(?<!\\)[<_\[]", lines[2])
    assert re.sub(r"\\([^a-zA-Z0-9\s])", r"\1", lines[2]).startswith(f"| {label} |")  # as CommonMark undoes it

    body = latex_table(records).split("\\midrule\n")[1].splitlines()[0]
    assert body.endswith(r" \\") and not re.search(r"(?<!\\)[%$#_~^]", body.replace(r" \\", "").replace(r"\textbf", ""))
    assert (
        len(re.findall(r"(?<!\\)&", body))
        == len(re.findall("[lr]", latex_table(records).split("{")[2].split("}")[0])) - 1
    )

    console = Console(width=200, file=StringIO())
    console.print(rich_table(records))
    assert label in console.file.getvalue()


def test_a_front_is_called_by_what_its_labels_share():
    knob = [record(f"digits/awnet{k}", front="/a/path/run") for k in ("", " p_max=0.2", " p_max=0.5")]
    cap = [record(f"AW-Net, cap {k}", front="AW-Net") for k in (0.05, 0.1)]
    odd = [record(k, front="/a/path/odd") for k in ("x", "y")]
    assert front_names([*knob, *cap, *odd]) == {"/a/path/run": "digits/awnet", "AW-Net": "AW-Net", "/a/path/odd": "odd"}


def test_one_colour_for_a_front_and_for_a_label():
    rows = [record("a", front="f"), record("b"), record("c", front="f"), record("b", seed=1), record("c", front="g")]
    assert series(rows) == [0, 1, 0, 1, 0]


def test_no_record_is_a_mistake():
    for write in (table, markdown_table, latex_table, csv_table, rich_table):
        with pytest.raises(Mistake, match="at least one record"):
            write([])


@pytest.mark.parametrize("weights", [(-1, 3), (3, -1), (0, 0), (float("nan"), 1)])
def test_weights_that_weigh_nothing_are_a_mistake(weights):
    with pytest.raises(Mistake, match="weights of A_w"):
        table([record()], gamma_nat=weights[0], gamma_adv=weights[1])
