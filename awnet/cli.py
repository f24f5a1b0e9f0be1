"""The command line: awnet train | evaluate | calibrate | predict | mix | export | report | list | demo.

Each command reads what the one before it wrote. A user's mistake gets one sentence and exit code 2, Ctrl-C 130.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, make_dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from awnet.errors import Mistake, unknown

if TYPE_CHECKING:
    from awnet.data import Dataset
    from awnet.detection.operating_point import OperatingPoint

HELP = """awnet: train, attack and judge image classifiers

  awnet train RECIPE        train a recipe, or a saved experiment.json
  awnet evaluate RUN        attack a checkpoint and write a record
  awnet calibrate RUN       set when an image looks attacked, on clean images
  awnet predict IMAGE...    classify images, and say whether they look attacked
  awnet mix CLEAN ROBUST    make the static mixture of two checkpoints
  awnet export RUN          write it as ONNX, as a PyTorch program, or as a folder for the Hugging Face hub
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
    norm: Literal["linf", "l2", "l1"] | None = None
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
    resume: bool = False
    """Go on where the evaluation in this folder stopped, or add attacks to it."""
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
class Calibrate:
    """Set the detector's operating points anew, on clean images of the kind that it will meet."""

    checkpoint: tyro.conf.Positional[Path]
    """A checkpoint, or a run's folder, whose best checkpoint is meant."""
    split: Literal["test", "validation", "train"] = "validation"
    """Which images; not those that the network was trained on, or that it is judged on."""
    data: str | None = None
    """Another data set than that of its training, with the same classes."""
    data_dir: str | None = None
    """The folder of the data set's files."""
    device: str = "cpu"
    """cpu or cuda."""


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
    experiment = _with_architecture(experiment, rest)

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
    from awnet.evaluation.evaluate import evaluate as attack_all
    from awnet.report.tables import rich_table
    from awnet.threat_model import L1, L2, Linf, ThreatModel

    options = _parse(Evaluate, argv, "awnet evaluate")
    model, about = _load(options.checkpoint, options.device)
    _check_told(about, options.checkpoint)
    model, knob = _turned(model, options)
    threat: ThreatModel = from_json(about["threat"], ThreatModel, "threat")
    if options.norm or options.eps is not None:
        norm = {"linf": Linf, "l2": L2, "l1": L1}[options.norm] if options.norm else type(threat)
        if options.norm and norm is not type(threat) and options.eps is None:
            raise Mistake(f"the norm is changed from {threat}: give its eps too")
        threat = norm(threat.eps if options.eps is None else options.eps)
    dataset = _images(about, options)
    attacks = {name: ATTACKS[name](threat) for name in options.attacks}
    out = options.out or _beside(options.checkpoint) / "records" / _slug(f"{threat} {knob or ''} {options.split}")
    said = {
        "checkpoint": str(options.checkpoint),
        "knob": knob,
        **{name: about[name] for name in ("architecture", *TOLD)},
        **{name: about.get(name) for name in ("init", "weights", "detector")},
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
            out=out,
            resume=options.resume,
        )
    Console().print(rich_table([record]))
    print(f"record: {out}; next: awnet report {out}")


def calibrate(argv: Sequence[str]) -> None:
    """Set the detector's operating points."""
    from awnet.attacks import Engine
    from awnet.checkpoint import annotate
    from awnet.detection.operating_point import operating_points

    options = _parse(Calibrate, argv, "awnet calibrate")
    model, about = _load(options.checkpoint, options.device)
    dataset = _images(about, options)
    p_clean = Engine().predict(model, dataset).p_clean
    if p_clean.isnan().any():
        raise Mistake(f"a {type(model).__name__} does not tell clean images from attacked ones; AW-Net does")
    points = operating_points(
        p_clean, split=options.split if options.data is None else f"{dataset.name} {options.split}"
    )
    if not points:
        raise Mistake(f"{len(dataset)} images are too few to set a threshold; 5 % of false alarms need 19, 1 % need 99")
    folder = annotate(options.checkpoint, detector=points)
    Console().print(_what_it_means(points), highlight=False)
    print(f"calibrated: {folder}; next: awnet predict IMAGE --model {options.checkpoint}")


def predict(argv: Sequence[str]) -> None:
    """Classify image files."""
    import torch

    from awnet.attacks.attack import frozen_for_attack
    from awnet.config import from_json
    from awnet.data.decode import read_image
    from awnet.detection.operating_point import OperatingPoint, looks_attacked
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
        Console().print(_what_it_means(points), style="dim", highlight=False)


