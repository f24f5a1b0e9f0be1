"""A record: what an evaluation found, example by example, with everything that is needed to believe or repeat it.

On disk a folder: `record.json` holds settings, costs and provenance for people, `record.safetensors` the arrays. Every
table, interval and worst case is a pure function of it, so that metrics can be added after the runs.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from awnet.errors import Mistake
from awnet.evaluation.metrics import Accuracy, accuracy, worst_case
from awnet.types import Hits, Images, Labels, PerExample

FORMAT = 1


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
    """

    settings: dict[str, Any] | None
    correct: Hits
    prediction: Labels
    p_clean: PerExample
    forwards: Tensor
    backwards: Tensor
    seconds: float


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
        samples: for the report, or None.
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
    samples: Samples | None = None

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

    def save(self, folder: Path) -> None:
        """Write both files, each in one piece: a reader meets the old record or the new one."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Tensor] = {"ids": self.ids.clone(), "labels": self.labels.clone()}
        results = {"clean": self.clean, **{f"attacks.{name}": result for name, result in self.attacks.items()}}
        for name, result in results.items():
            for array in ("correct", "prediction", "p_clean", "forwards", "backwards"):
                tensors[f"{name}.{array}"] = _compact(getattr(result, array))
        if self.samples:
            for array in ("positions", "x", "x_adv"):
                tensors[f"samples.{array}"] = getattr(self.samples, array).clone()
        about = {
            "format": FORMAT,
            "label": self.label,
            "front": self.front,
            "summary": self.summary(),
            **{name: getattr(self, name) for name in ("model", "data", "classes", "threat", "run", "provenance")},
            "results": {name: {"settings": r.settings, "seconds": r.seconds} for name, r in results.items()},
            "samples": self.samples.attack if self.samples else None,
        }
        part = folder / f".part-{os.getpid()}"
        save_file({name: t.contiguous() for name, t in tensors.items()}, part)
        about["arrays"] = hashlib.blake2b(part.read_bytes(), digest_size=16).hexdigest()
        os.replace(part, folder / "record.safetensors")
        part.write_text(json.dumps(about, indent=1) + "\n")
        os.replace(part, folder / "record.json")

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
        try:
            about = json.loads((path / "record.json").read_text())
            if about["format"] != FORMAT:
                raise Mistake(f"the record in {path} has format {about['format']}, this version reads {FORMAT}")
            arrays = (path / "record.safetensors").read_bytes()
            if hashlib.blake2b(arrays, digest_size=16).hexdigest() != about["arrays"]:
                raise Mistake(f"the record in {path} is damaged (its two files do not belong together); evaluate again")
            tensors = load(arrays)
            results = {
                name: Result(
                    settings=entry["settings"],
                    seconds=entry["seconds"],
                    correct=tensors[f"{name}.correct"].bool(),
                    p_clean=tensors[f"{name}.p_clean"].float(),
                    **{a: tensors[f"{name}.{a}"].long() for a in ("prediction", "forwards", "backwards")},
                )
                for name, entry in about["results"].items()
            }
            samples = about["samples"] and Samples(
                attack=about["samples"], **{a: tensors[f"samples.{a}"] for a in ("positions", "x", "x_adv")}
            )
            return Record(
                label=about["label"],
                front=about["front"],
                classes=tuple(about["classes"]),
                **{name: about[name] for name in ("model", "data", "threat", "run", "provenance")},
                ids=tensors["ids"],
                labels=tensors["labels"],
                clean=results.pop("clean"),
                attacks={name.removeprefix("attacks."): result for name, result in results.items()},
                samples=samples or None,
            )
        except Mistake:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise Mistake(f"the record in {path} is damaged ({error}); evaluate again") from None


def _compact(t: Tensor) -> Tensor:
    return t.to(torch.int32) if t.dtype == torch.int64 else t.clone()
