"""The command line: awnet train | evaluate | predict | mix | report | list | demo.

Each command reads what the one before it wrote. A user's mistake gets one sentence and exit code 2, Ctrl-C 130.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from awnet.errors import Mistake, unknown

HELP = """awnet: train, attack and judge image classifiers

  awnet train RECIPE        train a recipe, or a saved experiment.json
  awnet evaluate RUN        attack a checkpoint and write a record
  awnet predict IMAGE...    classify images, and say whether they look attacked
  awnet mix CLEAN ROBUST    make the static mixture of two checkpoints
  awnet report RECORD...    turn records into one page
  awnet list [KIND]         models, attacks, objectives, data, recipes
  awnet demo                the whole way on embedded images, in minutes

  awnet COMMAND --help tells more of each."""


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a recipe; any field of its experiment can be given anew."""

    out: Path | None = None
    """The run's folder; runs/RECIPE by default."""
    resume: bool = False
    """Go on where the run in this folder stopped."""
    device: str = "cpu"
    """cpu, cuda or auto."""
    data_dir: str | None = None
    """The folder of the data set's files."""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Attack a checkpoint and write a record of every example."""

    checkpoint: tyro.conf.Positional[Path]
    """A checkpoint, or a run's folder, whose best checkpoint is meant."""
    attacks: tuple[str, ...] = ("fgsm", "pgd-sat", "pgd-trades", "cw-inf")
    """Which attacks (awnet list attacks)."""
    eps: float | None = None
    """The radius, such as 8/255; that of its training by default."""
    norm: Literal["linf", "l2"] | None = None
    """The norm of the threat model; that of its training by default."""
    limit: int | None = None
    """A seeded subset of so many images."""
    split: Literal["test", "validation", "train"] = "test"
    """Which images."""
    data: str | None = None
    """Another data set than that of its training, with the same classes."""
    data_dir: str | None = None
    """The folder of the data set's files."""
    out: Path | None = None
    """Where the record goes; a folder beside the checkpoint by default."""
    label: str = ""
    """The name of the row in tables."""
    type_bias: float | None = None
    """AW-Net: added to the log-odds of clean."""
    p_max: float | None = None
    """AW-Net: the largest weight of the clean batch norms."""
    omega: bool | None = None
    """AW-Net: whether the router scales the filters."""
    seed: int = 0
    """Of the attacks."""
    batch_size: int = 128
    """Images at a time."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the search; the verdict is always float32."""
    device: str = "cpu"
    """cpu or cuda."""
    keep_images: int = 8
    """How many sample images the record holds."""


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


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Make the static mixture of two checkpoints' probabilities, as a checkpoint of its own."""

    clean: tyro.conf.Positional[Path]
    """The accurate network."""
    robust: tyro.conf.Positional[Path]
    """The robust network."""
    out: Path
    """The new checkpoint's folder."""
    weight: float = 0.5
    """Of the clean network's probabilities."""
    sharpness: float = 1.0
    """What the robust network's logits are multiplied by."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Turn records into one self-contained page, and print their table."""

    records: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of records, or folders that hold several."""
    out: Path = Path("report.html")
    """The page."""
    title: str = "How accurate, and how robust"
    """Its title."""
    gamma_nat: float = 0.5
    """The weight of clean accuracy in A_w (Eq. 23)."""
    gamma_adv: float = 0.5
    """The weight of robust accuracy in A_w."""
    no_images: bool = False
    """Leave the sample images out."""


@dataclass(frozen=True, kw_only=True)
class List:
    """What can be chosen by name."""

    kind: tyro.conf.Positional[Literal["models", "attacks", "objectives", "data", "recipes", "all"]] = "all"
    """Which."""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Train two teachers, AW-Net and its rivals on the embedded digits, attack them all, and write the report."""

    out: Path = Path("runs/demo")
    """Where everything goes."""


