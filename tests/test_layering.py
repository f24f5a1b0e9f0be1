"""Imports point one way: a file imports from its own folder and from the layers below it, nothing else of the package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "awnet"

# One line a layer, lowest first. Names on one line never import each other, but those of the first line may.
# "awnet" is the package's own __init__.py, the public names.
LAYERS = """
errors interrupt folders json_file noise types registry config threat_model losses processor provenance
data
models
checkpoint modules
attacks
detection
training evaluation conformance
analysis
report
experiment
recipes
export hub public
awnet
demo reproduce
cli
"""
NEVER = {("report", "attacks"), ("report", "training")}  # a report reads records: it reruns and trains nothing
OUTSIDE = {"__init__", "__main__"}  # of the package itself: they may import all of it

LAYER = {name: number for number, line in enumerate(LAYERS.split("\n")) for name in line.split()}
BASE = set(LAYERS.split("\n")[1].split())


def imported(source: str) -> set[str]:
    """The first names below awnet that a source imports, anywhere in it; "awnet" for the package itself."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            below = node.module == "awnet"
            names |= {f"awnet.{alias.name}" for alias in node.names} if below else {str(node.module)}
    return {(name + ".awnet").split(".")[1] for name in names if name.split(".")[0] == "awnet"}


def problems(home: str, source: str) -> list[str]:
    """What is wrong with the imports of a file in awnet/`home`, or of the file awnet/`home`.py."""
    found = []
    for name in sorted(imported(source) - {home}):
        if name not in LAYER:
            found.append(f"imports {name}, which is in no layer: import from where it is defined")
        elif (home, name) in NEVER or not (LAYER[name] < LAYER[home] or {home, name} <= BASE):
            found.append(f"imports {name}, which is not below {home}")
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path):
    home = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if home in OUTSIDE:
        return
    assert home in LAYER, f"give {home} its line in LAYERS"
    found = problems(home, path.read_text())
    assert not found


def test_the_rule_notices_what_it_forbids():
    assert not problems(
        "attacks", "import torch\nfrom awnet.models.resnet import resnet18\nfrom awnet.attacks import PGD"
    )
    assert not problems("registry", "from awnet.errors import unknown")
    for home, source in [
        ("models", "from awnet.attacks import PGD"),
        ("models", "import awnet.attacks.pgd"),
        ("models", "def f():\n    from awnet import training"),
        ("training", "from awnet.evaluation.evaluate import evaluate"),
        ("report", "from awnet.attacks import PGD"),
        ("attacks", "from awnet import PGD"),
        ("attacks", "import awnet"),
        ("errors", "from awnet.data import DATASETS"),
    ]:
        assert len(problems(home, source)) == 1, (home, source)
