"""A record of the bound on the robust accuracy that some time finds (`awnet.evaluation.anytime`)."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from awnet.attacks.attack import Attack
from awnet.attacks.engine import Engine
from awnet.attacks.suite import Suite
from awnet.config import to_json
from awnet.data.dataset import Dataset
from awnet.errors import Mistake
from awnet.evaluation.anytime import IMAGES, Anytime, Point, anytime
from awnet.evaluation.keeping import Keeping
from awnet.evaluation.preflight import Cleared
from awnet.evaluation.record import Record
from awnet.evaluation.remembering import remembering
from awnet.evaluation.shared import Share
from awnet.evaluation.unattacked import attacked_once
from awnet.folders import replace_file
from awnet.threat_model import ThreatModel


def within(
    model: nn.Module,
    dataset: Dataset,
    attacks: Mapping[str, Attack | Suite],
    *,
    seconds: float,
    threat: ThreatModel,
    out: Path,
    name: str = "within the time",
    engine: Engine | None = None,
    images: int = IMAGES,
    seed: int = 0,
    resume: bool = False,
    samples: int = 8,
    keep_adversarials: bool = True,
    cleared: Cleared | None = None,
    watch: Callable[[Point], None] = lambda point: None,
    **said: Any,
) -> Record:
    """Bound the robust accuracy within a time, and keep what shows it.

    The record has one attack, a suite of the rungs that there was time for, so that tables, reports and `verify` read it as any
    other. Beside it lies `curve.csv`, the bound over time.

    Args:
        model, dataset, attacks, threat, engine, images, seed, watch: as of `anytime`.
        seconds: of work, those before an interruption included.
        out: the record's folder.
        name: of the attack in the record.
        resume: go on from where an interrupted run of the same in `out` was.
        samples, keep_adversarials: as of `awnet.evaluation.evaluate`.
        cleared: what a look at the model found.
        said: label, front, about and part, as of `unattacked`.

    Raises:
        Mistake: as `anytime` does, or `out` holds a record or the beginning of one.
    """
    if (out / "record.json").exists():
        raise Mistake(f"{out} holds a record already; choose another --out")
    asked, remarks = cleared or Cleared(model)
    engine = (engine or Engine()).suited(asked, dataset)
    keeping = Keeping(out, Share(), seconds=60.0, images=keep_adversarials)
    with keeping.alone(), remembering(engine, out / "under-way", resume=resume) as remembers:
        found = anytime(
            asked,
            dataset,
            threat,
            seconds=seconds,
            attacks=attacks,
            engine=remembers,
            images=images,
            seed=seed,
            clock=remembers.memory.clock,
            watch=watch,
        )
        looked = dataset.subset(found.places)
        rungs = found.attacks[: max(1, int(found.met.max()))]
        part = {"part": "the first of a random order", "limit": len(looked) if len(looked) < len(dataset) else None}
        outcome = found.outcome._replace(spent=found.outcome.spent[:, : len(rungs)])
        record = attacked_once(
            model,
            asked,
            looked,
            engine,
            name=name,
            outcome=outcome,
            settings={
                "kind": "Anytime",
                "seconds": seconds,
                "attacks": {rung: to_json(attacks[rung]) for rung in rungs},
            },
            seconds=found.curve[-1].seconds,
            members=rungs,
            threat=threat,
            seed=seed,
            samples=samples,
            **{**part, **said},
        ).remarked(remarks)
        replace_file(out / "curve.csv", _curve(found))
        return keeping.save(record, name, outcome)


def _curve(found: Anytime) -> str:
    """The bound over time, a line for each moment."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["seconds", "passes", "attack", "images", "accuracy", "low", "high"])
    for point in found.curve:
        accuracy = point.accuracy
        shares = (f"{share:.6f}" for share in (accuracy.value, accuracy.low, accuracy.high))
        table.writerow([f"{point.seconds:.3f}", point.passes, point.attack or "clean", accuracy.n, *shares])
    return text.getvalue()