def _verdict(alarms: dict[str, bool] | None) -> str:
    """yes at the strictest operating point, perhaps at another one alone."""
    if alarms is None:
        return "not told"
    first, *others = alarms.values()
    return "yes" if first else "perhaps" if any(others) else "no"


def _what_it_means(points: Sequence[OperatingPoint]) -> str:
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


def mix(argv: Sequence[str]) -> None:
    """Write the static mixture of two checkpoints."""
    from awnet.checkpoint import save_model
    from awnet.config import from_json
    from awnet.folders import replace_folder
    from awnet.models.model import Architecture, parameter_count
    from awnet.models.static_mixture import StaticMixture, StaticMixtureConfig

    options = _parse(Mix, argv, "awnet mix")
    (clean, about_clean), (robust, about) = (_load(path, "cpu") for path in (options.clean, options.robust))
    for what in ("classes", "shape"):
        if about_clean[what] != about[what]:
            raise Mistake(f"the two networks have different {what}: {_few(about_clean[what])} and {_few(about[what])}")
    parts = (from_json(a["architecture"], Architecture, "architecture") for a in (about_clean, about))
    if options.out.exists():
        raise Mistake(f"{options.out} is there already; choose another --out, or remove it")
    config = StaticMixtureConfig(
        **dict(zip(("clean", "robust"), parts, strict=True)), weight=options.weight, sharpness=options.sharpness
    )
    mixture = StaticMixture(clean, robust, weight=options.weight, sharpness=options.sharpness)
    kept = {name: about[name] for name in ("classes", "shape", "data", "threat", "selection", "provenance")}
    said = {**kept, "parameters": parameter_count(mixture), "of": [str(options.clean), str(options.robust)]}
    said |= {"history": [], "experiment": None, "given": {}, "epoch": 0}
    replace_folder(options.out, lambda folder: save_model(folder, mixture, config, said))
    print(f"mixture: {options.out}; next: awnet evaluate {options.out}")


def export(argv: Sequence[str]) -> None:
    """Write a checkpoint for use elsewhere."""
    options = _parse(Export, argv, "awnet export")
    if options.to == "hub":
        from awnet.hub import save_pretrained

        if _asked(options):
            raise Mistake("a folder for the hub keeps the knob as it is; turn it once it is loaded: model.turned(Knob)")
        records = _records(options.records) if options.records else None
        folder = save_pretrained(options.checkpoint, options.out, records=records, license=options.license)
        print(f"folder: {folder}; next: read its README.md, then hf upload OWNER/NAME {folder}")
        return
    from awnet.export import export as write

    model, about = _load(options.checkpoint, "cpu")
    model, knob = _turned(model, options)
    threat = about.get("threat") or {}
    said = {**{name: about[name] for name in ("classes", "shape", "weights")}, "knob": knob}
    said |= {"norm": threat.get("kind"), "eps": threat.get("eps")}
    difference = write(model, options.out, to=options.to, shape=about["shape"], about=said)
    print(f"exported: {options.out}; its outputs differ from the model's by at most {difference:.1e}")


def report(argv: Sequence[str]) -> None:
    """Turn records into a page."""
    from awnet.report.page import write_page
    from awnet.report.tables import rich_table

    options = _parse(Report, argv, "awnet report")
    records = _records(options.records)
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
    "calibrate": calibrate,
    "predict": predict,
    "mix": mix,
    "export": export,
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
        _say(str(mistake))
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        _say(str(interrupt) or "stopped; what was saved before is kept; run the same command again")
        sys.exit(130)


def _say(sentence: str) -> None:
    """One line, whatever a library in between has put into it."""
    print(f"awnet: {' '.join(sentence.split())}", file=sys.stderr)


def _parse(options: Any, argv: Sequence[str], program: str) -> Any:
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(options, prog=program, args=list(argv), config=(tyro.conf.AvoidSubcommands,))
    except SystemExit as end:
        if end.code:
            raise Mistake(_sentence(said.getvalue(), program)) from None
        raise


