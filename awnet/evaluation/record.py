"""A record: what an evaluation found, example by example, with everything that is needed to believe or repeat it.

On disk a folder: `record.json` holds settings, costs and provenance for people, `record.safetensors` the arrays. Every
table, interval and worst case is a pure function of it, so that metrics can be added after the runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from awnet.errors import Mistake
from awnet.evaluation.finding import Finding
from awnet.evaluation.metrics import Accuracy, accuracy, worst_case
from awnet.evaluation.modulation import Omega
from awnet.folders import replace_file
from awnet.json_file import read_json
from awnet.types import Hits, Images, Labels, PerExample

FORMAT = 1
LARGEST = 1 << 30  # bytes of arrays; ten attacks on a million examples
ARRAYS, PREVIOUS = "record.safetensors", "record.previous.safetensors"


@dataclass(frozen=True, kw_only=True)
class Members:
    """What each attack of a suite did to the n examples.

    Attributes:
        names: of the attacks, in the order in which they were run.
        broken_by: the place of the attack that broke the example, shape (n,); -1 where none did or none had to.
        spent: forward and backward passes of each attack on each example, shape (n, attacks, 2).
    """

    names: tuple[str, ...]
    broken_by: Tensor
    spent: Tensor


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one attack (or none) did to each of the n examples.

    Attributes:
        settings: the attack as JSON; None for the clean images.
        correct: whether the example is still classified correctly.
        prediction: its class afterwards.
        p_clean: the model's probability that the image it was given is clean; NaN where the model does not tell.
        forwards, backwards: passes of the model spent on it.
        seconds: of the whole run of this attack.
        omega: what the model scaled the filters of each layer by; empty where it scales none, or nobody looked.
        members: of a suite of attacks, what each of them did; None for anything else.
    """

    settings: dict[str, Any] | None
    correct: Hits
    prediction: Labels
    p_clean: PerExample
    forwards: Tensor
    backwards: Tensor
    seconds: float
    omega: dict[str, Omega] = field(default_factory=dict)
    members: Members | None = None


@dataclass(frozen=True, kw_only=True)
class Samples:
    """A few images to look at, with what the strongest attack made of them.

    Attributes:
        attack: its name.
        positions: which examples of the record they are, shape (k,).
        x, x_adv: the images, shape (k, c, h, w).
    """

    attack: str
    positions: Tensor
    x: Images
    x_adv: Images


