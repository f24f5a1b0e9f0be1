"""awnet predict: classify image files, and say whether they look attacked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from awnet.cli.arguments import parse
from awnet.cli.checkpoints import load_checkpoint
from awnet.errors import Mistake

if TYPE_CHECKING:
    from awnet.detection.operating_point import OperatingPoint


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Classify image files: class, probability, and for a model that tells, P(adversarial)."""

    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files."""
    model: Path
    """A checkpoint, or a run's folder."""
    json: bool = False
    """Print one JSON object a line instead of a table."""
    device: str = "cpu"
    """cpu or cuda."""


def predict(argv: Sequence[str]) -> None:
    """Classify image files."""
    import torch

    from awnet.attacks.frozen import frozen_for_attack
    from awnet.config import from_json
    from awnet.data.decode import read_image
    from awnet.detection.operating_point import OperatingPoint, looks_attacked
    from awnet.models.model import judge

    options = parse(Predict, argv, "awnet predict")
    if not options.images:
        raise Mistake("expected at least one image: awnet predict IMAGE... --model RUN")
    model, about = load_checkpoint(options.model, options.device)
    shape = tuple(about["shape"])
    x = torch.stack([torch.from_numpy(read_image(path, shape).copy()) for path in options.images]).float() / 255
    with torch.no_grad(), frozen_for_attack(model):
        logits, p_clean = judge(model, x.to(options.device))
    probability, index = logits.softmax(1).max(1)
    points = [from_json(point, OperatingPoint, "detector") for point in about.get("detector", [])]
    rows = []
    for i, path in enumerate(options.images):
        told = not p_clean[i].isnan()
        alarms = {f"{point.false_alarms:g}": bool(looks_attacked(p_clean[i], point)) for point in points}
        rows.append(
            {
                "image": str(path),
                "class": about["classes"][int(index[i])],
                "probability": round(float(probability[i]), 4),
                "p_adversarial": float(f"{1 - float(p_clean[i]):.4g}") if told else None,
                "looks_attacked": alarms if told and points else None,
            }
        )
    if options.json:
        for row in rows:
            print(json.dumps(row))
        return
    table = Table("image", "class", "probability", "P(adversarial)", "looks attacked", box=None)
    for row in rows:
        p = "not told" if row["p_adversarial"] is None else f"{row['p_adversarial']:.2g}"
        names = (escape(row[key]) for key in ("image", "class"))  # in brackets they would be taken for styles
        table.add_row(*names, f"{row['probability']:.3f}", p, _verdict(row["looks_attacked"]))
    Console().print(table)
    if not p_clean.isnan().any():
        Console().print(what_it_means(points), style="dim", highlight=False)


def _verdict(alarms: dict[str, bool] | None) -> str:
    """yes at the strictest operating point, perhaps at another one alone."""
    if alarms is None:
        return "not told"
    first, *others = alarms.values()
    return "yes" if first else "perhaps" if any(others) else "no"


def what_it_means(points: Sequence[OperatingPoint]) -> str:
    """What "yes", "perhaps" and "no" say, and what they do not."""
    if not points:
        return (
            "This checkpoint has no operating points, so it cannot say what looks attacked; awnet calibrate sets them."
        )
    words = "yes", "perhaps"
    said = [
        f"“{word}” above P(adversarial) = {1 - p.threshold:.2g}, as {p.false_alarms:.0%} of clean images are, wrongly"
        for word, p in zip(words, points, strict=False)
    ]
    return (
        f"{'; '.join(said)} (set on {points[0].images} {points[0].split} images). Clean images of another kind may be "
        "called so more often, and an attacker who knows the router can evade it: “no” does not prove an image clean."
    )
