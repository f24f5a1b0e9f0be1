"""Whether our AutoAttack comes to the verdicts of the authors' own code, example by example and attack by attack.

    python benchmarks/agreement.py --reference PATH --checkpoint runs/cifar10/awnet --images 1000 --out agreement.json

PATH is a checkout of https://github.com/fra31/auto-attack, which this project neither holds nor imports anywhere else. Both
run on the same correctly classified images, theirs with several seeds: two runs of one program differ too, by their random
starts, and that is the measure for how much ours may differ from the other. "aa" is the whole suite, whose attacks meet who
still stands; the others are one attack by itself. For each

- `agree` is the share of all images, misclassified ones included, on which the first runs of the two have the same verdict;
- `one-sided` counts images that one run breaks and another does not: ours against theirs, theirs against ours, and, as the
  yardstick, each program's first seed against its second;
- `persistent` are images that every run of one program breaks and no run of the other: what luck does not explain;
- `only theirs` looks into each image that their first run breaks and ours does not: its margin, logit of the label less
  the largest other, and how many of five seeds (`--look`) of theirs and of ours break it by itself.

`holds` says whether the two agree on 99 % and ours misses no more than their first seed finds and their second does not,
plus 0.1 % of the images. The record holds the ids of the broken images of every run, and each run is kept as soon as it is
there, so that the command can be given again after an interruption, or with `--programs` for one side at a time.
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
from itertools import product
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from awnet.attacks import ATTACKS, Attack, Engine, Square, Suite, TensorExamples
from awnet.checkpoint import load, read_about
from awnet.config import from_json, to_json
from awnet.data import DataConfig
from awnet.data import load as load_data
from awnet.data.dataset import digest
from awnet.errors import Mistake
from awnet.evaluation.metrics import paired_difference
from awnet.losses import Margin
from awnet.provenance import provenance
from awnet.threat_model import L1, L2, Linf, ThreatModel

NORMS = {"Linf": Linf, "L2": L2, "L1": L1}
NAMES = ("apgd-ce", "apgd-t", "fab-t", "square")
PROGRAMS = ("theirs", "ours")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--reference", type=Path, required=True, help="a checkout of fra31/auto-attack")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a run or a checkpoint of this project")
    parser.add_argument("--data", default="", help="the set of images; by default the one that it was trained on")
    parser.add_argument("--data-dir", help="where that set is")
    parser.add_argument("--images", type=int, default=1000, help="of the split, chosen by seed 0")
    parser.add_argument("--split", choices=("test", "validation", "train"), default="test")
    parser.add_argument("--norm", choices=tuple(NORMS), help="by default that of the checkpoint")
    parser.add_argument("--eps", type=float, help="by default that of the checkpoint")
    parser.add_argument("--attacks", nargs="+", choices=("aa", *NAMES), default=["aa"])
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of our search")
    parser.add_argument("--steps", type=int, default=100, help="of APGD and FAB")
    parser.add_argument("--square-steps", type=int, default=5000)
    parser.add_argument("--seeds", type=int, default=2, help="runs of theirs")
    parser.add_argument("--our-seeds", type=int, default=1, help="runs of ours")
    parser.add_argument(
        "--look", type=int, default=5, help="seeds of the closer look at each image; 0: its margin alone"
    )
    parser.add_argument("--batch", type=int, default=250, help="of theirs")
    parser.add_argument("--our-batch", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="the record, a JSON file")
    return parser.parse_args()


def attack_of(name: str, threat: ThreatModel, options: argparse.Namespace) -> Attack | Suite:
    """Ours, with as many steps as were asked for."""

    def shortened(attack: Attack) -> Attack:
        steps = options.square_steps if isinstance(attack, Square) else options.steps
        return replace(cast(Any, attack), steps=steps)

    attack = ATTACKS[name](threat)
    if isinstance(attack, Suite):
        return Suite(members=tuple((member, shortened(found)) for member, found in attack.members))
    return shortened(attack)


def run_ours(options: argparse.Namespace, model: nn.Module, threat: ThreatModel, name: str, seed: int, of: Any) -> Any:
    """Our attack on images, labels and ids: the adversarial images, and the passes spent."""
    x, y, ids = of
    engine = Engine(batch_size=min(options.our_batch, len(x)), precision=options.precision)
    found = engine.run(attack_of(name, threat, options), model, TensorExamples(x.cpu(), y.cpu(), ids), seed=seed)
    return found.x_adv, {"forwards": int(found.forwards.sum()), "backwards": int(found.backwards.sum())}


def run_theirs(
    options: argparse.Namespace, model: nn.Module, threat: ThreatModel, name: str, seed: int, of: Any
) -> Any:
    """Their attack, with the same settings as ours: the adversarial images; their passes are not counted."""
    sys.path.insert(0, str(options.reference.resolve()))
    auto_attack = importlib.import_module("autoattack").AutoAttack
    with redirect_stdout(StringIO()):
        theirs = auto_attack(
            model, norm=type(threat).__name__, eps=threat.eps, seed=seed, version="standard", device=options.device
        )
        for apgd in (theirs.apgd, theirs.apgd_targeted):
            apgd.n_iter = apgd.n_iter_orig = options.steps
            for field, percent in (("n_iter_2", 22), ("n_iter_min", 6), ("size_decr", 3)):  # of its schedule
                setattr(apgd, field, max(options.steps * percent // 100, 1))
        theirs.fab.n_iter, theirs.square.n_queries = options.steps, options.square_steps
        theirs.attacks_to_run = list(NAMES) if name == "aa" else [name]
        return theirs.run_standard_evaluation(of[0], of[1], bs=options.batch), {}


@torch.no_grad()
def broken(model: nn.Module, threat: ThreatModel, x: Tensor, y: Tensor, x_adv: Tensor, batch: int) -> Tensor:
    """Which images are misclassified and inside the threat model, judged alike for both."""
    prediction = torch.cat([model(part).argmax(1) for part in x_adv.split(batch)])
    return (prediction != y) & threat.contains(x, x_adv)


@torch.no_grad()
def margins(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Logit of the label less the largest other."""
    return -Margin()(model(x), y)