def train(argv: Sequence[str]) -> None:
    """Train a recipe or a saved experiment."""
    import awnet.recipes  # noqa: F401
    from awnet.experiment import RECIPES, Experiment, read, run

    if not argv or argv[0].startswith("-"):
        raise Mistake("expected `awnet train RECIPE`, a name of `awnet list recipes` or a saved experiment.json")
    name, rest = argv[0], argv[1:]
    if Path(name).exists() and name not in RECIPES:
        experiment = read(Path(name))
    else:
        experiment = RECIPES[name]()

    flat = Annotated[Experiment, tyro.conf.arg(name="")]
    options = make_dataclass("Train", [("experiment", flat, experiment)], bases=(Train,), frozen=True, kw_only=True)
    options.__doc__ = Train.__doc__
    options = _parse(options, rest, f"awnet train {name}")
    experiment = options.experiment
    if options.data_dir is not None:
        experiment = replace(experiment, data=replace(experiment.data, data_dir=options.data_dir))
    out = run(experiment, options.out or Path("runs") / experiment.name, resume=options.resume, device=options.device)
    print(f"trained: {out}; next: awnet evaluate {out}")


def evaluate(argv: Sequence[str]) -> None:
    """Attack a checkpoint and write a record."""
    from awnet.attacks import ATTACKS, Engine
    from awnet.config import from_json
    from awnet.data import DataConfig, load
    from awnet.evaluation.evaluate import evaluate as attack_all
    from awnet.report.tables import rich_table
    from awnet.threat_model import L2, Linf, ThreatModel

    options = _parse(Evaluate, argv, "awnet evaluate")
    model, about = _load(options.checkpoint, options.device)
    model, knob = _turned(model, options)
    threat: ThreatModel = from_json(about["threat"], ThreatModel, "threat")
    if options.norm or options.eps is not None:
        norm = {"linf": Linf, "l2": L2}[options.norm] if options.norm else type(threat)
        if options.norm and norm is not type(threat) and options.eps is None:
            raise Mistake(f"the norm is changed from {threat}: give its eps too")
        threat = norm(threat.eps if options.eps is None else options.eps)
    config: DataConfig = from_json(about["data"], DataConfig, "data")
    config = replace(config, name=options.data or config.name, data_dir=options.data_dir or config.data_dir)
    dataset = getattr(load(config), options.split)
    if len(dataset.classes) != len(about["classes"]):
        raise Mistake(
            f"the model has {len(about['classes'])} classes, the data set {dataset.name} {len(dataset.classes)}"
        )
    if tuple(dataset.shape) != tuple(about["shape"]):
        raise Mistake(
            f"the model takes images of shape {tuple(about['shape'])}, {dataset.name} has {tuple(dataset.shape)}"
        )
    attacks = {name: ATTACKS[name](threat) for name in options.attacks}
    out = options.out or _beside(options.checkpoint) / "records" / _slug(f"{threat} {knob or ''} {options.split}")
    said = {
        "checkpoint": str(options.checkpoint),
        "knob": knob,
        **{name: about[name] for name in ("architecture", "selection", "history", "experiment", "given", "epoch")},
    }
    console = Console(stderr=True)
    count = min(len(dataset), options.limit or len(dataset))
    with console.status("clean images") as status:
        record = attack_all(
            model,
            dataset,
            attacks,
            threat=threat,
            engine=Engine(batch_size=options.batch_size, precision=options.precision),
            seed=options.seed,
            limit=options.limit,
            label=options.label or _label(about, options.checkpoint, knob),
            front=str(_beside(options.checkpoint)) if knob is not None else "",
            about=said,
            samples=options.keep_images,
            progress=lambda attack, n: status.update(f"{attack}: {n} of {count} images"),
            keep=lambda record: record.save(out),
        )
    Console().print(rich_table([record]))
    print(f"record: {out}; next: awnet report {out}")


