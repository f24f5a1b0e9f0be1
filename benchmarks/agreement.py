"""Whether our AutoAttack comes to the verdicts of the authors' own code, example by example and attack by attack.

    python benchmarks/agreement.py --reference PATH --checkpoint runs/cifar10/awnet --images 1000 --out agreement.json

PATH is a checkout of https://github.com/fra31/auto-attack, which this project neither holds nor imports anywhere else. Both
run each attack by itself on the same correctly classified images, twice with different seeds: two runs of one program
differ too, by their random starts, and that is the measure for how much ours may differ from the other. For each attack

- `one-sided` counts images that one run breaks and another does not: ours against theirs, theirs against ours, and, as the
  yardstick, each program's first seed against its second;
- `persistent` are images that every run of one program breaks and no run of the other: what luck does not explain.

"together" takes an image as broken where any of the attacks breaks it, as the suite does. The record holds the ids of the
broken images of every run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from awnet.attacks import ATTACKS, Attack, Engine, Square, TensorExamples
from awnet.checkpoint import load, read_about
from awnet.config import from_json, to_json
from awnet.data import DataConfig
from awnet.data import load as load_data
from awnet.errors import Mistake
from awnet.evaluation.metrics import paired_difference
from awnet.provenance import provenance
from awnet.threat_model import L1, L2, Linf, ThreatModel

NORMS = {"Linf": Linf, "L2": L2, "L1": L1}
NAMES = ("apgd-ce", "apgd-t", "fab-t", "square")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--reference", type=Path, required=True, help="a checkout of fra31/auto-attack")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a run or a checkpoint of this project")
    parser.add_argument("--data", default="", help="the set of images; by default the one that it was trained on")
    parser.add_argument("--data-dir", help="where that set is")
    parser.add_argument("--images", type=int, default=1000, help="of the test split, chosen by seed 0")
    parser.add_argument("--norm", choices=tuple(NORMS), help="by default that of the checkpoint")
    parser.add_argument("--eps", type=float, help="by default that of the checkpoint")
    parser.add_argument("--attacks", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--steps", type=int, default=100, help="of APGD and FAB")
    parser.add_argument("--square-steps", type=int, default=5000)
    parser.add_argument("--seeds", type=int, default=2, help="runs of each program")
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="the record, a JSON file")
    return parser.parse_args()


def shortened(attack: Attack, options: argparse.Namespace) -> Attack:
    """The attack with as many steps as were asked for."""
    steps = options.square_steps if isinstance(attack, Square) else options.steps
    return replace(attack, steps=steps)  # pyright: ignore[reportCallIssue]


def reference(options: argparse.Namespace, model: nn.Module, threat: ThreatModel, seed: int) -> Any:
    """Their AutoAttack, with the same settings as ours."""
    sys.path.insert(0, str(options.reference.resolve()))
    auto_attack = importlib.import_module("autoattack").AutoAttack
    theirs = auto_attack(
        model, norm=type(threat).__name__, eps=threat.eps, seed=seed, version="standard", device=options.device
    )
    for apgd in (theirs.apgd, theirs.apgd_targeted):
        apgd.__init__(
            model,
            n_iter=options.steps,
            norm=apgd.norm,
            n_restarts=apgd.n_restarts,
            eps=threat.eps,
            seed=seed,
            device=options.device,
            use_largereps=apgd.use_largereps,
            logger=theirs.logger,
            **({"n_target_classes": apgd.n_target_classes} if apgd is theirs.apgd_targeted else {}),
        )
    theirs.fab.n_iter, theirs.square.n_queries = options.steps, options.square_steps
    return theirs


@torch.no_grad()
def broken(model: nn.Module, threat: ThreatModel, x: Tensor, y: Tensor, x_adv: Tensor, batch: int) -> Tensor:
    """Which images are misclassified and inside the threat model, judged alike for both."""
    prediction = torch.cat([model(part).argmax(1) for part in x_adv.split(batch)])
    return (prediction != y) & threat.contains(x, x_adv)


def disagreement(ours: list[Tensor], theirs: list[Tensor]) -> dict[str, Any]:
    """How the runs of two programs differ, from who is broken in each."""

    def only(a: Tensor, b: Tensor) -> int:
        return int((a & ~b).sum())

    gap = paired_difference(ours[0], theirs[0])
    found: dict[str, Any] = {
        "broken": {"ours": [int(t.sum()) for t in ours], "theirs": [int(t.sum()) for t in theirs]},
        "one-sided": {"ours, not theirs": only(ours[0], theirs[0]), "theirs, not ours": only(theirs[0], ours[0])},
        "difference of success rates": {"value": gap.value, "low": gap.low, "high": gap.high},
    }
    if len(ours) > 1:
        for name, runs in (("ours", ours), ("theirs", theirs)):
            found["one-sided"][f"{name}, first seed, not second"] = only(runs[0], runs[1])
            found["one-sided"][f"{name}, second seed, not first"] = only(runs[1], runs[0])
    always = [torch.stack(runs).all(0) for runs in (ours, theirs)]
    ever = [torch.stack(runs).any(0) for runs in (ours, theirs)]
    found["persistent"] = {"ours": only(always[0], ever[1]), "theirs": only(always[1], ever[0])}
    return found


def commit(checkout: Path) -> str | None:
    """Of the reference, where it is a git checkout."""
    git = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True)
    return git.stdout.strip()[:12] or None


def main() -> None:
    """Runs both, and writes the record."""
    options = arguments()
    about = read_about(options.checkpoint)
    model = load(options.checkpoint, device=options.device)
    trained: ThreatModel = from_json(about["threat"], ThreatModel, "threat")
    norm = NORMS[options.norm] if options.norm else type(trained)
    if norm is not type(trained) and options.eps is None:
        raise Mistake(f"the norm is changed from {trained}: give its eps too")
    threat = norm(trained.eps if options.eps is None else options.eps)
    config: DataConfig = from_json(about["data"], DataConfig, "data")
    config = replace(config, name=options.data or config.name, data_dir=options.data_dir or config.data_dir)
    dataset = load_data(config).test
    dataset = dataset.sample(min(options.images, len(dataset)), seed=0)
    x, y = (t.to(options.device) for t in dataset.batch(torch.arange(len(dataset))))
    with torch.no_grad():
        right = torch.cat([model(part).argmax(1) for part in x.split(options.batch)]) == y
    x, y, ids = x[right], y[right], dataset.ids[right.cpu()]

    hits: dict[str, dict[str, list[Tensor]]] = {name: {"ours": [], "theirs": []} for name in options.attacks}
    seconds: dict[str, dict[str, list[float]]] = {name: {"ours": [], "theirs": []} for name in options.attacks}
    spent: dict[str, dict[str, float]] = {}
    engine = Engine(batch_size=min(options.batch, len(x)))
    for seed in range(options.seeds):
        theirs = reference(options, model, threat, seed)
        for name in options.attacks:
            began = time.perf_counter()
            attack = ATTACKS[name](threat)
            assert isinstance(attack, Attack)
            attack = shortened(attack, options)
            outcome = engine.run(attack, model, TensorExamples(x.cpu(), y.cpu(), ids), seed=seed)
            seconds[name]["ours"].append(time.perf_counter() - began)
            spent[name] = {"forwards": float(outcome.forwards.sum()), "backwards": float(outcome.backwards.sum())}
            x_adv = outcome.x_adv.to(options.device)
            hits[name]["ours"].append(broken(model, threat, x, y, x_adv, options.batch).cpu())

            began = time.perf_counter()
            theirs.attacks_to_run = [name]
            with redirect_stdout(StringIO()):
                x_adv = theirs.run_standard_evaluation(x, y, bs=options.batch)
            seconds[name]["theirs"].append(time.perf_counter() - began)
            hits[name]["theirs"].append(broken(model, threat, x, y, x_adv, options.batch).cpu())
            counts = {program: int(runs[-1].sum()) for program, runs in hits[name].items()}
            sys.stderr.write(f"seed {seed}, {name}: broken of {len(x)}: {counts}\n")

    together = {
        program: [
            torch.stack([hits[name][program][k] for name in options.attacks]).any(0) for k in range(options.seeds)
        ]
        for program in ("ours", "theirs")
    }
    everything = {**hits, "together": together}
    record = {
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
        "provenance": provenance(),
        "reference": {"repository": "fra31/auto-attack", "commit": commit(options.reference)},
        "model": {name: about.get(name) for name in ("architecture", "weights")},
        "data": {"name": dataset.name, "n": len(dataset), "correct": len(x), "fingerprint": dataset.fingerprint},
        "threat": {**to_json(threat), "text": str(threat)},
        "agreement": {name: disagreement(runs["ours"], runs["theirs"]) for name, runs in everything.items()},
        "seconds": seconds,
        "passes of ours, last seed": spent,
        "broken ids": {
            name: {program: [ids[t].tolist() for t in runs[program]] for program in runs}
            for name, runs in everything.items()
        },
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record) + "\n")
    for name, found in record["agreement"].items():
        sys.stdout.write(f"{name}: {json.dumps(found)}\n")


if __name__ == "__main__":
    main()