def _sentence(box: str, program: str) -> str:
    """What the parser says in a box of several lines: its first part, and the names that it proposes."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", box)
    rows = [line.strip(" │") for line in plain.splitlines() if line.strip()]
    parts = [list(part) for rule, part in groupby(rows, lambda row: "────" in row or "----" in row) if not rule]
    parts = parts if plain.startswith("╭") else parts[1:] or [rows]  # without a frame, the title is a part of its own
    what = " ".join(" ".join(parts[0]).split()).rstrip(".")
    near = [row.split()[0] for part in parts if part[0].startswith("Perhaps") for row in part if row.startswith("--")]
    hint = f"; did you mean {' or '.join(near[:3])}?" if near else ""
    return f"{what[:1].lower()}{what[1:]}{hint}; {program} --help tells more"


def _number(argument: str) -> str:
    """Let radii be written as the field does: 8/255."""
    fraction = re.fullmatch(r"((?:--?[\w.-]+=)?)(\d+(?:\.\d+)?)/(\d+)", argument)
    if not fraction or not int(fraction[3]):
        return argument
    return f"{fraction[1]}{float(fraction[2]) / int(fraction[3])!r}"


def _with_architecture(experiment: Any, argv: Sequence[str]) -> Any:
    """The experiment with the network of the checkpoint that --init names, before any field is given anew."""
    from awnet.checkpoint import read_architecture
    from awnet.experiment import read

    given = {name: _value(argv, name) for name in ("--init", "--out")}
    if not given["--init"]:
        return experiment
    out = Path(given["--out"] or Path("runs") / experiment.name)
    if "--resume" in argv and (out / "experiment.json").exists():  # the checkpoint may be gone by now
        return replace(experiment, model=read(out).model)
    return replace(experiment, model=read_architecture(given["--init"]))


def _value(argv: Sequence[str], option: str) -> str | None:
    for argument, following in zip(argv, [*argv[1:], None], strict=False):
        if argument == option:
            return following
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
    return None


def _records(paths: Sequence[Path]) -> list[Any]:
    from awnet.evaluation.record import Record

    folders = [f for path in paths for f in ([path] if (path / "record.json").exists() or not path.is_dir()
               else sorted(p.parent for p in path.rglob("record.json")) or [path])]  # fmt: skip
    return [Record.load(folder) for folder in folders]


def _load(path: Path, device: str) -> tuple[Any, dict[str, Any]]:
    import torch

    from awnet.checkpoint import load, read_about

    if device not in ("cpu", "cuda"):
        raise Mistake(f"the device must be cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise Mistake("there is no CUDA device here; use --device cpu")
    return load(path, device=device), read_about(path)


def _asked(options: Evaluate | Export) -> dict[str, Any]:
    """What of the knob was given."""
    asked = {name: getattr(options, name) for name in ("type_bias", "p_max", "omega")}
    return {name: value for name, value in asked.items() if value is not None}


TOLD = ("selection", "history", "experiment", "given", "epoch")


def _check_told(about: dict[str, Any], path: Path) -> None:
    missing = [name for name in ("threat", "data", *TOLD) if name not in about]
    if missing:
        raise Mistake(f"the checkpoint {path} lacks its {', '.join(missing)}, which `awnet train` writes")


def _images(about: dict[str, Any], options: Evaluate | Calibrate) -> Dataset:
    """The images that are asked for, which must fit the network."""
    from awnet.config import from_json
    from awnet.data import DataConfig, load

    config: DataConfig = from_json(about["data"], DataConfig, "data")
    config = replace(config, name=options.data or config.name, data_dir=options.data_dir or config.data_dir)
    dataset: Dataset = getattr(load(config), options.split)
    if len(dataset.classes) != len(about["classes"]):
        raise Mistake(
            f"the model has {len(about['classes'])} classes, the data set {dataset.name} {len(dataset.classes)}"
        )
    if tuple(dataset.shape) != tuple(about["shape"]):
        raise Mistake(
            f"the model takes images of shape {tuple(about['shape'])}, {dataset.name} has {tuple(dataset.shape)}"
        )
    return dataset


def _turned(model: Any, options: Evaluate | Export) -> tuple[Any, dict[str, Any] | None]:
    """The model with its knob turned as asked, and the knob's settings where it has one."""
    from awnet.config import to_json
    from awnet.models import AWNet

    asked = _asked(options)
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


def _few(names: Sequence[Any]) -> str:
    return ", ".join(map(str, names[:5])) + (f", … ({len(names)} in all)" if len(names) > 5 else "")


def _beside(checkpoint: Path) -> Path:
    return checkpoint.parent if checkpoint.name in ("best", "last") else checkpoint


def _slug(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text).strip("-").lower()


def _first_line(entry: Any) -> str:
    """What a function or class says of itself."""
    return (entry.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
    main()