def predict(argv: Sequence[str]) -> None:
    """Classify image files."""
    import torch

    from awnet.attacks.attack import frozen_for_attack
    from awnet.data.decode import read_image
    from awnet.models.model import judge

    options = _parse(Predict, argv, "awnet predict")
    if not options.images:
        raise Mistake("expected at least one image: awnet predict IMAGE... --model RUN")
    model, about = _load(options.model, options.device)
    shape = tuple(about["shape"])
    x = torch.stack([torch.from_numpy(read_image(path, shape).copy()) for path in options.images]).float() / 255
    with torch.no_grad(), frozen_for_attack(model):
        logits, p_clean = judge(model, x.to(options.device))
    probability, index = logits.softmax(1).max(1)
    rows = [
        {
            "image": str(path),
            "class": about["classes"][i],
            "probability": round(p, 4),
            "p_adversarial": None if clean != clean else round(1 - clean, 4),
        }
        for path, i, p, clean in zip(
            options.images, index.tolist(), probability.tolist(), p_clean.tolist(), strict=True
        )
    ]
    if options.json:
        for row in rows:
            print(json.dumps(row))
        return
    table = Table("image", "class", "probability", "P(adversarial)", box=None)
    for row in rows:
        p = row["p_adversarial"]
        table.add_row(row["image"], row["class"], f"{row['probability']:.3f}", "not told" if p is None else f"{p:.3f}")
    Console().print(table)


def mix(argv: Sequence[str]) -> None:
    """Write the static mixture of two checkpoints."""
    from awnet.checkpoint import replace_folder, save_model
    from awnet.config import from_json
    from awnet.models.model import Architecture, parameter_count
    from awnet.models.static_mixture import StaticMixture, StaticMixtureConfig

    options = _parse(Mix, argv, "awnet mix")
    (clean, about_clean), (robust, about) = (_load(path, "cpu") for path in (options.clean, options.robust))
    for what in ("classes", "shape"):
        if about_clean[what] != about[what]:
            raise Mistake(f"the two networks have different {what}: {about_clean[what]} and {about[what]}")
    parts = (from_json(a["architecture"], Architecture, "architecture") for a in (about_clean, about))
    config = StaticMixtureConfig(
        **dict(zip(("clean", "robust"), parts, strict=True)), weight=options.weight, sharpness=options.sharpness
    )
    mixture = StaticMixture(clean, robust, weight=options.weight, sharpness=options.sharpness)
    kept = {name: about[name] for name in ("classes", "shape", "data", "threat", "selection", "provenance")}
    said = {**kept, "parameters": parameter_count(mixture), "of": [str(options.clean), str(options.robust)]}
    said |= {"history": [], "experiment": None, "given": {}, "epoch": 0}
    replace_folder(options.out, lambda folder: save_model(folder, mixture, config, said))
    print(f"mixture: {options.out}; next: awnet evaluate {options.out}")


def report(argv: Sequence[str]) -> None:
    """Turn records into a page."""
    from awnet.evaluation.record import Record
    from awnet.report.page import write_page
    from awnet.report.tables import rich_table

    options = _parse(Report, argv, "awnet report")
    folders = [f for path in options.records for f in ([path] if (path / "record.json").exists() or not path.is_dir()
               else sorted(p.parent for p in path.rglob("record.json")) or [path])]  # fmt: skip
    records = [Record.load(folder) for folder in folders]
    weights = {"gamma_nat": options.gamma_nat, "gamma_adv": options.gamma_adv}
    page = write_page(records, options.out, title=options.title, images=not options.no_images, **weights)
    Console().print(rich_table(records, **weights))
    print(f"report: {page}")


