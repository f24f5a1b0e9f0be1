"""JSON that anybody may have written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from awnet import json_file
from awnet.errors import Mistake
from awnet.json_file import read_json


def test_what_json_can_say_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    data = {"é": [1, -(2**63), 0.1 + 0.2, None, True, "ü\n", {"x": []}], "inf": float("inf")}
    file.write_text(json.dumps(data))
    assert read_json(file) == data
    file.write_text('{"x": NaN}')
    assert read_json(file)["x"] != read_json(file)["x"]


def nested(depth: int) -> str:
    return '{"x": ' * (depth - 1) + "{}" + "}" * (depth - 1)


REFUSED = {
    "": "Expecting value",
    "[1]": "is not the description of anything",
    "3": "is not the description of anything",
    '{"x": 1': "delimiter",
    nested(65): "nested too deeply",
    nested(5000): "nested too deeply",
    "[" * 100_000: "nested too deeply",
    f'{{"x": {2**63}}}': "more than 64 bits",
    f'{{"x": 1{"0" * 5000}}}': "cannot read",
    r'{"x": "\ud800"}': "surrogates",
    r'{"\ud800": 1}': "surrogates",
    '{"x": "' + "y" * 200_000 + '"}': "more than 100,000 bytes",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:20])
def test_what_nobody_means_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_file, "LARGEST", 100_000)
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(Mistake, match=REFUSED[text]) as said:
        read_json(tmp_path / "file.json")
    assert "file.json" in str(said.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_bytes(b'{"x": "\xff"}')
    with pytest.raises(Mistake, match="utf-8"):
        read_json(tmp_path / "file.json")


def test_the_deepest_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text(nested(64))
    assert read_json(tmp_path / "file.json")
