"""The whole way on embedded images: teachers, AW-Net and its rivals on digits, every attack, one table, one page.

What it ends with is computed from the records, whichever way it went.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from rich.console import Console
from rich.live import Live
from rich.progress import track
from rich.table import Table
from torch import nn

import awnet.recipes  # noqa: F401 - fills RECIPES
from awnet.attacks import ATTACKS, Engine
from awnet.checkpoint import load, read_about
from awnet.config import to_json
from awnet.data import load as load_data
from awnet.evaluation.evaluate import evaluate
from awnet.evaluation.metrics import accuracy, paired_difference, worst_case
from awnet.evaluation.preflight import Cleared
from awnet.evaluation.record import Record
from awnet.experiment import RECIPES, complete, run
from awnet.models.awnet import AWNet, Knob
from awnet.models.static_mixture import StaticMixture
from awnet.report.figures import tradeoff
from awnet.report.page import write_page
from awnet.report.svg import standalone
from awnet.report.tables import markdown_table, rich_table


@dataclass(frozen=True)
class Row:
    """One line of the table: a network, and the family that it belongs to in the trade-off plot."""

    label: str
    model: nn.Module
    about: dict[str, Any]
    front: str = ""


STUDENTS = ("digits/awnet", "digits/static", "digits/awnet-hard")
TEACHERS = ("digits/standard", "digits/pgd-at")
ADAPTIVE = "adaptive"  # beside the attacks of the recipes, which know of no router


def run_demo(out: Path, *, adaptive: bool = False) -> None:
    """Train what is not there yet, attack everything, print the table and write `out`/report.html.

    With `adaptive`, attackers who know the router come too, which takes several times as long.
    """
    console = Console()
    began = monotonic()
    workers = min(2, os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        console.print("[bold]1. Training[/] five small networks on scikit-learn's digits, 8x8 scans, eps 0.28")
        # Whoever needs no teacher is trained beside the teachers, the others after them.
        teachers = {name: pool.submit(_train, name, out) for name in TEACHERS}
        students = {"digits/awnet-hard": pool.submit(_train, "digits/awnet-hard", out)}
        _show(console, out, teachers, until=teachers)
        students |= {name: pool.submit(_train, name, out) for name in STUDENTS if name not in students}
        _show(console, out, teachers | students, until=students)
        trained = monotonic()

        count = len(rows(out))
        console.print(f"\n[bold]2. Attacking[/] {count} rows of the table with every attack, on all test images")
        records = list(
            track(
                pool.map(_evaluate, repeat(out), range(count), repeat(adaptive)),
                total=count,
                console=console,
                transient=True,
            )
        )

    console.print("\n[bold]3. What came out[/]\n")
    console.print(rich_table(records))
    found = finding(records)
    page = write_page(records, out / "report.html", title="awnet on digits", note=found)
    (out / "tradeoff.svg").write_text(standalone(tradeoff(records)))
    (out / "table.md").write_text(markdown_table(records))
    console.print(f"\n{found}\n", highlight=False)
    spent = f"Trained in {trained - began:.0f} s, attacked in {monotonic() - trained:.0f} s, on {workers} cores."
    console.print(f"{spent} The page: {page}", highlight=False)


def _one_thread() -> None:
    torch.set_num_threads(1)  # networks this small gain more from a second process than from a second thread


def _train(name: str, out: Path) -> None:
    recipe, folder = RECIPES[name](), out / name
    if not complete(folder, recipe):
        run(recipe, folder, resume=folder.exists(), quiet=True)


def _evaluate(out: Path, number: int, adaptive: bool) -> Record:
    """The record of one row, from its file where it has been attacked already."""
    row = rows(out)[number]
    experiment = RECIPES["digits/awnet"]()
    test = load_data(experiment.data).test
    attacks = {name: ATTACKS[name](experiment.threat) for name in (*experiment.attacks, *[ADAPTIVE] * adaptive)}
    folder = re.sub(r"\W+", "-", row.label.lower().replace("≤", "at most").replace("ω", "omega")).strip("-")
    return evaluate(
        row.model,
        test,
        attacks,
        threat=experiment.threat,
        engine=Engine(batch_size=128),
        label=row.label,
        front=row.front,
        about=row.about,
        out=out / "records" / folder,
        resume=True,
        cleared=Cleared(row.model),
    )


def _show(console: Console, out: Path, runs: dict[str, Future[None]], *, until: dict[str, Future[None]]) -> None:
    """A line for each run, from its log, until some of them have ended."""
    with Live(console=console, refresh_per_second=2, transient=True) as live:
        while wait(until.values(), timeout=0.5).not_done:
            live.update(_progress(out, runs))
            for future in (f for f in runs.values() if f.done()):
                future.result()  # a failure ends the demo at once
    for name, future in until.items():
        future.result()
        console.print(f"  {name:18} {(RECIPES[name].__doc__ or '').splitlines()[0]}", highlight=False)


def _progress(out: Path, runs: dict[str, Future[None]]) -> Table:
    table = Table("", "epoch", "loss", "validation: clean", "robust", box=None)
    for name in runs:
        log = out / name / "log.csv"
        lines = list(csv.DictReader(log.open())) if log.exists() else []
        validated = [line for line in lines if line.get("validation_clean")]
        percent = [
            f"{100 * float(validated[-1][k]):.0f} %" if validated and validated[-1].get(k) else ""
            for k in ("validation_clean", "validation_robust")
        ]
        epochs = RECIPES[name]().training.epochs
        table.add_row(name, f"{len(lines)}/{epochs}", f"{float(lines[-1]['loss']):.3f}" if lines else "", *percent)
    return table


def rows(out: Path) -> list[Row]:
    """Every network of the table, in its order."""
    standard, robust, static, paper, hard = (
        load(out / name)
        for name in ("digits/standard", "digits/pgd-at", "digits/static", "digits/awnet", "digits/awnet-hard")
    )
    assert isinstance(paper, AWNet) and isinstance(hard, AWNet)

    def said(name: str, **more: Any) -> dict[str, Any]:
        about = read_about(out / name)
        kept = ("architecture", "selection", "history", "experiment", "epoch")
        return {"checkpoint": str(out / name), **{key: about[key] for key in kept}, **more}

    table = [
        Row("standard teacher", standard, said("digits/standard")),
        Row("robust teacher (PGD-AT)", robust, said("digits/pgd-at")),
        Row("static, MTARD", static, said("digits/static")),
    ]
    for weight in (0.5, 0.2):
        label = f"static mixture, {weight:g} clean"
        table.append(Row(label, StaticMixture(standard, robust, weight=weight), {"weight": weight}, "static mixture"))
    sharp = StaticMixture(standard, robust, weight=0.5, sharpness=3.0)
    table.append(Row("static mixture, robust sharpened", sharp, {"weight": 0.5, "sharpness": 3.0}))
    for name, label, network in (
        ("digits/awnet", "AW-Net", paper),
        ("digits/awnet-hard", "AW-Net hard labels, ω = 1", hard),
    ):
        for p_max in (1.0, 0.5, 0.2):
            knob: Knob = replace(network.knob, p_max=p_max)
            row = label if p_max == 1 else f"{label}, P ≤ {p_max:g}"
            table.append(Row(row, network.turned(knob), said(name, knob=to_json(knob)), label))
    return table


def finding(records: Sequence[Record]) -> str:
    """A plain sentence on whether dividing and ruling paid, whichever way it went."""
    static = [r for r in records if not r.tells_type]
    dynamic = [r for r in records if r.tells_type]
    best_static, best_dynamic = (max(group, key=_score) for group in (static, dynamic))
    gain, low, high = paired_difference(best_dynamic.worst, best_static.worst)
    clean, clean_low, clean_high = paired_difference(best_dynamic.clean.correct, best_static.clean.correct)
    paper = next(r for r in records if r.label == "AW-Net")
    return (
        f"By the mean of clean and worst-case accuracy, the best static row is “{best_static.label}” "
        f"({_both(best_static)}) and the best AW-Net row “{best_dynamic.label}” ({_both(best_dynamic)}): "
        f"{_said(clean, clean_low, clean_high)} clean and {_said(gain, low, high)} worst case. "
        f"The paper's recipe, as small as here, has {_both(paper)}. "
        f"{_steered(dynamic)}"
    )


def _steered(dynamic: Sequence[Record]) -> str:
    """What attackers who know the router add to those who do not, where it is most; or that they were not asked."""
    if not all(ADAPTIVE in record.attacks for record in dynamic):
        return (
            "None of these attacks knows the router, so the numbers of AW-Net are upper bounds: an attacker who steers it "
            "can only do better (`awnet demo --adaptive` shows how much), and a cap on P limits by how much."
        )

    def ignorant(record: Record) -> float:
        others = (result.correct for name, result in record.attacks.items() if name != ADAPTIVE)
        return accuracy(worst_case([record.clean.correct, *others])).value

    most = max(dynamic, key=lambda record: ignorant(record) - record.worst_accuracy.value)
    return (
        f"Attackers who know the router take “{most.label}” from {100 * ignorant(most):.1f} % to "
        f"{100 * most.worst_accuracy.value:.1f} %; a cap on P limits what they can gain by steering it."
    )


def _score(record: Record) -> float:
    return record.clean_accuracy.value + record.worst_accuracy.value


def _both(record: Record) -> str:
    return f"{100 * record.clean_accuracy.value:.1f} % clean, {100 * record.worst_accuracy.value:.1f} % worst case"


def _said(value: float, low: float, high: float) -> str:
    points = f"{100 * value:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
    return f"{points} (not distinguishable)" if low <= 0 <= high else points