def disagreement(ours: list[Tensor], theirs: list[Tensor], images: int) -> dict[str, Any]:
    """How the runs of two programs differ, from who is broken in each."""

    def only(a: Tensor, b: Tensor) -> int:
        return int((a & ~b).sum())

    gap = paired_difference(ours[0], theirs[0])
    missed = only(theirs[0], ours[0])
    agree = 1 - (missed + only(ours[0], theirs[0])) / images
    found: dict[str, Any] = {
        "broken": {"ours": [int(t.sum()) for t in ours], "theirs": [int(t.sum()) for t in theirs]},
        "agree": agree,
        "one-sided": {"ours, not theirs": only(ours[0], theirs[0]), "theirs, not ours": missed},
        "difference of success rates": {"value": gap.value, "low": gap.low, "high": gap.high},
    }
    for name, runs in (("ours", ours), ("theirs", theirs)):
        if len(runs) > 1:
            found["one-sided"][f"{name}, first seed, not second"] = only(runs[0], runs[1])
            found["one-sided"][f"{name}, second seed, not first"] = only(runs[1], runs[0])
    if len(theirs) > 1:
        found["holds"] = agree >= 0.99 and missed <= only(theirs[0], theirs[1]) + images / 1000
    always = [torch.stack(runs).all(0) for runs in (ours, theirs)]
    ever = [torch.stack(runs).any(0) for runs in (ours, theirs)]
    found["persistent"] = {"ours": only(always[0], ever[1]), "theirs": only(always[1], ever[0])}
    return found


def version(checkout: Path) -> dict[str, str | None]:
    """Of the reference: its commit where it is a git checkout, and a digest of its sources."""
    git = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True)
    sources = (path.read_bytes() for path in sorted((checkout / "autoattack").glob("*.py")))
    return {"repository": "fra31/auto-attack", "commit": git.stdout.strip()[:12] or None, "sources": digest(sources)}


