from dataclasses import replace
from io import StringIO

from awnet.evaluation.finding import Finding
from awnet.report.checks import TOLD_BY, doubts
from awnet.report.page import page
from awnet.report.rigour import checked, figures, rich_rigour, summary
from report.synthetic import record


def finding(code, status, **figures):
    return Finding(
        code=code, name=f"check {code}", status=status, figures=figures, meaning=f"{code} <means>.", advice="Do it."
    )


FOUND = (finding("C1", "pass", images=50.0), finding("C2", "fail"), finding("C7", "skipped"), finding("C10", "warn"))


def test_summary():
    assert summary(FOUND) == "1 pass, 1 warn (C10), 1 fail (C2), 1 skipped"
    (rows,) = checked([record(), replace(record("b"), rigour=FOUND)])
    assert (rows.place, rows.name, rows.worst) == (1, "b", "fail") and len(rows.rows) == 4


def test_figures_have_their_unit_behind_the_number():
    found = finding("C4", "pass", **{"accuracy at eps 8/255, %": 12.345, "images": 100.0, "change": 1.5e-7})
    assert list(figures(found)) == [("accuracy at eps 8/255", "12.3\u00a0%"), ("images", "100"), ("change", "1.5e-07")]


def test_the_page_begins_with_them():
    text = page([record("a"), replace(record("b"), rigour=FOUND)], images=False)
    assert text.index('id="rigour"') < text.index('id="doubts"') < text.index('id="numbers"')
    assert text.count('class="badge') == 4 and 'class="badge fail"' in text and "C2 &lt;means&gt;." in text
    assert "1 of 2 records were not put to these checks" in text
    assert 'id="rigour"' not in page([record("a")], images=False)


def test_many_figures_are_folded():
    many = finding("C4", "pass", **{f"figure {k}": float(k) for k in range(9)})
    text = page([replace(record("a"), rigour=(many,))], images=False)
    assert "3 more" in text and text.count("figure 8") == 1


def test_what_a_finding_says_is_no_doubt_too():
    few = record(n=500)
    assert any("Only 500 examples" in doubt.text for doubt in doubts([few]))
    assert doubts([replace(few, rigour=FOUND)]) == []
    assert doubts([replace(few, rigour=FOUND[:1])]) == doubts([few]), "C10 was not among these"
    assert set(TOLD_BY.values()) == {"C10"}


def test_remarks_on_the_model_are_doubts():
    odd = record(n=2000, model={"remarks": ["the model draws random numbers"]})
    (doubt,) = doubts([odd])
    assert doubt.text == "The model draws random numbers." and doubt.grave


def test_in_the_terminal():
    from rich.console import Console

    console = Console(width=120, record=True, file=StringIO())
    console.print(rich_rigour(FOUND))
    said = console.export_text()
    assert "1 fail (C2)" in said and all(f.code in said for f in FOUND) and "Do it." in said
