"""The README's Python runs as it stands, and its table and links are those of the records."""

from __future__ import annotations

import re
from pathlib import Path

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


def test_the_table_is_that_of_the_records() -> None:
    rows = re.findall(r"^\| \[.+\]\((docs/demo/records/.+)/record\.json\) \| (.+) \|$", README, re.M)
    assert len(rows) == 12
    for folder, row in rows:
        record = Record.load(REPO / folder)
        cells = [cell.strip("* ") for cell in row.split("|")]
        expected = [record.clean_accuracy.value, record.worst_accuracy.value]
        expected.append(sum(expected) / 2)
        expected += [record.robust_accuracy(name).value for name in ("fgsm", "pgd-sat", "pgd-trades", "cw-inf")]
        assert cells[1:] == [f"{100 * value:.1f}" for value in expected], folder