@dataclass(frozen=True, kw_only=True)
class Record:
    """One model under several attacks on one set of examples.

    Attributes:
        label: the name of the row in tables.
        front: rows of one model at several settings of its knob share this name; "" for a row of its own.
        model: architecture, number of parameters, knob, checkpoint, how it was selected, training history.
        data: name, split, number of examples, limit, fingerprint, image shape.
        classes: their names.
        threat: the threat model as JSON, and as text under "text".
        run: seed, engine settings.
        provenance: versions, hardware, commit, time.
        ids: the examples' places in their split.
        labels: their true classes.
        clean: what the model says of the images as they are.
        attacks: by name.
        planned: the names of the attacks that were asked for; () where nobody said. While an evaluation is under way, or
            where it was broken off, they are more than `attacks`.
        samples: for the report, or None.
        adversarials: the digest of the file of adversarial images beside the record (`awnet.evaluation.adversarials`);
            "" where they were not kept.
        rigour: what the checks of `awnet.evaluation.rigour` found; () where they were not made.
    """

    label: str
    front: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    threat: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    ids: Tensor
    labels: Labels
    clean: Result
    attacks: dict[str, Result] = field(default_factory=dict)
    planned: tuple[str, ...] = ()
    samples: Samples | None = None
    adversarials: str = ""
    rigour: tuple[Finding, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def clean_accuracy(self) -> Accuracy:
        """A_nat."""
        return accuracy(self.clean.correct)

    def robust_accuracy(self, attack: str) -> Accuracy:
        """A_adv under one attack: correct on the image that it made."""
        return accuracy(self.attacks[attack].correct)

    @property
    def worst(self) -> Hits:
        """Which examples are correct as they are and after every attack that was run."""
        return worst_case([self.clean.correct, *(result.correct for result in self.attacks.values())])

    @property
    def worst_accuracy(self) -> Accuracy:
        """The headline: the share of examples that withstand everything."""
        return accuracy(self.worst)

    @property
    def tells_type(self) -> bool:
        """Whether the model offers a probability that an image is clean."""
        return not bool(self.clean.p_clean.isnan().any())

    def remarked(self, sentences: Iterable[str]) -> Record:
        """With remarks on the model, each once."""
        remarks = list(dict.fromkeys([*self.model.get("remarks", ()), *sentences]))
        return replace(self, model={**self.model, "remarks": remarks}) if remarks else self

    def save(self, folder: Path) -> None:
        """Write both files so that, at any moment, a reader meets the old record or the new one.

        Raises:
            Mistake: where the disk is full or may not be written; the old record is still there.
        """
        tensors: dict[str, Tensor] = {"ids": self.ids.clone(), "labels": self.labels.clone()}
        results = {"clean": self.clean, **{f"attacks.{name}": result for name, result in self.attacks.items()}}
        for name, result in results.items():
            for array in ("correct", "prediction", "p_clean", "forwards", "backwards"):
                tensors[f"{name}.{array}"] = _compact(getattr(result, array))
            if result.members:
                tensors[f"{name}.broken_by"] = _compact(result.members.broken_by)
                tensors[f"{name}.spent"] = _compact(result.members.spent)
        if self.samples:
            for array in ("positions", "x", "x_adv"):
                tensors[f"samples.{array}"] = getattr(self.samples, array).clone()
        about = {
            "format": FORMAT,
            "label": self.label,
            "front": self.front,
            "summary": self.summary(),
            **{name: getattr(self, name) for name in ("model", "data", "classes", "threat", "run", "provenance")},
            "results": {name: _told(result) for name, result in results.items()},
            "planned": self.planned,
            "samples": self.samples.attack if self.samples else None,
            "adversarials": self.adversarials,
            "rigour": [asdict(finding) for finding in self.rigour],
        }
        arrays = save({name: t.contiguous() for name, t in tensors.items()})
        about["arrays"] = _digest(arrays)
        # record.json decides which arrays are meant, so the old ones stay until the new record.json is there.
        old, previous = folder / ARRAYS, folder / PREVIOUS
        if _is_meant(folder, old):
            old.replace(previous)
        replace_file(old, arrays)
        replace_file(folder / "record.json", json.dumps(about, indent=1) + "\n")
        previous.unlink(missing_ok=True)

    def summary(self) -> dict[str, Any]:
        """The accuracies, for people who open the JSON."""
        return {
            "clean": round(self.clean_accuracy.value, 6),
            **{name: round(self.robust_accuracy(name).value, 6) for name in self.attacks},
            "worst case": round(self.worst_accuracy.value, 6),
        }

    @staticmethod
    def load(folder: Path) -> Record:
        """Read a record.

        Raises:
            Mistake: where the folder holds none, or one that is damaged or of another format.
        """
        path = Path(folder)
        if not (path / "record.json").is_file():
            raise Mistake(
                f"no record in {path}: expected record.json and record.safetensors, as `awnet evaluate` writes them"
            )
        about = read_json(path / "record.json")
        if about.get("format") != FORMAT:
            raise Mistake(f"the record in {path} has format {about.get('format')!r}, this version reads {FORMAT}")
        try:
            msgspec.convert(about, _Described)
            tensors = load(_arrays(path, about["arrays"]))
            results = {
                name: Result(
                    settings=entry["settings"],
                    seconds=entry["seconds"],
                    omega={layer: Omega(**found) for layer, found in entry.get("omega", {}).items()},
                    correct=tensors[f"{name}.correct"].bool(),
                    p_clean=tensors[f"{name}.p_clean"].float(),
                    **{a: tensors[f"{name}.{a}"].long() for a in ("prediction", "forwards", "backwards")},
                    members=_members(name, entry, tensors),
                )
                for name, entry in about["results"].items()
            }
            samples = about["samples"] and Samples(
                attack=about["samples"], **{a: tensors[f"samples.{a}"] for a in ("positions", "x", "x_adv")}
            )
            record = Record(
                label=about["label"],
                front=about["front"],
                classes=tuple(about["classes"]),
                **{name: about[name] for name in ("model", "data", "threat", "run", "provenance")},
                ids=tensors["ids"],
                labels=tensors["labels"],
                clean=results.pop("clean"),
                attacks={name.removeprefix("attacks."): result for name, result in results.items()},
                planned=tuple(about.get("planned", ())),
                samples=samples or None,
                adversarials=about.get("adversarials", ""),
                rigour=msgspec.convert(about.get("rigour", ()), tuple[Finding, ...]),
            )
            _check(record)
            return record
        except Mistake:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            raise Mistake(f"the record in {path} is damaged ({error}); evaluate again") from None


class _DescribedMember(msgspec.Struct):
    name: str


class _DescribedResult(msgspec.Struct):
    settings: dict[str, Any] | None
    seconds: float
    omega: dict[str, dict[str, float | None]] = {}
    members: list[_DescribedMember] = []


class _DescribedModel(msgspec.Struct):
    history: list[dict[str, float]] | None = None
    remarks: list[str] = []
    parameters: int | None = None


class _DescribedData(msgspec.Struct):
    limit: int | None = None


class _DescribedRun(msgspec.Struct):
    seed: int | None = None


class _DescribedProvenance(msgspec.Struct):
    versions: dict[str, str | None] | None = None


class _Described(msgspec.Struct):
    """What record.json says, and of which types."""

    arrays: str
    label: str
    front: str
    classes: list[str]
    model: _DescribedModel
    data: _DescribedData
    threat: dict[str, Any]
    run: _DescribedRun
    provenance: _DescribedProvenance
    results: dict[str, _DescribedResult]
    samples: str | None
    planned: list[str] = []
    adversarials: str = ""
    rigour: list[Finding] = []


def _check(record: Record) -> None:
    n, classes = len(record), len(record.classes)
    history = record.model.get("history") or []
    if not all(isfinite(value) for row in history for value in row.values()):
        raise ValueError("its history has numbers that are none")
    if not all(isfinite(value) for finding in record.rigour for value in finding.figures.values()):
        raise ValueError("its checks have figures that are no numbers")
    for result in (record.clean, *record.attacks.values()):
        for name in ("correct", "prediction", "p_clean", "forwards", "backwards"):
            if getattr(result, name).shape != (n,):
                raise ValueError(f"{name} of {n} examples has shape {tuple(getattr(result, name).shape)}")
        if result.members:
            many = len(result.members.names)
            places, spent = result.members.broken_by, result.members.spent
            if places.shape != (n,) or spent.shape != (n, many, 2) or not _are_places(places + 1, many + 1):
                raise ValueError(f"what its {many} attacks did is not told for each of {n} examples")
    for name, t in {"labels": record.labels, "predictions": record.clean.prediction}.items():
        if t.shape != (n,) or not _are_places(t, classes):
            raise ValueError(f"{name} are no places among {classes} classes")
    if record.samples:
        places, x, x_adv = record.samples.positions, record.samples.x, record.samples.x_adv
        if x.ndim != 4 or x.shape != x_adv.shape or places.shape != x.shape[:1] or not _are_places(places, n):
            raise ValueError("its sample images are not those of its examples")
        if record.samples.attack not in record.attacks:
            raise ValueError(f"its sample images are of {record.samples.attack!r}, which is none of its attacks")


def _are_places(t: Tensor, n: int) -> bool:
    return bool(((t >= 0) & (t < n)).all())


def _is_meant(folder: Path, arrays: Path) -> bool:
    """Whether a folder's record.json, if there is one, names these arrays."""
    try:
        return json.loads((folder / "record.json").read_text())["arrays"] == _digest(arrays.read_bytes())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _arrays(folder: Path, digest: str) -> bytes:
    """The arrays that belong to a record.json: those beside it, or the ones before where a process died in `save`."""
    for path in (folder / ARRAYS, folder / PREVIOUS):
        if path.is_file() and path.stat().st_size <= LARGEST and _digest(found := path.read_bytes()) == digest:
            return found
    raise Mistake(f"the record in {folder} is damaged (its two files do not belong together); evaluate again")


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _told(result: Result) -> dict[str, Any]:
    """What the JSON says of a result."""
    omega = {layer: asdict(found) for layer, found in result.omega.items()}
    about = {"settings": result.settings, "seconds": result.seconds, **({"omega": omega} if omega else {})}
    return about | ({"members": _told_of(result.members)} if result.members else {})


def _told_of(members: Members) -> list[dict[str, Any]]:
    """What the JSON says of the attacks of a suite; all but the names is for people, the arrays hold more."""
    return [
        {
            "name": name,
            "broke": int((members.broken_by == place).sum()),
            **dict(zip(("forwards", "backwards"), members.spent[:, place].sum(0).tolist(), strict=True)),
        }
        for place, name in enumerate(members.names)
    ]


def _members(name: str, entry: dict[str, Any], tensors: dict[str, Tensor]) -> Members | None:
    """What a suite's attacks did, from a record's two files."""
    names = tuple(member["name"] for member in entry.get("members", ()))
    arrays = {a: tensors[f"{name}.{a}"].long() for a in ("broken_by", "spent")} if names else {}
    return Members(names=names, **arrays) if names else None


def _compact(t: Tensor) -> Tensor:
    return t.to(torch.int32) if t.dtype == torch.int64 else t.clone()
