"""An experiment: a complete frozen description of a training, and how it is run.

A recipe is a function returning one (`RECIPES`); a variant is `replace(recipe(), ...)`. The resolved experiment is saved
beside every result and can be run again from that file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from awnet import checkpoint
from awnet.attacks.engine import Engine
from awnet.attacks.frozen import frozen_for_attack
from awnet.attacks.registry import ATTACKS
from awnet.config import from_json, setting, to_json
from awnet.data import DataConfig, Dataset, Loader, Splits, load
from awnet.detection.operating_point import operating_points
from awnet.errors import Mistake
from awnet.evaluation.metrics import check_weights, w_robust
from awnet.folders import alone, replace_file, whole_folder
from awnet.json_file import read_json
from awnet.models.model import Architecture, Calibrating, create, device_of, parameter_count
from awnet.models.resnet import ResNetConfig
from awnet.noise import fold
from awnet.provenance import provenance
from awnet.registry import Registry
from awnet.threat_model import Linf, ThreatModel
from awnet.training.fine_tuning import start_from
from awnet.training.objective import ObjectiveConfig
from awnet.training.overfitting import Overfitting
from awnet.training.standard import StandardConfig
from awnet.training.train import TrainingConfig, Validation, train

FORMAT = 1


@setting
@dataclass(frozen=True, kw_only=True)
class Selection:
    """How the best checkpoint is chosen: by A_w = gamma_nat A_nat + gamma_adv A_adv (Eq. 23).

    Args:
        on: "validation", images cut from the training set; "paper" reproduces the paper's choice on the test images (all
            of them with a `limit` of their number), and marks the checkpoint and every record of it so.
        attack: which attack A_adv is measured with; PGD_trades as in B-MTARD's code.
        gamma_nat, gamma_adv: weights; a network trained on clean images alone is chosen with 1 and 0, unattacked.
        limit: at most so many images (a seeded subset).
    """

    on: Literal["validation", "paper"] = "validation"
    attack: str = "pgd-trades"
    gamma_nat: float = 0.5
    gamma_adv: float = 0.5
    limit: int = 1000

    def __post_init__(self) -> None:
        check_weights(self.gamma_nat, self.gamma_adv)
        if self.limit < 1:
            raise Mistake(f"the best checkpoint is chosen on at least 1 image, got a selection.limit of {self.limit}")


@setting
@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that a training depends on.

    Args:
        name: the recipe's.
        data: which images.
        model: the network.
        objective: what it is trained for.
        threat: against whom.
        training: how long and how.
        selection: which epoch is kept as the best.
        attacks: names of the attacks of its evaluation.
        seed: of weights, order, augmentation and attacks.
        teacher_seed: of the teachers that are trained first; the same as `seed` where it is None. Students of several seeds
            share their teachers by it.
        init: a checkpoint, or a run, whose weights the training starts from (fine-tuning); only what depends on the
            number of classes starts afresh, where that is another.
    """

    name: str = "unnamed"
    data: DataConfig = field(default_factory=DataConfig)
    model: Architecture = field(default_factory=ResNetConfig)
    objective: ObjectiveConfig = field(default_factory=StandardConfig)
    threat: ThreatModel = Linf(8 / 255)  # noqa: RUF009 - frozen
    training: TrainingConfig = field(default_factory=TrainingConfig)
    selection: Selection = field(default_factory=Selection)
    attacks: tuple[str, ...] = ("fgsm", "pgd-sat", "pgd-trades", "cw-inf")
    seed: int = 0
    teacher_seed: int | None = None
    init: str = ""


RECIPES: Registry[Callable[[], Experiment]] = Registry("recipe")


def run(
    experiment: Experiment,
    out: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    quiet: bool = False,
    model: nn.Module | None = None,
    teachers: Mapping[str, nn.Module] | None = None,
    splits: Splits | None = None,
) -> Path:
    """Train what an experiment describes, and its teachers first where they are recipes that have not been run.

    Args:
        experiment: the description.
        out: the run's folder. Teachers from recipes go to its neighbours, one folder a recipe, and are shared.
        resume: go on where the run in `out` stopped.
        device: "cpu", "cuda" or "auto".
        quiet: show nothing.
        model: a module to train instead of `experiment.model`, from [0, 1] images to logits.
        teachers: modules by role, instead of those that the objective names.
        splits: images instead of those that `experiment.data` names.

    Returns:
        `out`, which then holds best/, last/, log.csv and experiment.json.

    Raises:
        Mistake: a folder that holds another experiment, a teacher that is not there, data that cannot be read, ...
    """
    with alone(out):
        return _run(
            experiment, out, resume=resume, device=device, quiet=quiet, model=model, teachers=teachers, splits=splits
        )


