"""The committed pages say what the committed records say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from awnet.recipes.scale import SMALL
from awnet.reproduce import TABLES, Bench, markdown, measured, table5

PAGES = Path(__file__).parents[2] / "docs" / "reproduce" / "small"
BENCH = Bench(out=PAGES.parent, scale=SMALL)


@pytest.mark.parametrize("name", TABLES)
def test_a_page_is_made_of_its_records(name: str):
    page = PAGES / f"{name}.md"
    if not page.exists():
        pytest.skip(f"{name} was not run")
    said = page.read_text(encoding="utf-8").split("\n![")[0]
    assert said == markdown(BENCH, measured(BENCH, TABLES[name]), PAGES)
    for link in re.findall(r"\]\(([^)]+)\)", said):
        assert (PAGES / link).exists()


def test_the_page_of_the_detectors_is_made_of_their_records():
    page = PAGES / "table5.md"
    if not page.exists():
        pytest.skip("table5 was not run")
    assert page.read_text(encoding="utf-8") == table5.page(BENCH, PAGES)


def test_the_page_of_all_holds_each():
    if not (PAGES / "README.md").exists():
        pytest.skip("nothing was run")
    whole = (PAGES / "README.md").read_text(encoding="utf-8")
    for page in PAGES.glob("*.md"):
        if page.name != "README.md":
            assert page.read_text(encoding="utf-8") in whole
