"""Table 5: the AUC of detectors that watch a standard network, and of AW-Net's router, by the protocol of NNIF."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isnan
from os.path import relpath
from pathlib import Path
from typing import Any

from awnet.attacks import ATTACKS, Engine
from awnet.checkpoint import load
from awnet.data import DataConfig
from awnet.data import load as load_data
from awnet.detection import DETECTORS
from awnet.evaluation.detectors import compare
from awnet.experiment import Experiment
from awnet.json_file import read_json
from awnet.recipes.paper import CIFAR10, At
from awnet.reproduce.bench import Bench
from awnet.reproduce.printed import TABLE5, TITLES
from awnet.reproduce.show import NOTHING, points

RECORD = "detectors.json"


def watched() -> dict[str, list[str]]:
    """The systems that are watched, and by which detectors."""
    found: dict[str, list[str]] = {}
    for detector, (_, system, _) in TABLE5.lines.items():
        found.setdefault(system, []).append(detector)
    return found


def judge(bench: Bench, system: str, watch: Callable[[str], None] = lambda what: None) -> None:
    """Train a system and judge the detectors that watch it, unless the record is there."""
    out = bench.record_folder(CIFAR10, system, 0, "detectors")
    if (out / RECORD).exists():
        return
    model = load(bench.train(CIFAR10, system, watch=watch), device=bench.device)
    # the training's own validation images, which it has not seen
    splits = load_data(DataConfig(name=CIFAR10, validation=1000, data_dir=bench.data_dir))
    test = splits.test if bench.scale.few is None else splits.test.sample(bench.scale.few, seed=0)
    threat = Experiment().threat
    found = compare(
        model,
        {name: DETECTORS[name] for name in watched()[system]},
        {name: ATTACKS[name](threat) for name in TABLE5.attacks},
        train=splits.train.sample(bench.scale.images or 5000, seed=0),
        validation=splits.validation if bench.scale.few is None else splits.validation.sample(bench.scale.few, seed=0),
        test=test,
        engine=Engine(batch_size=128),
        watch=lambda what: watch(f"{system}: {what}"),
    )
    name = At(CIFAR10, bench.scale).name(system)
    found.save(out, {"model": name, "data": test.name, "split": test.split, "seed": 0, "threat": str(threat)})


def figures(bench: Bench) -> dict[str, Mapping[str, Any]]:
    """What is there, by detector and attack."""
    found: dict[str, Mapping[str, Any]] = {}
    for system in watched():
        file = bench.record_folder(CIFAR10, system, 0, "detectors") / RECORD
        if file.exists():
            found |= read_json(file)["figures"]
    return found


def page(bench: Bench, beside: Path) -> str:
    """As Markdown, for a file in the folder `beside`."""
    there = figures(bench)
    titles = [TITLES[attack].replace("_", "\\_") for attack in TABLE5.attacks]
    lines = [f"| | | {' | '.join(titles)} |", f"| --- | --- |{' ---: |' * len(titles)}"]
    for detector, (label, system, printed) in TABLE5.lines.items():
        theirs = [f"{printed[attack]:.2f}" if attack in printed else NOTHING for attack in TABLE5.attacks]
        lines.append(f"| {label} | paper | {' | '.join(theirs)} |")
        if detector not in there:
            lines.append(f"| | not run |{' |' * len(titles)}")
            continue
        ours = [there[detector][attack] for attack in TABLE5.attacks]
        link = relpath(bench.record_folder(CIFAR10, system, 0, "detectors") / RECORD, beside)
        lines.append(f"| | [ours]({link}) | {' | '.join(map(_shown, ours))} |")
        if printed:
            gaps = [
                points(100 * row["AUC"] - printed[a]) if a in printed and not isnan(row["AUC"]) else NOTHING
                for row, a in zip(ours, TABLE5.attacks, strict=True)
            ]
            lines.append(f"| | difference | {' | '.join(gaps)} |")
    notes = "\n".join(f"- {note}" for note in TABLE5.notes)
    return f"## {TABLE5.name}: {TABLE5.title}\n\n" + "\n".join(lines) + f"\n\n{notes}\n"


def _shown(row: Mapping[str, Any]) -> str:
    """The AUC in percent, and on how many images where the attack did not change all of them; older records do not say."""
    images = row.get("images")
    auc = NOTHING if isnan(row["AUC"]) else f"{100 * row['AUC']:.2f}"
    return auc if row.get("changed", images) == images else f"{auc} ({row['changed']} of {images} changed)"