def ensure(
    experiment: Experiment, out: Path, *, device: str = "cpu", quiet: bool = False, splits: Splits | None = None
) -> Path:
    """The run of an experiment that several may need: trained to its end, unless it was, by whoever comes first.

    Another process that is training it is waited for. Public weights that were imported into `out` take the run's place. The
    arguments, what is returned and the mistakes are those of `run`.
    """
    if imported(out):
        return out
    with alone(out, wait=True):
        if not complete(out, experiment, _given_images(splits)):
            _run(experiment, out, resume=True, device=device, quiet=quiet, splits=splits)
    return out


def _run(
    experiment: Experiment,
    out: Path,
    *,
    resume: bool,
    device: str,
    quiet: bool,
    model: nn.Module | None = None,
    teachers: Mapping[str, nn.Module] | None = None,
    splits: Splits | None = None,
) -> Path:
    """`run`, in a folder that is held."""
    networks = dict(teachers or {})
    for role in networks:
        if role not in experiment.objective.teachers:
            known = ", ".join(experiment.objective.teachers) or "none"
            raise Mistake(f"the objective has no teacher for the role {role!r}; its roles: {known}")
    given = {
        **({"model": _class_name(model)} if model is not None else {}),
        **{f"{role} teacher": _class_name(teacher) for role, teacher in networks.items()},
        **_given_images(splits),
    }
    _claim(out, experiment, given, resume=resume)
    images = splits or load(experiment.data)
    if len(images.train) < 2:  # batch norm measures a batch
        raise Mistake(f"{images.train.name} is too small: training needs 2 images or more, got {len(images.train)}")
    chosen_on = _chosen_on(images, experiment)
    shape, classes = images.train.shape, images.train.classes
    network = model if model is not None else create(
        experiment.model, classes=len(classes), channels=shape[0], seed=experiment.seed
    )  # fmt: skip
    init = None
    if resume and (whole_folder(out / "last") / "training.json").exists():
        init = checkpoint.read_about(out / "last").get("init")  # where it started may be gone by now
    elif experiment.init:
        architecture = experiment.model if model is None else None
        init = start_from(experiment.init, network, architecture, channels=shape[0])
    for role, teacher in networks.items():
        _check_given(teacher, f"the {role} teacher", images.train, classes=len(classes))
    for role, name in experiment.objective.teachers.items():
        if role not in networks:
            networks[role] = _teacher(
                role,
                name,
                out=out,
                experiment=experiment,
                classes=classes,
                channels=shape[0],
                device=device,
                quiet=quiet,
                splits=splits,
            )
    fabric = _fabric(device, experiment.training.precision)
    objective = experiment.objective.build(experiment.threat, networks).to(fabric.device)
    loader = Loader(
        images.train,
        batch_size=experiment.training.batch_size,
        seed=experiment.seed,
        augment=experiment.data.augment,
        device=fabric.device,
    )

    def validate(candidate: nn.Module) -> Validation:
        return _validate(candidate, chosen_on, experiment)

    overfitting, watch = experiment.training.overfitting, None
    if overfitting.images:
        watch = Overfitting(overfitting, experiment.threat, images.train, experiment.seed)

    def save(folder: Path, candidate: nn.Module, about: dict[str, Any]) -> None:
        said = {
            "classes": classes,
            "shape": shape,
            "data": experiment.data,
            "threat": experiment.threat,
            "selection": experiment.selection.on,
            "parameters": parameter_count(candidate),
            "experiment": experiment,
            "given": given,
            "init": init,
            "provenance": provenance(),
            **about,
        }
        checkpoint.save_model(folder, candidate, None if model is not None else experiment.model, said)

    train(
        network,
        objective,
        loader,
        experiment.training,
        out=out,
        save=save,
        validate=validate,
        watch=watch,
        seed=fold(experiment.seed, 1),
        resume=resume,
        fabric=fabric,
        quiet=quiet,
    )
    return out


