"""The one training loop. Everything random in it is a function of the seed and the step, so a resumed run needs no more
than its weights and the place where it stopped, and comes to the same weights bit for bit (on the CPU)."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from awnet.checkpoint import read_state, save_state
from awnet.config import setting
from awnet.data.loader import Loader
from awnet.errors import Mistake
from awnet.folders import replace_file, replace_folder, whole_folder
from awnet.interrupt import CtrlC, Interrupt
from awnet.noise import fold
from awnet.processor import trainable_channels_last, without_avx512
from awnet.training.ema import EMA, fit_statistics
from awnet.training.objective import Losses, Moment, Objective
from awnet.training.optimizer import Schedule, SGDConfig, StepDecay
from awnet.training.overfitting import OverfittingConfig, Watched
from awnet.training.progress import Progress
from awnet.training.swa import SWA

if TYPE_CHECKING:
    # not at run time before a training begins: it imports torch's compiler, a second that a help text can do without
    from lightning_fabric import Fabric


@setting
@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long and how a network is trained; the defaults are the paper's (5.1).

    Args:
        epochs: passes over the training images.
        batch_size: clean images a step; each has an adversarial partner beside it.
        optimizer: SGD.
        schedule: of the learning rate.
        eps_warm_up: the share of the training in which the inner attack's radius rises from 0 to that of the threat
            model. With a large radius from the first step a small network may never leave the constant answer.
        ema: decay of the average of weights that is validated and saved; 0 for none.
        swa: the share of the epochs, the last ones, whose weights are averaged, each epoch counting the same, and then
            validated and saved; 0 for none.
        statistics_images: training images on which the average's batch statistics are measured.
        clip: largest norm of the gradient; 0 for no clipping.
        precision: "bf16-mixed" for bfloat16 where it is safe.
        channels_last: memory layout.
        validate_every: epochs between validations; the last epoch is always validated.
        save_seconds: how much work a crash may cost; saving changes no result.
        overfitting: the watch for catastrophic overfitting, for one-step adversarial training.
    """

    epochs: int = 100
    batch_size: int = 256
    optimizer: SGDConfig = field(default_factory=SGDConfig)
    schedule: Schedule = field(default_factory=StepDecay)
    eps_warm_up: float = 0.0
    ema: float = 0.0
    swa: float = 0.0
    statistics_images: int = 1024
    clip: float = 0.0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    channels_last: bool = True
    validate_every: int = 1
    save_seconds: float = 60.0
    overfitting: OverfittingConfig = field(default_factory=OverfittingConfig)

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or self.validate_every < 1 or not 0 <= self.ema < 1:
            raise Mistake(
                "training needs epochs >= 1, batch_size >= 2, validate_every >= 1 and 0 <= ema < 1; got "
                f"{self.epochs}, {self.batch_size}, {self.validate_every} and {self.ema:g}"
            )
        if not 0 <= self.swa <= 1 or (self.swa and self.ema):
            raise Mistake(
                "swa is the share of the epochs that are averaged, between 0 (none) and 1, and goes without ema; got "
                f"{self.swa:g} and ema {self.ema:g}"
            )
        if not (0 <= self.eps_warm_up <= 1 and 0 <= self.clip < inf):
            raise Mistake(
                "eps_warm_up is a share of the training between 0 and 1, and clip a norm of 0 (none) or more, got "
                f"{self.eps_warm_up:g} and {self.clip:g}"
            )
        if self.statistics_images < 1 or not self.save_seconds >= 0:
            raise Mistake(
                "training needs statistics_images >= 1 and save_seconds >= 0, got "
                f"{self.statistics_images} and {self.save_seconds:g}"
            )


class Validation(NamedTuple):
    """Accuracies in [0, 1] on images that are not trained on, and the score by which the best checkpoint is chosen.

    `robust` is None where nothing was attacked; `about` is what else was found there and is kept with the checkpoint.
    """

    clean: float
    robust: float | None
    score: float
    about: Mapping[str, Any] = MappingProxyType({})


