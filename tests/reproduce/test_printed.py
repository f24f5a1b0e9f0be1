"""The paper's numbers as we hold them against the paper's text, where that lies beside the project."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from awnet.reproduce.printed import TABLES, Line, Table

PAPER = Path(__file__).parents[3] / "shared" / "paper" / "aw-net.md"
SLIPS = {("table1", "RepVGG-A2", "cw-inf"): 67.90, ("table6", "RepVGG-A2", "pgd-sat from surrogate"): 73.84}


def printed(table: Table, line: Line) -> list[float]:
    """A row in the order of the paper: A_nat, then A_adv and A_w by attack."""
    assert line.clean is not None
    values = [line.clean]
    for attack in table.attacks:
        if attack in line.attacked:
            weighed = line.a_w(attack)
            assert weighed is not None
            values += [line.attacked[attack], SLIPS.get((table.name, line.label, attack), weighed)]
    return values


def section(text: str, number: str) -> str:
    start = text.index(f"TABLE {number}\n") if f"TABLE {number}\n" in text else text.index(f"TABLE {number}  \n")
    following = re.search(r"\nTABLE \d+", text[start + 1 :])
    return text[start : start + 1 + following.start()] if following else text[start:]


@pytest.mark.skipif(not PAPER.exists(), reason="the paper's text is not beside the project")
@pytest.mark.parametrize("name", ["table1", "table2", "table4", "table6", "table7", "table8", "table9"])
def test_every_cell_is_the_papers(name: str):
    table = TABLES[name]
    rows = section(PAPER.read_text(), name.removeprefix("table")).splitlines()
    for line in table.lines:
        plain = (re.sub(r"</?b>|\[\d+\]|\(ours\)|\s", "", row) for row in rows)
        row = next(row for row in plain if row.startswith(line.label.replace(" ", "")) and "%" in row)
        found = [float(number) for number in re.findall(r"(\d+\.\d+)%", row)]
        expected = printed(table, line)
        assert len(found) == len(expected), row
        # A_w is rounded to two digits, in halves either way
        assert all(abs(a - b) < 0.0101 for a, b in zip(found, expected, strict=True)), (row, expected)


@pytest.mark.skipif(not PAPER.exists(), reason="the paper's text is not beside the project")
def test_the_table_of_large_images_is_the_papers():
    table = TABLES["table11"]
    rows = section(PAPER.read_text(), "11").split("The results on the Tiny-ImageNet")[0]
    numbers = [float(n) for n in re.findall(r"(\d+\.\d+)%", rows)]
    expected = [
        value
        for attack in table.attacks
        for line in table.lines
        for value in (line.clean, line.attacked[attack], line.a_w(attack))
        if value is not None
    ]
    assert len(numbers) == len(expected) == 45
    assert all(abs(a - b) < 0.0101 for a, b in zip(numbers, expected, strict=True))


@pytest.mark.parametrize("name", TABLES)
def test_every_system_is_a_recipe(name: str):
    from awnet.experiment import RECIPES
    from awnet.recipes.paper import At
    from awnet.recipes.scale import SCALES

    table = TABLES[name]
    for line in table.lines:
        for scale in SCALES.values():
            assert At(line.data or table.data, scale).name(line.system) in RECIPES, line.label