def _chosen_on(splits: Splits, experiment: Experiment) -> Dataset:
    """The images that choose the best checkpoint; a mistake in the names is found here, before hours of training."""
    selection = experiment.selection
    for name in (selection.attack, *experiment.attacks):
        ATTACKS[name](experiment.threat)
    dataset = splits.test if selection.on == "paper" else splits.validation
    if len(dataset) == 0:
        raise Mistake(
            f"there are no {dataset.split} images of {dataset.name} to choose the best checkpoint on; "
            "give --data.validation a share above 0"
        )
    return dataset.sample(selection.limit, seed=experiment.seed)


def _validate(model: nn.Module, dataset: Dataset, experiment: Experiment) -> Validation:
    selection = experiment.selection
    engine = Engine(batch_size=min(256, len(dataset)))
    if isinstance(model, Calibrating):  # before it is judged, so that what is chosen and saved is what is judged
        x, _ = dataset.batch(torch.arange(len(dataset)))
        with frozen_for_attack(model):
            model.calibrate(x.to(device_of(model)))
    unattacked = engine.predict(model, dataset)
    clean = unattacked.correct.float().mean().item()
    robust = None
    if selection.gamma_adv > 0:
        attack = ATTACKS[selection.attack](experiment.threat)
        robust = engine.run(attack, model, dataset, seed=experiment.seed).correct.float().mean().item()
    score = w_robust(clean, robust or 0.0, selection.gamma_nat, selection.gamma_adv)
    return Validation(clean, robust, score, {"detector": operating_points(unattacked.p_clean, split=dataset.split)})


def _teacher(
    role: str,
    name: str,
    *,
    out: Path,
    experiment: Experiment,
    classes: tuple[str, ...],
    channels: int,
    device: str,
    quiet: bool,
    splits: Splits | None,
) -> nn.Module:
    """A teacher from a checkpoint, or from a recipe that is run first if its folder does not hold it whole."""
    if not name:
        raise Mistake(
            f"the objective needs a {role} teacher: name a checkpoint folder or a recipe "
            f"(--objective.{role}-teacher PATH or RECIPE)"
        )
    if name in RECIPES:
        recipe = RECIPES[name]()
        # The same images: where they lie and how they are split belongs to the student's experiment, and what is done to them
        # in training to the teacher's own.
        seed = experiment.seed if experiment.teacher_seed is None else experiment.teacher_seed
        data = replace(experiment.data, padding=recipe.data.padding, flip=recipe.data.flip)
        recipe = replace(recipe, data=data, threat=experiment.threat, seed=seed)
        path = ensure(recipe, _neighbour(out, experiment.name, name), device=device, quiet=quiet, splits=splits)
    else:
        path = Path(name)
        if not path.exists():
            raise Mistake(f"the {role} teacher {name!r} is neither a folder nor a recipe (awnet list recipes)")
    check_fits(path, f"the {role} teacher", classes=len(classes), channels=channels)
    return checkpoint.load(path)


def _check_given(network: nn.Module, what: str, dataset: Dataset, *, classes: int) -> None:
    """Refuse a module that does not answer these images with logits of these classes."""
    x, _ = dataset.batch(torch.arange(2))
    with frozen_for_attack(network), torch.no_grad():
        logits = network(x.to(device_of(network)))
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (2, classes):
        raise Mistake(
            f"{what}, a {type(network).__name__}, answers 2 images with {shape}, expected logits (2, {classes})"
        )


def check_fits(path: Path, what: str, *, classes: int, channels: int) -> None:
    """Refuse a network that is shown images which it was not made for.

    Args:
        path: its checkpoint, or a run's folder.
        what: how the message calls it.
        classes, channels: of the images.

    Raises:
        Mistake: it has others.
    """
    about = checkpoint.read_about(path)
    if len(about["classes"]) != classes:
        raise Mistake(f"{what} in {path} has {len(about['classes'])} classes, the data {classes}")
    if about["shape"][0] != channels:
        raise Mistake(f"{what} in {path} takes {about['shape'][0]} channels, the images have {channels}")


