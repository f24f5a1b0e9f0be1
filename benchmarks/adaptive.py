"""How strong the attacks of the adaptive suite are one by one, against APGD-T with as many gradients.

    python benchmarks/adaptive.py --checkpoint runs/digits/awnet --images 200 --out adaptive.json

Accuracy under APGD-T by itself, and under each attack that knows what routes by itself, with as many gradients as APGD-T may
spend on an image. Two backward passes of one forward pass count as two gradients. What is done is kept, so that the command can
be given again after an interruption. Whether the suite as a whole is enough is asked by `awnet evaluate RUN --settle`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from awnet.attacks import Attack, Diversified, Engine, Steer, TensorExamples, adaptive_suite
from awnet.checkpoint import load, read_about
from awnet.config import from_json, to_json
from awnet.data import DataConfig
from awnet.data import load as load_data
from awnet.evaluation.metrics import accuracy
from awnet.models import AWNet
from awnet.models.model import forms_of
from awnet.provenance import provenance
from awnet.threat_model import ThreatModel


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="a run or a checkpoint of this project")
    parser.add_argument("--p-max", type=float, help="AW-Net: the largest weight of the clean batch norms")
    parser.add_argument("--data-dir", help="where the images are")
    parser.add_argument("--split", choices=("test", "validation", "train"), default="test")
    parser.add_argument("--images", type=int, default=200, help="of the split, chosen by seed 0")
    parser.add_argument("--attacks", nargs="+", help="of the suite, one by one beside APGD-T; by default all")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of the search")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="the record, a JSON file")
    return parser.parse_args()


def equal(attack: Attack, gradients: int) -> Attack:
    """The attack with legs as long as so many gradients allow, in runs towards three classes; or fewer diversified starts."""
    if isinstance(attack, Diversified):
        return replace(attack, restarts=max(gradients * attack.restarts // attack.queries, 1))
    assert isinstance(attack, Steer)
    leg = gradients // (2 * 2 * attack.targets) - 1
    return replace(attack, steps=leg, then=leg)


def main() -> None:
    """Run what is missing, and write the record after each attack."""
    options = arguments()
    about = read_about(options.checkpoint)
    model = load(options.checkpoint, device=options.device)
    if options.p_max is not None:
        assert isinstance(model, AWNet)
        model = model.turned(replace(model.knob, p_max=options.p_max))
    threat: ThreatModel = from_json(about["threat"], ThreatModel, "threat")
    config: DataConfig = from_json(about["data"], DataConfig, "data")
    dataset = getattr(load_data(replace(config, data_dir=options.data_dir or config.data_dir)), options.split)
    dataset = dataset.sample(min(options.images, len(dataset)), seed=0)
    x, y = dataset.batch(torch.arange(len(dataset)))
    engine = Engine(batch_size=options.batch, precision=options.precision)
    suite = adaptive_suite(threat, forms_of(model))

    found: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    found |= {
        "settings": {name: value for name, value in vars(options).items() if not isinstance(value, Path)},
        "provenance": {name: value for name, value in provenance().items() if name != "command"},
        "model": {"name": options.checkpoint.name, **{name: about.get(name) for name in ("architecture", "weights")}},
        "data": {"name": dataset.name, "n": len(dataset), "fingerprint": dataset.fingerprint},
        "threat": {**to_json(threat), "text": str(threat)},
    }

    def keep(name: str, correct: Tensor, began: float, **more: Any) -> None:
        share = accuracy(correct)
        found.setdefault("runs", {})[name] = {
            "accuracy": share.value,
            "low": share.low,
            "high": share.high,
            "n": share.n,
            "seconds": round(time.perf_counter() - began, 1),
            "standing": correct.nonzero()[:, 0].tolist(),
            **more,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found) + "\n")
        sys.stderr.write(f"{name}: {share} in {found['runs'][name]['seconds']} s\n")

    def has(name: str) -> bool:
        return name in found.get("runs", {})

    examples, apgd_t = TensorExamples(x, y, dataset.ids), dict(suite.members)["apgd-t"]
    for name, attack in suite.members:
        if has(f"alone/{name}") or name == "apgd-ce":
            continue
        if name != "apgd-t" and name not in (options.attacks or suite.names):
            continue
        began = time.perf_counter()
        attack = attack if attack is apgd_t else equal(attack, apgd_t.queries)
        outcome = engine.run(attack, model, examples)
        keep(f"alone/{name}", outcome.correct, began, gradients=int(outcome.backwards.sum()))


if __name__ == "__main__":
    main()
