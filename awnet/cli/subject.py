"""What a command attacks: a checkpoint, which says what it was trained for, or a network of a user's own, by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from awnet.cli.checkpoints import TOLD, beside, check_device, check_told, images_for, load_checkpoint, turned
from awnet.errors import Mistake
from awnet.modules import is_module, load_module

if TYPE_CHECKING:
    from torch import nn

    from awnet.cli.detect import Detect
    from awnet.cli.evaluate import Evaluate
    from awnet.data import DataConfig, Dataset
    from awnet.threat_model import ThreatModel


class Subject(NamedTuple):
    """What is attacked, where, and what a record says of it.

    Attributes:
        model: the network.
        dataset: the images that were asked for.
        threat: what the attacker may do.
        label, front: a record's row and group.
        about: of the model, for a record.
        home: the folder that what is found goes into.
        said: what a checkpoint says of itself; None for a network of a user's own.
    """

    model: nn.Module
    dataset: Dataset
    threat: ThreatModel
    label: str
    front: str
    about: dict[str, Any]
    home: Path
    said: dict[str, Any] | None

    @property
    def ours(self) -> bool:
        """Whether it is a checkpoint, of which is known that it is fit to be attacked."""
        return self.said is not None


def subject_of(options: Evaluate | Detect) -> Subject:
    """What the options name.

    Raises:
        Mistake: there is no such network or data set, they do not fit together, or something needed was not said.
    """
    return _own(options) if is_module(options.checkpoint) else _ours(options)


def images_of(subject: Subject, options: Evaluate | Detect) -> Dataset:
    """The images that options name, which may be another split than the subject's."""
    return images_for(subject.said, options) if subject.said is not None else _named(options)


def _ours(options: Evaluate | Detect) -> Subject:
    from awnet.config import from_json
    from awnet.threat_model import ThreatModel

    if options.image_size or options.resize:
        raise Mistake("--image-size and --resize are for a network of your own; a checkpoint knows its images")
    model, said = load_checkpoint(options.checkpoint, options.device)
    check_told(said, options.checkpoint)
    model, knob = turned(model, options)
    threat: ThreatModel = from_json(said["threat"], ThreatModel, "threat")
    if options.norm or options.eps is not None:
        norm = _norm(options.norm) if options.norm else type(threat)
        if options.norm and norm is not type(threat) and options.eps is None:
            raise Mistake(f"the norm is changed from {threat}: give its eps too")
        threat = norm(threat.eps if options.eps is None else options.eps)
    return Subject(
        model=model,
        dataset=images_for(said, options),
        threat=threat,
        label=label_of(said, options.checkpoint, knob),
        front=str(beside(options.checkpoint)) if knob is not None else "",
        about={
            "checkpoint": str(options.checkpoint),
            "knob": knob,
            **{name: said[name] for name in ("architecture", *TOLD)},
            **{name: said.get(name) for name in ("init", "weights", "detector")},
        },
        home=beside(options.checkpoint),
        said=said,
    )


def _own(options: Evaluate | Detect) -> Subject:
    from awnet.config import to_json

    name = str(options.checkpoint)
    if options.data is None or options.eps is None or options.norm is None:
        lacks = [f"--{what}" for what in ("data", "eps", "norm") if getattr(options, what) is None]
        raise Mistake(
            f"{name} does not say what it was trained for: give {', '.join(lacks)} too, as in --data cifar10 --eps 8/255 "
            "--norm linf"
        )
    check_device(options.device)
    model = load_module(name, options.device)
    model, _ = turned(model, options)
    return Subject(
        model=model,
        dataset=_named(options),
        threat=_norm(options.norm)(options.eps),
        label=name,
        front="",
        about={"spec": name, "data": to_json(_config(options))},
        home=Path(),
        said=None,
    )


def _named(options: Evaluate | Detect) -> Dataset:
    from awnet.data import load_split

    return load_split(_config(options), options.split)


def _config(options: Evaluate | Detect) -> DataConfig:
    from awnet.data import DataConfig

    assert options.data is not None
    return DataConfig(
        name=options.data, data_dir=options.data_dir, image_size=options.image_size, resize=options.resize
    )


def _norm(name: str) -> Callable[[float], ThreatModel]:
    from awnet.threat_model import L1, L2, Linf

    return {"linf": Linf, "l2": L2, "l1": L1}[name]


def label_of(about: dict[str, Any], checkpoint: Path, knob: dict[str, Any] | None) -> str:
    """The name of the row: of the experiment, and how far the knob is turned."""
    name = (about.get("experiment") or {}).get("name") or checkpoint.name
    usual = {"kind": "Knob", "type_bias": 0.0, "p_max": 1.0, "omega": True}
    turned = [f"{key}={float(value):g}" for key, value in (knob or {}).items() if value != usual[key]]
    return " ".join([name, *turned])