def _neighbour(out: Path, own: str, other: str) -> Path:
    """The folder of another recipe beside this run's: runs/a/b and recipe a/c give runs/a/c; otherwise out/../c."""
    parts = Path(own).parts
    root = out.resolve()
    for part in reversed(parts):
        if root.name != part:
            return out.resolve().parent / other.replace("/", "-")
        root = root.parent
    return root / other


def read(path: Path) -> Experiment:
    """The experiment saved in a file, or in a run's folder.

    Raises:
        Mistake: none there, damaged, or one whose parts were given from Python and cannot be made from a file.
    """
    text = _read(path / "experiment.json" if path.is_dir() else path)
    if text["given"]:
        parts = ", ".join(f"its {what} ({made_by})" for what, made_by in text["given"].items())
        raise Mistake(f"{path} cannot be run from the command line: {parts} came from Python; call awnet.run with them")
    return from_json(text["experiment"], Experiment, "experiment")


def _read(path: Path) -> dict[str, Any]:
    try:
        text = read_json(path)
        if text["format"] != FORMAT:
            raise Mistake(f"{path} has format {text['format']}, this version reads {FORMAT}")
        return {"experiment": text["experiment"], "given": dict(text["given"])}
    except Mistake:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise Mistake(f"no experiment can be read from {path}: {error}") from None


def complete(path: Path, experiment: Experiment, given: Mapping[str, str] | None = None) -> bool:
    """Whether a folder holds this very experiment, with what was given from Python, trained to the end."""
    if not (path / "experiment.json").exists() or not (whole_folder(path / "last") / "model.json").exists():
        return False
    same = _describes(path / "experiment.json", experiment, given or {})
    return same and checkpoint.read_about(path / "last")["epoch"] == experiment.training.epochs


def imported(folder: Path) -> bool:
    """Whether a folder is itself a checkpoint of public weights, as `awnet import` writes one: it needs no training."""
    return _is_checkpoint(folder) and "public" in checkpoint.read_about(folder)


def _is_checkpoint(folder: Path) -> bool:
    return any((folder / name).is_file() for name in checkpoint.DESCRIPTIONS)


def _describes(file: Path, experiment: Experiment, given: Mapping[str, str]) -> bool:
    """Whether this very experiment was saved in a file; a field that the file does not know had its default."""
    saved, own = _read(file), _plain(experiment)
    if saved["given"] != given:
        return False
    return saved["experiment"] == own or _plain(from_json(saved["experiment"], Experiment, "experiment")) == own


def _claim(out: Path, experiment: Experiment, given: dict[str, str], *, resume: bool) -> None:
    """Make the folder this experiment's, unless a run of another has saved something there, or it is a checkpoint itself."""
    if _is_checkpoint(out):  # which whoever reads the folder would be given, whatever is trained in it
        raise Mistake(f"{out} is itself a checkpoint, not the folder of a run; choose another --out")
    file = out / "experiment.json"
    text = {"format": FORMAT, "experiment": _plain(experiment), "given": given}
    saved = any(whole_folder(out / name).exists() for name in ("best", "last"))
    if file.exists() and saved:
        if not _describes(file, experiment, given):
            raise Mistake(f"{out} holds another experiment (see {file}); choose another --out")
        if not resume:
            raise Mistake(f"{out} holds a run of this experiment already; --resume goes on, or choose another --out")
    replace_file(file, json.dumps({**text, "provenance": provenance()}, indent=1) + "\n")


def _plain(experiment: Experiment) -> Any:
    return json.loads(json.dumps(to_json(experiment)))


def _given_images(splits: Splits | None) -> dict[str, str]:
    if splits is None:
        return {}
    parts = (splits.train, splits.validation, splits.test)
    return {"images": ", ".join(f"{part!r} {part.fingerprint}" for part in parts)}


def _class_name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _fabric(device: str, precision: Any) -> Any:
    from lightning_fabric import Fabric

    if device not in ("cpu", "cuda", "auto"):
        raise Mistake(f"the device must be cpu, cuda or auto, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise Mistake("there is no CUDA device here; leave out --device, or use --device cpu")
    return Fabric(accelerator=device, devices=1, precision=precision)
