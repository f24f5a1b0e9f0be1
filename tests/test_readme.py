"""The README's Python runs as it stands, and its table and links are those of the records."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from awnet.evaluation.record import Record

REPO = Path(__file__).parents[1]
README = (REPO / "README.md").read_text(encoding="utf-8")


def test_the_python_runs() -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, re.S))
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert tuple(names["logits"].shape) == (8, 10)  # pyright: ignore[reportAttributeAccessIssue]


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (REPO / target).exists(), target


@pytest.mark.parametrize(
    ("page", "rows", "attacks", "digits"),
    [
        ("README.md", ("docs/demo", 12), ("fgsm", "pgd-sat", "pgd-trades", "cw-inf"), 1),
        ("README.md", ("docs/cifar10", 6), ("fgsm", "pgd-sat", "pgd-trades"), 2),
        ("docs/cifar10/README.md", ("records", 6), ("fgsm", "pgd-sat", "pgd-trades"), 2),
    ],
)
def test_the_tables_are_those_of_the_records(
    page: str, rows: tuple[str, int], attacks: tuple[str, ...], digits: int
) -> None:
    where, count = rows
    text = (REPO / page).read_text(encoding="utf-8")
    found = re.findall(rf"^\| \[.+\]\(({where}.*)/record\.json\) \| (.+) \|$", text, re.M)
    assert len(found) == count
    for folder, row in found:
        record = Record.load((REPO / page).parent / folder)
        cells = [cell.strip("* ") for cell in row.split("|")]
        assert cells[0] == f"{record.model['parameters'] / 1e6:.2f}"
        expected = [record.clean_accuracy.value, record.worst_accuracy.value]
        expected.append(sum(expected) / 2)
        expected += [record.robust_accuracy(name).value for name in attacks]
        assert cells[1:] == [f"{100 * value:.{digits}f}" for value in expected], folder
