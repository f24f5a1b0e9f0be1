"""The paper's figures: filter means (Fig. 1 and 3), and A_w by beta and by training method (Fig. 4 and 5)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from awnet.analysis.filter_means import Per
from awnet.analysis.weights import Filters, figures, filters_of
from awnet.checkpoint import load
from awnet.folders import replace_file
from awnet.provenance import provenance
from awnet.report.svg import Canvas, Scale, shorten, standalone
from awnet.report.weights import Panel, filter_densities
from awnet.reproduce.bench import Bench, battery
from awnet.reproduce.measured import Measured, Ours
from awnet.reproduce.printed import TITLES, WeightFigure

SHOWN: Mapping[Per, str] = {"weights": "filter means", "filter": "over their filter's size"}
SAID = {"weights": "as they are", "filter": "norm-free"}


def weight_figure(bench: Bench, figure: WeightFigure, folder: Path) -> str:
    """Draw Fig. 1 or 3 from the networks that are there, and say how wide the robust ones' filter means are.

    Batch norm makes the scale of a filter free, so each is also shown over its own norm.

    Returns:
        A Markdown page, which is written to `folder` too, beside the figure and all its numbers.
    """
    rows: list[list[Panel]] = []
    found: dict[str, Any] = {}
    table = [
        "| | layer | deviation over that of standard | norm-free | Wasserstein distance | kurtosis, standard |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    missing = []
    for architecture, group in figure.groups.items():
        networks: dict[str, Filters] = {}
        for system, how in group.items():
            run = bench.run_folder(figure.data, system)
            if (run / "best").exists():
                networks[how] = filters_of(load(run))
            else:
                missing.append(f"{architecture} by {how}")
        if len(networks) < 2 or "standard" not in networks:
            continue
        numbers = found[architecture] = figures(networks)
        for layer in figure.layers:
            row = []
            for per, said in SHOWN.items():
                samples = {how: f.means[per][f.layers[layer - 1]] for how, f in networks.items()}
                row.append(Panel(f"{architecture}, convolution {layer}: {said}", samples))
            rows.append(row)
            table += [_line(architecture, how, networks, numbers, layer) for how in networks if how != "standard"]
    page = [f"## {figure.name}: {figure.title}"]
    if rows:
        replace_file(folder / f"{figure.name}.svg", standalone(filter_densities(rows)))
        _keep(folder / f"{figure.name}.json", found)
        page += [f"![{figure.title}]({figure.name}.svg)", "\n".join(table)]
        page += [f"Every layer, and the spread over all of them: [{figure.name}.json]({figure.name}.json)."]
    page += [f"Not run: {', '.join(missing)}."] if missing else []
    text = "\n\n".join(page) + "\n"
    replace_file(folder / f"{figure.name}.md", text)
    return text


def _keep(path: Path, found: Mapping[str, Any]) -> None:
    """Write the numbers and where they come from; the same numbers again leave the file as it is, provenance and all."""
    try:
        if json.loads(path.read_text())["networks"] == json.loads(json.dumps(found)):
            return
    except (OSError, ValueError, KeyError):
        pass
    replace_file(path, json.dumps({"networks": found, "provenance": provenance()}, indent=1) + "\n")


def _line(architecture: str, how: str, networks: Mapping[str, Filters], numbers: Mapping[str, Any], layer: int) -> str:
    name = networks[how].layers[layer - 1]
    against = {per: numbers["against standard"][how][per]["layers"].get(name) for per in SHOWN}
    if None in against.values():
        return f"| {architecture}, {how} | {layer} | other shapes | | | |"
    ratios = [
        f"{a['deviation']['value']:.2f} [{a['deviation']['low']:.2f}, {a['deviation']['high']:.2f}]"
        for a in against.values()
    ]
    own, standard = (numbers["networks"][one][networks[one].layers[layer - 1]]["weights"] for one in (how, "standard"))
    moved = against["weights"]["wasserstein"]
    return (
        f"| {architecture}, {how} | {layer} | {ratios[0]} | {ratios[1]} | {moved:.2g} | "
        f"{own['kurtosis']:.1f}, {standard['kurtosis']:.1f} |"
    )


def by_line(found: Measured, *, width: float = 720) -> str:
    """Fig. 4 and 5: for each line a mark for each training, on clean images, under each attack, and A_w."""
    panels: list[tuple[str, Callable[[Ours], list[float]]]] = [("clean", _clean)]
    for attack in found.table.attacks:
        panels.append((TITLES[attack], lambda ours, a=attack: _adversarial(ours, a)))
        panels.append((f"A_w under {TITLES[attack]}", lambda ours, a=attack: [float(e.mean()) for e in ours.each(a)]))
    left, top, row, gap = 110, 30, 24, 40
    each = (width - left + gap) / len(panels)
    bottom = top + row * len(found.lines) + 4
    said = "; ".join(
        f"{ours.line.label} {title}: {', '.join(f'{100 * v:.1f}' for v in values(ours)) or 'not run'}"
        for title, values in panels
        for ours in found.lines
    )
    canvas = Canvas(width, bottom + 20, f"Accuracy in percent. {said}.")
    for n, ours in enumerate(found.lines):
        canvas.text((0, top + row * (n + 0.5) + 6), shorten(ours.line.label, left - 10), "dark")
    for k, (title, values) in enumerate(panels):
        start = left + k * each
        end = start + each - gap
        x = Scale(0, 1, start + 5, end - 34)
        canvas.text((start, 13), title, "strong")
        for value in (0, 0.5, 1):
            canvas.line((x(value), top), (x(value), bottom), "grid")
            canvas.text((x(value), bottom + 14), f"{100 * value:.6g}", "pale small", "middle")
        for n, ours in enumerate(found.lines):
            middle, of_line = top + row * (n + 0.5) + 2, values(ours)
            for value in of_line:
                canvas.mark((x(value), middle), n, 4, f"{ours.line.label}: {100 * value:.1f} %")
            mean = f"{100 * sum(of_line) / len(of_line):.1f}" if of_line else "–"
            canvas.text((end, middle + 4), mean, "dark", "end")
    return canvas.svg()


def _clean(ours: Ours) -> list[float]:
    return [record.clean_accuracy.value for records in ours.records.values() for record in records]


def _adversarial(ours: Ours, attack: str) -> list[float]:
    return [record.robust_accuracy(attack).value for record in ours.records.get(battery(attack), ())]
