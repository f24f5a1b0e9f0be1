"""A program that runs a training or an evaluation once whole, and again killed with SIGKILL at many moments.

    python kills.py train|evaluate FOLDER SEED

Each attempt is a process of its own, forked after the imports, which begins or resumes in FOLDER/cut-N and is killed: at a
random moment, or by itself at a planted one inside a save. It prints a row of JSON for each kill; what is left in
FOLDER/whole and in each FOLDER/cut-N is for the caller to compare.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch
from torch.utils.tensorboard.writer import SummaryWriter  # noqa: F401 - so that no child has to

from awnet.attacks import Attack, pgd_trades
from awnet.attacks.engine import Engine
from awnet.attacks.sweep import Sweep
from awnet.checkpoint import read_state
from awnet.data import DataConfig, load
from awnet.evaluation.evaluate import evaluate
from awnet.experiment import Experiment, Selection, run
from awnet.folders import whole_folder
from awnet.models import AWNetConfig, ResNetConfig, RouterConfig, create
from awnet.threat_model import Linf
from awnet.training import JointConfig, MTARDConfig, TrainingConfig

KILLS = 12
NARROW = ResNetConfig(depth=10, width=4)
DYNAMIC = AWNetConfig(base=NARROW, router=RouterConfig(backbone=NARROW))
THREAT = Linf(0.1)
EXPERIMENT = Experiment(
    name="killed",
    data=DataConfig(name="digits", validation=0.9),
    model=DYNAMIC,
    objective=JointConfig(over=MTARDConfig(steps=1, weight_lr=0.3)),
    threat=THREAT,
    training=TrainingConfig(epochs=4, batch_size=32, ema=0.9, statistics_images=32, save_seconds=0.1),
    selection=Selection(attack="fgsm", limit=20),
)

SPLITS = load(EXPERIMENT.data)  # and with it whatever is imported late, once for all children


def train(out: Path, resume: bool) -> None:
    """An AW-Net by MTARD: weights, average of weights, momentum, alphas, best checkpoint, log."""
    teachers = {
        role: create(NARROW, classes=10, channels=1, seed=seed) for seed, role in enumerate(("clean", "robust"))
    }
    run(EXPERIMENT, out, resume=resume, quiet=True, teachers=teachers, splits=SPLITS)


def judge(out: Path, resume: bool) -> None:
    """Two attacks: one whose examples leave early and one whose examples all stay to the end."""
    model = create(DYNAMIC, classes=10, channels=1)
    steps = pgd_trades(THREAT)
    attacks: dict[str, Attack] = {"stops": replace(steps, stop_on_success=True), "goes on": replace(steps, steps=40)}
    engine = Engine(batch_size=64)
    more = {"out": out, "resume": resume, "save_seconds": 0.1}
    evaluate(model, SPLITS.test, attacks, threat=THREAT, engine=engine, limit=200, **more)


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(owner: object, name: str, number: int) -> None:
    """SIGKILL in place of the number-th call of a function."""
    original, calls = getattr(owner, name), count()
    setattr(owner, name, lambda *args: die() if next(calls) == number else original(*args))


INSIDE_A_SAVE: dict[str, Callable[[], None]] = {
    "inside a save, while files are written": lambda: die_at(os, "fsync", 3),
    "inside a save, between its two renames": lambda: die_at(Path, "rename", 3),  # the odd ones put the new in place
}


def child(work: Callable[[Path, bool], None], out: Path, planted: Callable[[], None] | None = None) -> int:
    """Begin or resume in a process of its own; its number."""
    if pid := os.fork():
        return pid
    try:
        torch.set_num_threads(1)
        if planted:
            planted()
        work(out, out.exists())
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def ended(pid: int) -> bool:
    """Whether a process came to its end by itself; False if it was killed."""
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, "an attempt failed"
    return os.WIFEXITED(status)


def where(out: Path) -> str:
    """What a kill left behind."""
    found = []
    if (whole_folder(out / "last") / "training.json").exists():
        place = read_state(out / "last")["place"]
        found.append(f"epoch {place['epoch'] + 1}, step {place['step']}")
    if (whole_folder(out / "journal") / "training.json").exists():
        journal = read_state(out / "journal")
        left, _ = journal["sweep"][Sweep._fields.index("left")]
        found.append(f"in the attack {journal['of']['attack']!r}, {int(left.sum())} images done")
    half = sorted(path.name for path in out.glob("*.p*") if path.suffix in (".part", ".previous"))
    return ", ".join([*found, *(f"{name} left" for name in half)]) or "nothing saved"


def main(what: str, folder: Path, seed: int) -> None:
    work = {"train": train, "evaluate": judge}[what]
    chance = random.Random(seed)
    began = time.monotonic()
    assert ended(child(work, folder / "whole"))
    whole = time.monotonic() - began
    planted = list(INSIDE_A_SAVE.items())
    kills, number = 0, 0
    while kills < KILLS or planted:
        out = folder / f"cut-{number}"
        if planted and out.exists():
            moment, plant = planted.pop()
            pid = child(work, out, plant)
        else:
            delay = chance.uniform(0.05, 0.5) * whole
            moment = f"after {delay:.2f} s"
            pid = child(work, out)
            time.sleep(delay)
            os.kill(pid, signal.SIGKILL)
        if ended(pid):
            number += 1
            continue
        kills += 1
        sys.stdout.write(json.dumps({"folder": out.name, "killed": moment, "left": where(out)}) + "\n")
        sys.stdout.flush()
    assert ended(child(work, folder / f"cut-{number}"))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
