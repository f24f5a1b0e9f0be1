"""awnet export: a checkpoint for use elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from awnet.cli.arguments import parse
from awnet.cli.checkpoints import asked_of_knob, load_checkpoint, turned
from awnet.cli.records import read_records
from awnet.errors import Mistake


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a checkpoint for use elsewhere, and check that what was written computes the same."""

    checkpoint: tyro.conf.Positional[Path]
    """A checkpoint, or a run's folder, whose best checkpoint is meant."""
    to: Literal["onnx", "torch", "hub"]
    """ONNX, a PyTorch program (torch.export), or a folder in the layout of the Hugging Face hub with a model card."""
    out: Path
    """The file, ending in .onnx or .pt2, or the folder."""
    type_bias: float | None = None
    """AW-Net, to a file: added to the log-odds of clean."""
    p_max: float | None = None
    """AW-Net, to a file: the largest weight of the clean batch norms."""
    omega: bool | None = None
    """AW-Net, to a file: whether the router scales the filters."""
    records: tuple[Path, ...] = ()
    """To the hub: the records of its card; those in the run's folder by default."""
    license: str = "mit"
    """To the hub: of the weights."""


def export(argv: Sequence[str]) -> None:
    """Write a checkpoint for use elsewhere."""
    options = parse(Export, argv, "awnet export")
    if options.to == "hub":
        from awnet.hub import save_pretrained

        if asked_of_knob(options):
            raise Mistake("a folder for the hub keeps the knob as it is; turn it once it is loaded: model.turned(Knob)")
        records = read_records(options.records) if options.records else None
        folder = save_pretrained(options.checkpoint, options.out, records=records, license=options.license)
        print(f"folder: {folder}; next: read its README.md, then hf upload OWNER/NAME {folder}")
        return
    from awnet.export import export as write

    model, about = load_checkpoint(options.checkpoint, "cpu")
    model, knob = turned(model, options)
    threat = about.get("threat") or {}
    said = {**{name: about[name] for name in ("classes", "shape", "weights")}, "knob": knob}
    said |= {"norm": threat.get("kind"), "eps": threat.get("eps")}
    difference = write(model, options.out, to=options.to, shape=about["shape"], about=said)
    print(f"exported: {options.out}; its outputs differ from the model's by at most {difference:.1e}")