def main() -> None:
    """Run what is missing, and write the record once nothing is."""
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
    dataset = getattr(load_data(config), options.split)
    dataset = dataset.sample(min(options.images, len(dataset)), seed=0)
    x, y = (t.to(options.device) for t in dataset.batch(torch.arange(len(dataset))))
    with torch.no_grad():
        right = torch.cat([model(part).argmax(1) for part in x.split(options.batch)]) == y
    x, y, ids = x[right], y[right], dataset.ids[right.cpu()]

    run = {"ours": run_ours, "theirs": run_theirs}
    kept = options.out.with_suffix(".runs")  # one file a run
    kept.mkdir(parents=True, exist_ok=True)
    hits: dict[str, dict[str, list[Tensor]]] = {name: {"ours": [], "theirs": []} for name in options.attacks}
    seconds: dict[str, dict[str, list[float]]] = {name: {"ours": [], "theirs": []} for name in options.attacks}
    spent: dict[str, Any] = {}
    missing = 0
    seeds = {"theirs": options.seeds, "ours": options.our_seeds}
    runs = [(name, seed, program) for name in options.attacks for program in PROGRAMS for seed in range(seeds[program])]
    for name, seed, program in runs:
        file = kept / f"{name}-{seed}-{program}.json"
        if not file.exists() and program in options.programs:
            began = time.perf_counter()
            x_adv, passes = run[program](options, model, threat, name, seed, (x, y, ids))
            took = time.perf_counter() - began
            hit = broken(model, threat, x, y, x_adv.to(options.device), options.batch)
            file.write_text(json.dumps({"broken": hit.tolist(), "seconds": took, "passes": passes}))
            sys.stderr.write(f"{name}, seed {seed}, {program}: {int(hit.sum())} of {len(x)} broken in {took:.0f} s\n")
        if not file.exists():
            missing += 1
            continue
        one = json.loads(file.read_text())
        hits[name][program].append(torch.tensor(one["broken"]))
        seconds[name][program].append(one["seconds"])
        spent[name] = one["passes"] or spent.get(name)
    if missing:
        sys.stderr.write(f"{missing} runs are missing yet\n")
        return

    closer: dict[str, list[Any]] = {}
    for name, both in hits.items():
        which = (both["theirs"][0] & ~both["ours"][0]).nonzero()[:, 0]
        closer[name] = [{"id": int(ids[i]), "margin": float(margins(model, x[i][None], y[i][None]))} for i in which]
        for program, seed in product(PROGRAMS, range(options.look if len(which) else 0)):
            some = x[which], y[which], ids[which.cpu()]
            x_adv, _ = run[program](options, model, threat, name, seed, some)
            hit = broken(model, threat, *some[:2], x_adv.to(options.device), options.batch)
            for row, found in zip(closer[name], hit.tolist(), strict=True):
                row[f"seeds of {program}"] = row.get(f"seeds of {program}", 0) + found

    where = {name: value for name, value in provenance().items() if name != "command"}  # settings say it without paths
    record = {
        "settings": {name: value for name, value in vars(options).items() if not isinstance(value, Path)},
        "provenance": where,
        "reference": version(options.reference),
        "model": {"name": options.checkpoint.name, **{name: about.get(name) for name in ("architecture", "weights")}},
        "data": {"name": dataset.name, "n": len(dataset), "correct": len(x), "fingerprint": dataset.fingerprint},
        "threat": {**to_json(threat), "text": str(threat)},
        "agreement": {
            name: {**disagreement(runs["ours"], runs["theirs"], len(dataset)), "only theirs": closer[name]}
            for name, runs in hits.items()
        },
        "seconds": seconds,
        "passes of ours, last seed": spent,
        "broken ids": {
            name: {program: [ids[t].tolist() for t in runs[program]] for program in runs} for name, runs in hits.items()
        },
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record) + "\n")
    for name, found in record["agreement"].items():
        sys.stdout.write(f"{name}: {json.dumps(found)}\n")


if __name__ == "__main__":
    main()
