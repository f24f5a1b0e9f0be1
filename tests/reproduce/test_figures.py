"""Figures and Table 5 from what is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from awnet.checkpoint import save_model
from awnet.models import ResNetConfig, create
from awnet.recipes.scale import SMALL
from awnet.reproduce import Bench, table5
from awnet.reproduce.figures import by_line, weight_figure
from awnet.reproduce.measured import Measured
from awnet.reproduce.printed import TABLE5, TABLES, WeightFigure

NARROW = ResNetConfig(depth=10, width=8)
FIGURE = WeightFigure(
    name="fig0",
    title="A figure of the tests",
    layers=(1, 2),
    groups={"ResNet": {"standard": "standard", "resnet18": "MTARD", "trades": "TRADES"}},
)


def saved(bench: Bench, system: str, scale: float) -> None:
    """A run whose second convolution has wider filter means than another's."""
    model = create(NARROW, classes=2, seed=1)
    second = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)][1]
    second.weight.data *= scale
    (bench.run_folder("cifar10", system) / "best").mkdir(parents=True)
    save_model(
        bench.run_folder("cifar10", system) / "best", model, NARROW, {"classes": ("a", "b"), "shape": (3, 32, 32)}
    )


def test_filter_means_are_held_against_the_standard_network(tmp_path: Path):
    bench = Bench(out=tmp_path, scale=SMALL)
    saved(bench, "standard", 1.0)
    saved(bench, "resnet18", 3.0)
    page = weight_figure(bench, FIGURE, tmp_path)
    assert page == (tmp_path / "fig0.md").read_text() and "Not run: ResNet by TRADES." in page
    rows = [row for row in page.splitlines() if row.startswith("| ResNet, MTARD")]
    assert len(rows) == 2  # a layer each
    first, second = ([cell.strip() for cell in row.split("|")[3:5]] for row in rows)
    assert first[0].startswith("1.00 [") and first[1].startswith("1.00 [")
    assert second[0].startswith("3.00 [") and second[1].startswith("1.00 ["), "free of the norm nothing has changed"
    numbers = json.loads((tmp_path / "fig0.json").read_text())["networks"]["ResNet"]
    assert set(numbers["networks"]) == {"standard", "MTARD"}
    assert (tmp_path / "fig0.svg").read_text().startswith("<svg")


def test_another_look_leaves_the_numbers_as_they_are(tmp_path: Path):
    bench = Bench(out=tmp_path, scale=SMALL)
    saved(bench, "standard", 1.0)
    saved(bench, "resnet18", 3.0)
    weight_figure(bench, FIGURE, tmp_path)
    record = tmp_path / "fig0.json"
    record.write_text(record.read_text().replace('"provenance": {', '"provenance": {"machine": "of that day",'))
    before = record.read_text()
    weight_figure(bench, FIGURE, tmp_path)
    assert record.read_text() == before and "of that day" in before
    saved(bench, "trades", 2.0)  # and a third network is another record
    weight_figure(bench, FIGURE, tmp_path)
    after = record.read_text()
    assert "of that day" not in after and "TRADES" in after


def test_without_a_standard_network_nothing_is_drawn(tmp_path: Path):
    bench = Bench(out=tmp_path, scale=SMALL)
    saved(bench, "resnet18", 1.0)
    assert "| ResNet" not in weight_figure(bench, FIGURE, tmp_path) and not (tmp_path / "fig0.svg").exists()


def test_a_figure_of_what_was_not_run_says_so():
    from awnet.reproduce import measured

    found: Measured = measured(Bench(out=Path("nowhere"), scale=SMALL), TABLES["fig5"])
    drawn = by_line(found)
    assert "MTARD AA: not run" in drawn and "<circle" not in drawn


def test_table_5_is_made_of_its_records(tmp_path: Path):
    bench = Bench(out=tmp_path, scale=SMALL)
    assert table5.page(bench, tmp_path).count("not run") == len(TABLE5.lines)
    folder = bench.record_folder("cifar10", "awnet", 0, "detectors")
    folder.mkdir(parents=True)
    figures = {"router": {attack: {"AUC": auc} for attack, auc in zip(TABLE5.attacks, (1.0, 0.98, 0.5), strict=True)}}
    (folder / "detectors.json").write_text(json.dumps({"figures": figures}))
    page = table5.page(bench, tmp_path)
    assert "| 100.00 | 98.00 | 50.00 |" in page and "| +0.0 | −1.9 | −49.9 |" in page
    assert "(small/records/cifar10/awnet/detectors/detectors.json)" in page
    few = zip(TABLE5.attacks, (1.0, 0.98, float("nan")), (80, 57, 0), strict=True)
    figures = {"router": {attack: {"images": 80, "changed": n, "AUC": auc} for attack, auc, n in few}}
    (folder / "detectors.json").write_text(json.dumps({"figures": figures}))
    page = table5.page(bench, tmp_path)
    assert "| 100.00 | 98.00 (57 of 80 changed) | – (0 of 80 changed) |" in page and "| +0.0 | −1.9 | – |" in page


@pytest.mark.parametrize("system", table5.watched())
def test_who_is_watched_can_be_trained(system: str):
    from awnet.experiment import RECIPES

    assert f"small/cifar10/{system}" in RECIPES and f"cifar10/{system}" in RECIPES
