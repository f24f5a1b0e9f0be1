"""A checkpoint in the Hugging Face hub's layout (https://huggingface.co/docs/hub/model-cards), to give it away or to get one.

    config.json          what model.json says (awnet/checkpoint.py)
    model.safetensors    the weights
    README.md            the model card: how it was trained and chosen, what was measured, and what was not

Everything that reads a checkpoint reads such a folder too. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from awnet import checkpoint
from awnet.config import from_json
from awnet.data import DATASETS
from awnet.data.hub import HubSet
from awnet.errors import Mistake
from awnet.evaluation.record import Record
from awnet.folders import replace_file
from awnet.models.model import Architecture, Detecting
from awnet.report.checks import doubts
from awnet.report.tables import markdown_table, names
from awnet.threat_model import ThreatModel

FILES = ["config.json", "model.safetensors", "README.md"]  # all that is asked of the hub: no code, nothing pickled


def save_pretrained(
    source: str | Path,
    folder: str | Path,
    *,
    records: Sequence[Record] | None = None,
    name: str = "",
    license: str = "mit",
) -> Path:
    """Write a checkpoint into a folder that can be uploaded as it is (`hf upload owner/name FOLDER`).

    Args:
        source: a checkpoint, or a run's folder (its best checkpoint is meant). What its model.json says is published
            with it, the paths of data and teachers included.
        folder: where to; other files in it stay.
        records: its evaluations; those in the run's folder `records` by default.
        name: the title of the card; that of its experiment by default.
        license: of the weights, as the hub spells it.

    Returns:
        `folder`.

    Raises:
        Mistake: no whole checkpoint in `source`, a record of another one, a folder with a checkpoint of its own, or one
            that cannot be written.
    """
    found, folder = checkpoint.find(source), Path(folder)
    about = checkpoint.read_about(found)
    checkpoint.check_digest(found, about["weights"])
    if (folder / "model.json").exists():
        raise Mistake(f"{folder} holds a checkpoint of its own; choose another folder")
    if records is None:
        records = [record for record in _records(found) if _is_of(record, about)]
    for record in records:
        if not _is_of(record, about):
            raise Mistake(f"the record {record.label!r} is not of the checkpoint {found}; evaluate that one")
    name = name or (about.get("experiment") or {}).get("name") or folder.resolve().name
    card = model_card(about, records, name=name, license=license)
    replace_file(folder / "model.safetensors", (found / "model.safetensors").read_bytes())
    replace_file(folder / "config.json", json.dumps(about, indent=1) + "\n")
    replace_file(folder / "README.md", card)
    return folder


def from_pretrained(
    name: str | Path, *, revision: str | None = None, into: nn.Module | None = None, device: torch.device | str = "cpu"
) -> nn.Module:
    """The network of a folder or of the hub, in eval mode: an `nn.Module` from [0, 1] images to logits.

    Args:
        name: a folder, or "owner/name" on the hub.
        revision: a branch, tag or commit of the hub.
        into: a module that takes the weights, where the network is not one of this package.
        device: where to.

    Raises:
        Mistake: it is neither here nor on the hub, damaged, or does not fit.
    """
    return checkpoint.load(fetch(name, revision=revision), into=into, device=device)


def fetch(name: str | Path, *, revision: str | None = None) -> Path:
    """The folder of a checkpoint: `name` itself where it is one, otherwise the hub's copy, downloaded once.

    Raises:
        Mistake: it is neither here nor on the hub, or a revision is asked of a folder.
    """
    if Path(name).is_dir():
        if revision is not None:
            raise Mistake(f"{name} is a folder here, which has no revision {revision!r}; leave the revision out")
        return Path(name)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(name)):
        raise Mistake(f"there is no folder {name}; expected a folder with config.json, or owner/name on the hub")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=FILES))
    except (OSError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        raise Mistake(f"{name} is no folder here and cannot be had from the hub ({reason})") from error


def model_card(about: dict[str, Any], records: Sequence[Record], *, name: str, license: str) -> str:
    """The card in Markdown, with the header that the hub reads.

    Args:
        about: what the checkpoint says of itself.
        records: its evaluations.
        name: the title.
        license: of the weights.
    """
    from jinja2 import Environment

    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters["cell"] = lambda text: " ".join(str(text).replace("|", "\\|").split())
    environment.filters["millions"] = lambda count: f"{count / 1e6:.2f}"
    template = environment.from_string(files("awnet").joinpath("model_card.md.jinja").read_text(encoding="utf-8"))
    architecture = about.get("architecture")
    return template.render(
        header=_header(about, records, name=name, license=license),
        name=name,
        about=about,
        knob=bool(architecture) and "knob" in architecture,
        kind=architecture["kind"].removesuffix("Config") if architecture else about.get("class"),
        ours=bool(architecture),
        tells=bool(architecture) and _tells(about),
        experiment=about.get("experiment") or {},
        threat=str(from_json(about["threat"], ThreatModel, "threat")) if about.get("threat") else "",
        trained_on=_trained_on(about),
        accuracies=markdown_table(records) if records else "",
        rows=list(zip(names(records), records, strict=True)),
        doubts=[doubt.text for doubt in doubts(records)] if records else [],
    )


def _header(about: dict[str, Any], records: Sequence[Record], *, name: str, license: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = []
    for row, record in zip(names(records), records, strict=True):
        data = str(record.data.get("name") or "unnamed")
        measured = {"clean accuracy": record.clean_accuracy}
        if record.attacks:
            under = f"{', '.join(record.attacks)} ({record.threat.get('text')})"
            measured[f"robust accuracy, worst case of {under}"] = record.worst_accuracy
        for metric, accuracy in measured.items():
            result = EvalResult(
                task_type="image-classification",
                dataset_type=_hub_id(data) or data,
                dataset_name=data,
                dataset_split=record.data.get("split"),
                dataset_args={"examples": accuracy.n},
                metric_type="accuracy",
                metric_name=f"{row}: {metric}" if len(records) > 1 else metric,
                metric_value=round(accuracy.value, 4),
            )
            results.append(result)
    hub_id = _hub_id(_trained_on(about))
    header = ModelCardData(
        model_name=name,
        license=license,
        library_name="awnet",
        pipeline_tag="image-classification",
        tags=["image-classification", "adversarial-robustness", "awnet"],
        datasets=[hub_id] if hub_id else None,
        metrics=["accuracy"],
        eval_results=results or None,
    )
    return header.to_yaml()


def _tells(about: dict[str, Any]) -> bool:
    """Whether the network tells clean images from attacked ones."""
    architecture = from_json(about["architecture"], Architecture, "architecture")
    with torch.device("meta"):  # which takes no memory
        return isinstance(architecture.build(classes=len(about["classes"]), channels=about["shape"][0]), Detecting)


def _trained_on(about: dict[str, Any]) -> str:
    return str((about.get("data") or {}).get("name") or "")


def _records(found: Path) -> list[Record]:
    run = found.parent if found.name.split(".")[0] in ("best", "last") else found
    return [Record.load(path.parent) for path in sorted((run / "records").rglob("record.json"))]


def _is_of(record: Record, about: dict[str, Any]) -> bool:
    """Whether a record is of this checkpoint, as far as it says; best and last of a run share a folder of records."""
    said = {key: record.model.get(key) for key in ("weights", "architecture", "experiment", "epoch")}
    return all(value is None or value == about.get(key) for key, value in said.items())


def _hub_id(name: str) -> str | None:
    """What a data set is called on the hub; None for folders and embedded images."""
    if name in DATASETS:
        source = DATASETS[name]
        return source.hub_id if isinstance(source, HubSet) else None
    on_hub = re.fullmatch(r"([\w-][\w.-]*/[\w.-]+)(:[\w.-]+)?", name)
    return on_hub[1] if on_hub and not Path(name).exists() else None