class Step(nn.Module):
    """Model and objective as one module, so that Fabric puts precision and distribution around the whole step."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, x: Tensor, y: Tensor, ids: Tensor, moment: Moment) -> Losses:
        return self.objective(self.model, x, y, ids, moment)


def train(
    model: nn.Module,
    objective: Objective,
    loader: Loader,
    config: TrainingConfig,
    *,
    out: Path,
    save: Callable[[Path, nn.Module, dict[str, Any]], None],
    validate: Callable[[nn.Module], Validation],
    watch: Callable[[nn.Module], Watched] | None = None,
    seed: int = 0,
    resume: bool = False,
    fabric: Fabric | None = None,
    quiet: bool = False,
) -> list[dict[str, float]]:
    """Train a model and keep its best and its last checkpoint in `out`.

    Args:
        model: any module that the objective can train; changed in place.
        objective: the loss.
        loader: of the training images.
        config: the settings.
        out: the run's folder: best/, last/, log.csv and TensorBoard's events.
        save: writes a model into a folder, given what to say of it (`history`, `epoch`).
        validate: tells how good a model is.
        watch: looks at the model after each epoch, itself and not the average of its weights.
        seed: of everything random.
        resume: go on from out/last where there is one.
        fabric: device, precision and distribution; by default a Fabric for `config.precision` on the CPU.
        quiet: show nothing.

    Returns:
        A row of numbers for each epoch.

    Raises:
        Mistake: where the loss stops being a number, what was saved before is kept; where `watch` says so, after saving.
        Interrupt: after Ctrl-C, once the state is saved.
    """
    if fabric is None:
        from lightning_fabric import Fabric

        fabric = Fabric(accelerator="cpu", devices=1, precision=config.precision)
    on_cpu = fabric.device.type == "cpu"
    channels_last = config.channels_last and (not on_cpu or trainable_channels_last(model))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    objective.prepare(model)
    whole = Step(model, objective)
    step, optimizer = fabric.setup(whole, config.optimizer.build(whole))
    ema = EMA(model, config.ema) if config.ema else None
    swa = SWA(model, config.epochs - max(1, round(config.swa * config.epochs))) if config.swa else None
    average = ema or swa
    place = _Place()
    if resume and whole_folder(out / "last").exists():
        place = _restore(out / "last", model, objective, optimizer, average)
    steps = len(loader)
    # what the network itself may draw (dropout) comes from torch's generator, seeded anew at each step
    drawn = torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else [])
    progress = Progress(config.epochs, steps, quiet=quiet, out=out, step=place.epoch * steps + place.step)
    if on_cpu and config.precision == "bf16-mixed" and without_avx512():
        progress.say(
            "this processor has no AVX-512, without which bfloat16 takes several times as long as float32: give "
            "--training.precision 32-true"
        )
    with progress, CtrlC(progress.say) as ctrl_c, drawn:

        def broken(what: str, step: int) -> Mistake:
            return Mistake(
                f"{what} in epoch {place.epoch + 1}, step {step}; what was saved before is kept in {out}; "
                f"try a lower learning rate (now {optimizer.param_groups[0]['lr']:g}) or clip=1"
            )

        def check_weights() -> None:  # a finite loss may have an infinite gradient: before anything is overwritten
            if not all(p.isfinite().all() for p in model.parameters()):
                raise broken("weights are no numbers any more", place.step)

        def keep(shown: nn.Module, found: Mapping[str, Any] = MappingProxyType({})) -> None:
            state = _state(place, model, objective, optimizer, average)
            about = {"history": place.history, "epoch": place.epoch, **found}

            def write(folder: Path) -> None:
                save(folder, shown, about)
                save_state(folder, state)

            replace_folder(out / "last", write)

        step.train()
        last_save = time.monotonic()
        while place.epoch < config.epochs:
            for batch in loader.epoch(place.epoch, place.step):
                count = place.epoch * steps + place.step
                done = count / (config.epochs * steps)
                factor = config.schedule.factor(done, place.epoch / config.epochs)
                eps_factor = min(1.0, done / config.eps_warm_up) if config.eps_warm_up else 1.0
                for group in optimizer.param_groups:
                    group["lr"] = group["base_lr"] * factor
                x = batch.x.contiguous(memory_format=layout)
                torch.manual_seed(fold(seed, count, 1))
                losses = step(x, batch.y, batch.ids, Moment(fold(seed, count), factor, eps_factor, count, done))
                total = losses.total
                fabric.backward(total)
                if config.clip:
                    fabric.clip_gradients(step, optimizer, max_norm=config.clip, error_if_nonfinite=False)
                optimizer.step()
                optimizer.zero_grad()
                if ema:
                    ema.update(model, count)
                row = _numbers(losses, total, factor)
                if not row["loss"].isfinite():
                    raise broken(f"the loss is {row['loss'].item()}", place.step + 1)
                place.add(row)
                progress.advance(len(batch.y), place.means())
                if ctrl_c.pressed or time.monotonic() - last_save > config.save_seconds:
                    check_weights()
                    keep(model)
                    last_save = time.monotonic()
                    if ctrl_c.pressed:
                        raise Interrupt(
                            f"stopped in epoch {place.epoch + 1}; saved in {out}; --resume goes on from there"
                        )
            row = {"epoch": place.epoch + 1, **place.means()}
            check_weights()
            if swa:
                swa.update(model, place.epoch)
            torch.manual_seed(fold(seed, place.epoch * steps + place.step, 1))
            candidate, about = model, {}  # `last` holds an average only where its batch norms were fitted to it
            if (place.epoch + 1) % config.validate_every == 0 or place.epoch + 1 == config.epochs:
                if average:
                    candidate = deepcopy(average.model)  # so that the average itself stays what a resume finds
                    count = max(1, config.statistics_images // config.batch_size)
                    batches = list(islice(loader.epoch(config.epochs), count))  # of an epoch that is never trained on
                    fit_statistics(candidate, objective, batches, fold(seed, -1))
                found = validate(candidate)
                about = found.about
                row["validation_clean"] = found.clean
                row |= {} if found.robust is None else {"validation_robust": found.robust}
                row["validation_score"] = found.score
                best = found.score > place.best
                place.best = max(place.best, found.score)
            else:
                best = False
            watched = watch(model) if watch else Watched({})
            row.update(watched.numbers)
            place.next_epoch(row)
            if best:
                said = {"history": place.history, "epoch": place.epoch, **about}
                replace_folder(out / "best", lambda folder: save(folder, candidate, said))  # noqa: B023
            _write_csv(out / "log.csv", place.history)
            keep(candidate, about)
            last_save = time.monotonic()
            progress.epoch(row)
            if watched.stop:
                raise Mistake(f"stopped after epoch {place.epoch}: {watched.alarm}; saved in {out}; --resume goes on")
            if watched.alarm:
                progress.say(watched.alarm)
    return place.history


@dataclass
class _Place:
    """Where a run is: whole epochs, steps of the current one, sums over them, and what was found so far."""

    epoch: int = 0
    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    best: float = float("-inf")

    def add(self, row: dict[str, Tensor]) -> None:
        self.step += 1
        for name, value in row.items():
            self.sums[name] = self.sums.get(name, torch.zeros((), dtype=torch.float64)) + value.double().cpu()

    def means(self) -> dict[str, float]:
        return {name: (total / max(self.step, 1)).item() for name, total in self.sums.items()}

    def next_epoch(self, row: dict[str, float]) -> None:
        self.history.append(row)
        self.epoch, self.step, self.sums = self.epoch + 1, 0, {}


def _numbers(losses: Losses, total: Tensor, factor: float) -> dict[str, Tensor]:
    """What is logged of a step."""
    terms = {f"loss_{name}": term.detach().mean() for name, term in losses.terms.items()}
    return {"loss": total.detach(), **terms, **losses.watched, "lr_factor": torch.tensor(factor, dtype=torch.float64)}


def _state(
    place: _Place, model: nn.Module, objective: Objective, optimizer: Any, average: EMA | SWA | None
) -> dict[str, Any]:
    return {
        "place": {name: getattr(place, name) for name in ("epoch", "step", "sums", "history")}
        | {"best": str(place.best)},
        "model": model.state_dict(),
        "objective": objective.state_dict(),
        "optimizer": optimizer.state_dict(),
        "ema": average.model.state_dict() if average else {},
    }


def _restore(folder: Path, model: nn.Module, objective: Objective, optimizer: Any, average: EMA | SWA | None) -> _Place:
    state = read_state(folder)
    try:
        model.load_state_dict(state["model"])
        objective.load_state_dict(state["objective"])
        saved = state["optimizer"]
        saved["state"] = {int(number): value for number, value in saved["state"].items()}
        optimizer.load_state_dict(saved)
        if average:
            average.model.load_state_dict(state["ema"])
        place = state["place"]
        if not all(type(place[name]) is int and place[name] >= 0 for name in ("epoch", "step")):
            raise ValueError(f"epoch {place['epoch']!r} and step {place['step']!r} are no counts")
        if not all(isinstance(row, dict) for row in place["history"]):
            raise ValueError("its history is none")
        if not all(t.numel() == 1 for t in place["sums"].values()):
            raise ValueError("its sums are no numbers")
        return _Place(**{**place, "best": float(place["best"])})
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise Mistake(f"the training state in {folder} does not fit this experiment: {error}") from None


def _write_csv(path: Path, history: list[dict[str, float]]) -> None:
    """The whole log anew, so that a resumed run's log is that of the uninterrupted one."""
    names = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    replace_file(path, text.getvalue())