def list_names(argv: Sequence[str]) -> None:
    """Print what can be chosen by name."""
    import torch

    import awnet.recipes  # noqa: F401
    from awnet.attacks import ATTACKS
    from awnet.data import DATASETS
    from awnet.data.hub import HubSet
    from awnet.data.source import Source
    from awnet.experiment import RECIPES
    from awnet.models import MODELS
    from awnet.models.model import Architecture, parameter_count
    from awnet.training import OBJECTIVES, JointConfig
    from awnet.training.objective import ObjectiveConfig

    options = _parse(List, argv, "awnet list")

    def size(architecture: Architecture) -> str:
        with torch.device("meta"):
            count = parameter_count(architecture.build(classes=10))
        return f"{_first_line(type(architecture))} {count / 1e6:.2f}M parameters with 10 classes."

    def loss(config: ObjectiveConfig) -> str:
        over = f" Over {_first_line(type(config.over))}" if isinstance(config, JointConfig) else ""
        return _first_line(type(config)) + over

    def source(entry: Source) -> str:
        return f"{entry.hub_id} on the hub." if isinstance(entry, HubSet) else _first_line(type(entry))

    kinds: dict[str, tuple[Mapping[str, Any], Callable[[Any], str]]] = {
        "models": (MODELS, size),
        "attacks": (ATTACKS, _first_line),
        "objectives": (OBJECTIVES, loss),
        "data": (DATASETS, source),
        "recipes": (RECIPES, _first_line),
    }
    for kind, (registry, describe) in kinds.items():
        if options.kind in (kind, "all"):
            table = Table(kind, "", box=None, header_style="bold")
            for name, entry in registry.items():
                table.add_row(name, describe(entry))
            Console().print(table, "")


def demo(argv: Sequence[str]) -> None:
    """Run the demo."""
    from awnet.demo import run_demo

    run_demo(_parse(Demo, argv, "awnet demo").out)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "mix": mix,
    "report": report,
    "list": list_names,
    "demo": demo,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: run one command and exit with 0, 2 for a user's mistake, or 130 after Ctrl-C."""
    argv = [_number(a) for a in (sys.argv[1:] if argv is None else argv)]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP)
        return
    if argv[0] in ("-V", "--version"):
        import awnet

        print(f"awnet {awnet.__version__}")
        return
    try:
        if argv[0] not in COMMANDS:
            raise unknown("command", argv[0], COMMANDS)
        COMMANDS[argv[0]](argv[1:])
    except Mistake as mistake:
        print(f"awnet: {mistake}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        print(f"awnet: {interrupt or 'stopped'}", file=sys.stderr)
        sys.exit(130)


def _parse(options: Any, argv: Sequence[str], program: str) -> Any:
    return tyro.cli(options, prog=program, args=list(argv), config=(tyro.conf.AvoidSubcommands,))


def _number(argument: str) -> str:
    """Let radii be written as the field does: 8/255."""
    fraction = re.fullmatch(r"((?:--?[\w.-]+=)?)(\d+(?:\.\d+)?)/(\d+)", argument)
    if not fraction or not int(fraction[3]):
        return argument
    return f"{fraction[1]}{float(fraction[2]) / int(fraction[3])!r}"


def _load(path: Path, device: str) -> tuple[Any, dict[str, Any]]:
    import torch

    from awnet.checkpoint import load, read_about

    if device not in ("cpu", "cuda"):
        raise Mistake(f"the device must be cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise Mistake("there is no CUDA device here; use --device cpu")
    return load(path, device=device), read_about(path)


def _turned(model: Any, options: Evaluate) -> tuple[Any, dict[str, Any] | None]:
    """The model with its knob turned as asked, and the knob's settings where it has one."""
    from awnet.config import to_json
    from awnet.models import AWNet

    asked = {name: getattr(options, name) for name in ("type_bias", "p_max", "omega")}
    asked = {name: value for name, value in asked.items() if value is not None}
    if isinstance(model, AWNet):
        model = model.turned(replace(model.knob, **asked))
        return model, to_json(model.knob)
    if asked:
        raise Mistake(f"{', '.join(asked)} can be set for an AW-Net, this checkpoint is a {type(model).__name__}")
    return model, None


def _label(about: dict[str, Any], checkpoint: Path, knob: dict[str, Any] | None) -> str:
    name = (about.get("experiment") or {}).get("name") or checkpoint.name
    usual = {"kind": "Knob", "type_bias": 0.0, "p_max": 1.0, "omega": True}
    turned = [f"{key}={value:g}" for key, value in (knob or {}).items() if value != usual[key]]
    return " ".join([name, *turned])


def _beside(checkpoint: Path) -> Path:
    return checkpoint.parent if checkpoint.name in ("best", "last") else checkpoint


def _slug(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text).strip("-").lower()


def _first_line(entry: Any) -> str:
    """What a function or class says of itself."""
    return (entry.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
    main()
