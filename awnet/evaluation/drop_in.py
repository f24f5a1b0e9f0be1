"""AutoAttack in the clothes of its authors' class (https://github.com/fra31/auto-attack): change one import, keep the script.

    from awnet import AutoAttack          # was: from autoattack import AutoAttack

The constructor, the methods, what they return and the kind of lines that are printed are the reference's; the work is the
engine's. What is different is told in the class.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from awnet.attacks.apgd import APGD
from awnet.attacks.attack import Attack
from awnet.attacks.engine import Engine
from awnet.attacks.eot import EOT
from awnet.attacks.fab import FAB
from awnet.attacks.float32 import in_float32
from awnet.attacks.frozen import frozen_for_attack
from awnet.attacks.inputs import checked, finite, threat_model
from awnet.attacks.square import Square
from awnet.attacks.suite import Suite
from awnet.attacks.sweep import Sweep, TensorExamples
from awnet.checkpoint import read_state
from awnet.config import to_json
from awnet.data.dataset import digest
from awnet.errors import Mistake, unknown
from awnet.evaluation.conventions import are_probabilities, are_separate_probabilities, better_convention
from awnet.evaluation.journal import Journal
from awnet.evaluation.preflight import CHANGE, MOST, RANDOM
from awnet.folders import whole_folder
from awnet.losses import DLR, CrossEntropy, Loss, TargetedDLR
from awnet.models.awnet import AWNet
from awnet.models.model import device_of, fingerprint, judge
from awnet.noise import permutation
from awnet.types import Hits, Images, Labels, Logits

VERSIONS = {
    "standard": ["apgd-ce", "apgd-t", "fab-t", "square"],
    "plus": ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"],
    "rand": ["apgd-ce", "apgd-dlr"],
    "custom": [],
}
KNOWN = VERSIONS["plus"]

FEW = 8  # images on which a model is known again, each asked about so many times
ROUNDING = 5e-3  # of the largest logit, between two machines; TF32 keeps three digits


class _Untouched(str):
    """A default that nobody has changed, which can be told from the same word where somebody says it."""

    __slots__ = ()


CUDA = _Untouched("cuda")


@dataclass(slots=True, kw_only=True)
class Settings:
    """What every attack has.

    Attributes:
        perturb: images and labels to adversarial images, by this attack alone; an image that withstands it comes back as it
            is. Nothing is printed, and the model is not looked at first.
        seed: of `perturb`, where it is not that of all attacks. As in the reference, an evaluation has its own.
        verbose: taken, and of no effect.
    """

    perturb: Callable[[Tensor, Tensor], Tensor] = field(repr=False)
    seed: int | None = None
    verbose: bool = False


@dataclass(slots=True, kw_only=True)
class ClimbSettings(Settings):
    """What can be set of APGD: `adversary.apgd.n_restarts = 1`; of the targeted one at `adversary.apgd_targeted`.

    Attributes:
        loss: of `adversary.apgd.perturb`, "ce" or "dlr"; in an evaluation the name of the attack says it, as in the reference.
        use_largereps: whether runs begin in larger balls: in L1 they do and elsewhere they do not, and None is either.
    """

    n_restarts: int = 5
    n_iter: int = 100
    n_target_classes: int = 9
    eot_iter: int = 1
    rho: float = 0.75
    loss: str = "ce"
    use_largereps: bool | None = None


@dataclass(slots=True, kw_only=True)
class BoundarySettings(Settings):
    """What can be set of FAB, at `adversary.fab`.

    Attributes:
        targeted: of no effect: in an evaluation the name of the attack says it, and `perturb` is FAB-T either way.
    """

    n_restarts: int = 5
    n_iter: int = 100
    n_target_classes: int = 9
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    targeted: bool = False


@dataclass(slots=True, kw_only=True)
class SquareSettings(Settings):
    """What can be set of Square, at `adversary.square`; each of `n_restarts` meets who still stands."""

    n_queries: int = 5000
    p_init: float = 0.8
    resc_schedule: bool = False
    n_restarts: int = 1


class AutoAttack:
    """The reference's `AutoAttack` on the engine of this library.

    It differs from the reference where that could surprise:

    - `seed=None` is 0, not the clock, and what an image meets depends on its place in `x_orig`, not on `bs`.
    - The model is evaluated in eval mode, in whatever mode it is, and left as it was. It is used where it is: `device` moves
      nothing, since images are brought to the model; where it names another place, a warning says so.
    - A model that cannot be asked about one image by itself is asked about that image twice.
    - "fab", FAB without targets, is FAB-T from as many starts, after which "fab-t" has nothing left to do and is not run.
    - Linf and L2 "plus" are the reference's; L1 uses the larger radii of its "standard" in every version.
    - `state_path` is a folder. A run that is killed goes on where it was, inside an attack too, to the very same result, and
      all adversarial images are returned, not those of the last process alone. A state of another run is a mistake; the
      model, which may be a function, is known again by its weights, its knob and its logits on the first images.
    - Before an evaluation the model is looked at. If it draws random numbers, returns probabilities, or is right more often on
      pixels in another range, a RuntimeWarning says so, and it is attacked as it is. The reference's other flags, such as
      for dynamic models, are part of the rigour report.
    - Bad input raises `awnet.Mistake`. A TensorFlow model is not taken.

    Args:
        model: maps [0, 1] images to logits; a module or a function.
        norm: "Linf", "L2" or "L1".
        eps: the radius.
        seed: of all random numbers.
        verbose: whether to print.
        attacks_to_run: for version "custom": of "apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t" and "square".
        version: "standard", "plus", "rand" or "custom".
        is_tf_model: must be False.
        device: where the model should be; None: wherever it is.
        log_path: a file to which the lines are appended.
    """

    def __init__(
        self,
        model: nn.Module | Callable[[Tensor], Tensor],
        norm: str = "Linf",
        eps: float = 0.3,
        seed: int | None = None,
        verbose: bool = True,
        attacks_to_run: Sequence[str] = (),
        version: str = "standard",
        is_tf_model: bool = False,
        device: str | torch.device | None = CUDA,
        log_path: str | Path | None = None,
    ) -> None:
        if is_tf_model:
            raise Mistake("awnet attacks PyTorch models; is_tf_model must be False")
        if version not in VERSIONS:
            raise unknown("version of AutoAttack", version, VERSIONS)
        if version != "custom" and list(attacks_to_run):
            raise Mistake(f"version {version!r} has its own attacks; attacks_to_run is for version 'custom'")
        threat_model(norm, eps)
        self.model, self.norm, self.epsilon, self.seed = model, norm, eps, seed
        self.verbose, self.version, self.is_tf_model, self.device = verbose, version, is_tf_model, device
        self.log_path = log_path
        self.attacks_to_run = list(attacks_to_run)
        self.apgd = ClimbSettings(perturb=partial(self._perturb, "apgd"))
        self.apgd_targeted = ClimbSettings(perturb=partial(self._perturb, "apgd-t"), n_restarts=1, loss="dlr-targeted")
        self.fab = BoundarySettings(perturb=partial(self._perturb, "fab"))
        self.square = SquareSettings(perturb=partial(self._perturb, "square"))
        self._warned: set[str] = set()
        if version != "custom":
            self.set_version(version)

    def set_version(self, version: str = "standard") -> None:
        """The attacks and settings of a version."""
        if version not in VERSIONS:
            raise unknown("version of AutoAttack", version, VERSIONS)
        self._log(f"setting parameters for {version} version")
        self.version, self.attacks_to_run = version, list(VERSIONS[version])
        if version in ("standard", "plus"):
            standard_l1 = version == "standard" and self.norm == "L1"
            self.apgd.n_restarts = 5 if version == "plus" or standard_l1 else 1
            self.fab.n_restarts = 5 if version == "plus" else 1
            self.apgd_targeted.n_restarts, self.apgd_targeted.n_target_classes = 1, 5 if standard_l1 else 9
            self.fab.n_target_classes, self.square.n_queries = 9, 5000
        elif version == "rand":
            self.apgd.n_restarts, self.apgd.eot_iter = 1, 20

    def get_logits(self, x: Tensor) -> Tensor:
        """What the model says."""
        return self.model(x)

    def get_seed(self) -> int:
        """Of the random numbers."""
        return 0 if self.seed is None else self.seed

    def run_standard_evaluation(
        self,
        x_orig: Tensor,
        y_orig: Tensor,
        bs: int = 250,
        return_labels: bool = False,
        state_path: str | Path | None = None,
    ) -> Any:
        """Each attack in turn, on the images that still stand.

        Args:
            x_orig: images in [0, 1], shape (n, c, h, w).
            y_orig: labels, shape (n,).
            bs: how many images the model sees at a time.
            return_labels: whether to return the classes of the adversarial images too.
            state_path: a folder for where the run is; if it holds this run, that goes on.

        Returns:
            x_adv, the images with those that were broken replaced; with `return_labels` (x_adv, y_adv).

        Raises:
            Mistake: where images, labels or model do not fit, or the state is of another run.
        """
        self._log(f"using {self.version} version including {', '.join(self.attacks_to_run)}.")
        suite, task = self._suite(self.attacks_to_run), self._task(x_orig, y_orig, bs)
        self._look(task)
        x_adv, y_adv, _ = self._run(task, suite, self.get_seed(), state_path, log=self._log)
        return (x_adv, y_adv) if return_labels else x_adv

    def run_standard_evaluation_individual(
        self, x_orig: Tensor, y_orig: Tensor, bs: int = 250, return_labels: bool = False
    ) -> dict[str, Any]:
        """Each attack by itself, on all images that are classified correctly.

        Returns:
            By the names of the attacks what `run_standard_evaluation` returns.
        """
        self._log(f"using {self.version} version including {', '.join(self.attacks_to_run)}")
        suites = {name: self._suite([name]) for name in self.attacks_to_run}
        task = self._task(x_orig, y_orig, bs)
        self._look(task)
        adv: dict[str, Any] = {}
        for name, suite in suites.items():
            began = time.monotonic()
            x_adv, y_adv, robust = self._run(task, suite, self.get_seed())
            adv[name] = (x_adv, y_adv) if return_labels else x_adv
            took = time.monotonic() - began
            self._log(f"robust accuracy by {name.upper()} \t {robust:.2%} \t (time attack: {took:.1f} s)")
        return adv

    def clean_accuracy(self, x_orig: Tensor, y_orig: Tensor, bs: int = 250) -> float:
        """The share of images that are classified as labelled."""
        task = self._task(x_orig, y_orig, bs)
        found = task.engine.predict(task.model, task.examples).correct.double().mean().item()
        self._log(f"clean accuracy: {found:.2%}")
        return found

    def _perturb(self, name: str, x: Tensor, y: Tensor) -> Images:
        """By one attack, whose name is "apgd" where its loss is set."""
        if name == "apgd":
            if self.apgd.loss not in ("ce", "dlr"):
                raise unknown("loss of APGD", str(self.apgd.loss), ("ce", "dlr"))
            name = f"apgd-{self.apgd.loss}"
        own = {"apgd-t": self.apgd_targeted, "fab": self.fab, "square": self.square}.get(name, self.apgd)
        suite, task = self._suite([name]), self._task(x, y, max(len(x), 1))
        x_adv, _, _ = self._run(task, suite, self.get_seed() if own.seed is None else own.seed)
        return x_adv

    def _task(self, x_orig: Tensor, y_orig: Tensor, bs: int) -> _Task:
        """Model and images as the engine takes them.

        Raises:
            Mistake: where they do not fit.
        """
        x, y = checked(x_orig, y_orig)
        model, engine = self._module(x), Engine(batch_size=min(bs, max(len(x), 1)))
        if away := self._away(device_of(model, x.device)):
            self._warn(away)
        if len(x) and engine.batch_size == 1 and not _answers_to(model, x[[0]]) and _answers_to(model, x[[0, 0]]):
            model = _Doubling(model)
        examples = _examples(x, y)
        return _Task(x_orig, y_orig, model, examples, engine.suited(model, examples))

    def _away(self, there: torch.device) -> str:
        """What to say where the model is not on the device that was asked for, as it is without CUDA only by request."""
        if self.device is None or (isinstance(self.device, _Untouched) and not torch.cuda.is_available()):
            return ""
        try:
            asked = torch.device(self.device).type
        except (RuntimeError, TypeError):
            raise Mistake(f"expected a device such as 'cpu' or 'cuda', got {self.device!r}") from None
        if asked == there.type:
            return ""
        way = "model.to" if isinstance(self.model, nn.Module) else "images.to"  # a function follows its images
        return (
            f"device={str(self.device)!r} moves nothing here: the model is asked on the {there.type}, where it is; call "
            f"{way}({asked!r}) first, or say device={there.type!r}"
        )

    def _look(self, task: _Task) -> None:
        """Warn of what makes an evaluation mean less than it seems to."""
        model, (x, y, _), size = task.model, task.examples, task.engine.batch_size
        if len(x) == 0:
            return
        answers = _answers(model, x, size)
        if self.version != "rand" and _drawn(answers) > CHANGE * answers[0].abs().max():
            self._warn(
                f"{RANDOM}: attacks on single draws are weak, and accuracies change from run to run; use version='rand'"
            )
        if are_separate_probabilities(answers[0]):
            self._warn(
                "the model's outputs lie in [0, 1], as a sigmoid's do, which the losses take for logits, so that attacks are "
                "held up; leave the sigmoid out"
            )
        if are_probabilities(answers[0]):
            self._warn(
                "the model returns probabilities, which the losses take for logits, so that attacks are held up; let it return "
                "the logits, or the probabilities' logarithm"
            )
        some = permutation(0, len(x))[:MOST].sort().values

        def right(images: Images) -> Hits:
            with _looking(model):
                logits = _logits(model, images, size)
            return (logits.argmax(1) == y[some].cpu()) & finite(logits)

        if better := better_convention(right, x[some]):
            found = better.sentence[:1].lower() + better.sentence[1:].rstrip(".")
            self._warn(f"{found}; let the model change them, by a first layer, so that eps means pixels")

    def _run(
        self,
        task: _Task,
        suite: Suite,
        seed: int,
        state_path: str | Path | None = None,
        log: Callable[[str], None] = lambda line: None,
    ) -> tuple[Images, Labels, float]:
        """x_adv, y_adv and the robust accuracy."""
        x_orig, y_orig, model, examples, engine = task
        x, y, _ = examples
        if len(x) == 0:
            return x_orig.clone(), y_orig.clone(), float("nan")
        pixels = digest([x.cpu().numpy().tobytes(), y.cpu().numpy().tobytes()])
        of = {
            "model": fingerprint(model),
            "knob": to_json(model.knob) if isinstance(model, AWNet) else None,
            "images": pixels,
            "suite": to_json(suite),
            "seed": seed,
            "engine": to_json(engine),
        }
        clean = engine.predict(model, examples)
        log(f"initial accuracy: {clean.correct.double().mean().item():.2%}")
        journal = self._journal(state_path, of, task)
        began, told = time.monotonic(), _Told(suite.names, clean.correct, engine.batch_size, log)

        def begin(member: int) -> Sweep:
            return engine.begin(suite, model, examples, seed=seed, member=member)

        last: list[Sweep] = []

        def watch(sweep: Sweep) -> None:
            last[:] = [sweep]
            told.where(sweep, time.monotonic() - began)
            if journal and journal.due:
                journal.write(sweep)

        sweep = journal.recall(begin) if journal else None
        outcome = engine.run(suite, model, examples, seed=seed, sweep=sweep, watch=watch)
        if journal and last:
            journal.write(last[0])
        told.rest(outcome.broken_by, time.monotonic() - began)
        broken = (~outcome.correct).to(x_orig.device)
        x_adv = torch.where(broken[:, None, None, None], outcome.x_adv.to(x_orig.device), x_orig.detach())
        y_adv = torch.where(broken, outcome.prediction.to(x_orig.device), y_orig.to(x_orig.device)).to(y_orig)
        robust = outcome.correct.double().mean().item()
        largest = suite.threat.distance(x, x_adv).max()
        log(
            f"max {self.norm} perturbation: {largest:.5f}, nan in tensor: {int(x_adv.isnan().sum())}, "
            f"max: {x_adv.max():.5f}, min: {x_adv.min():.5f}"
        )
        log(f"robust accuracy: {robust:.2%}")
        return x_adv, y_adv, robust

    def _journal(self, state_path: str | Path | None, of: dict[str, Any], task: _Task) -> Journal | None:
        if state_path is None:
            return None
        folder = Path(state_path)
        if folder.is_file():
            raise Mistake(f"{folder} is a file, perhaps a state of the reference's; awnet keeps its state in a folder")
        answers = _answers(task.model, task.examples.x, task.engine.batch_size)
        of = {**of, "logits": answers[0].tolist()}
        if (whole_folder(folder) / "training.json").exists():
            known = read_state(folder)["of"]
            if not _same(known, of, answers, weights=bool(task.model.state_dict())):
                raise Mistake(
                    f"{folder} holds the state of another run (model, images, attacks, seed or batch size differ); choose "
                    "another state_path"
                )
            of = known  # its logits as they were
            self._log(f"Restored state from {folder}")
        else:
            self._log(f"Created state in {folder}")
        return Journal(folder, of, 60.0)

    def _module(self, x: Tensor) -> nn.Module:
        return self.model if isinstance(self.model, nn.Module) else _Function(self.model, x.device)

    def _suite(self, attacks: Sequence[str]) -> Suite:
        if not attacks:
            raise Mistake("there are no attacks to run; name some in attacks_to_run, such as ['apgd-ce', 'square']")
        twice = {"fab", "fab-t"} <= set(attacks) and self.version != "custom"
        members: list[tuple[str, Attack]] = []
        for name in attacks:
            if twice and name == "fab-t":
                continue
            attack, runs = self._attack(name), self.square.n_restarts if name == "square" else 1
            members += [(name if run == 0 else f"{name}-{run + 1}", attack) for run in range(runs)]
        return Suite(members=tuple(members))

    def _attack(self, name: str) -> Attack:
        threat, fab, square = threat_model(self.norm, self.epsilon), self.fab, self.square
        if name in ("apgd-ce", "apgd-dlr", "apgd-t"):
            losses: dict[str, Loss] = {"apgd-ce": CrossEntropy(), "apgd-dlr": DLR(), "apgd-t": TargetedDLR()}
            own, larger = self.apgd_targeted if name == "apgd-t" else self.apgd, self.norm == "L1"
            if own.use_largereps not in (None, larger):
                raise Mistake(
                    f"expected use_largereps={larger} in {self.norm}, got {own.use_largereps}: APGD begins in larger balls in "
                    "L1, and here in no other norm; leave it as it is"
                )
            if name == "apgd-t" and own.loss != "dlr-targeted":
                raise Mistake(f"expected the loss 'dlr-targeted' of apgd_targeted, got {own.loss!r}; leave it as it is")
            attack = APGD(
                threat=threat,
                loss=losses[name],
                targets=own.n_target_classes if name == "apgd-t" else 0,
                restarts=own.n_restarts,
                steps=own.n_iter,
                rho=own.rho,
            )
            return EOT(attack=attack, samples=own.eot_iter) if own.eot_iter > 1 else attack
        if name in ("fab", "fab-t"):
            return FAB(
                threat=threat,
                targets=fab.n_target_classes,
                restarts=fab.n_restarts if name == "fab" else 1,
                steps=fab.n_iter,
                alpha=fab.alpha_max,
                eta=fab.eta,
                beta=fab.beta,
            )
        if name == "square":
            if square.n_restarts < 1:
                raise Mistake(f"Square needs n_restarts of at least 1, got {square.n_restarts}")
            return Square(threat=threat, steps=square.n_queries, p=square.p_init, rescale=square.resc_schedule)
        raise unknown("attack of AutoAttack", name, KNOWN)

    def _warn(self, sentence: str) -> None:
        """Say a sentence once, to Python and in the log."""
        if sentence not in self._warned:
            self._warned.add(sentence)
            warnings.warn(sentence, RuntimeWarning, stacklevel=4)  # the line of the script
            self._log(f"Warning: {sentence}")

    def _log(self, line: str) -> None:
        if self.verbose:
            print(line)  # noqa: T201 - as the class does whose place it takes
            if self.log_path is not None:
                with Path(self.log_path).open("a") as file:
                    file.write(f"{line}\n")


class _Function(nn.Module):
    """A function as a module, which lies where its images do: what weights the function has cannot be seen."""

    def __init__(self, function: Callable[[Tensor], Tensor], device: torch.device) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("place", torch.empty(0, device=device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class _Doubling(nn.Module):
    """A model that raises on a batch of one, or loses its first dimension, and so is asked about that image twice."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(torch.cat([x, x]))[:1] if len(x) == 1 else self.model(x)


class _Task(NamedTuple):
    """What is to be attacked.

    Attributes:
        x_orig, y_orig: as they were handed over.
        model, examples: as the engine takes them.
        engine: with the batch size.
    """

    x_orig: Tensor
    y_orig: Tensor
    model: nn.Module
    examples: TensorExamples
    engine: Engine


class _Told:
    """What has been printed of a run: how far each attack is, and the robust accuracy after it."""

    def __init__(self, names: Sequence[str], clean: Tensor, every: int, log: Callable[[str], None]) -> None:
        self.names, self.clean, self.every, self.log = names, clean, every, log
        self.member, self.done = 0, 0

    def where(self, sweep: Sweep, seconds: float) -> None:
        """Tell of attacks that have ended, and of each `every` images of the one under way."""
        if sweep.again:  # what falls so late is told of with the last attack
            return
        while self.member < sweep.member:
            self._after(sweep.broken_by, seconds)
        standing = int(sweep.correct.sum())
        done = sweep.finished - (len(sweep.left) - standing)
        if done // self.every > self.done // self.every or (done == standing and done > self.done):
            self.log(f"{self.names[self.member]} - {done} of {standing} images done")
            self.done = done

    def rest(self, broken_by: Tensor, seconds: float) -> None:
        """Tell of the attacks that have not been told of."""
        while self.member < len(self.names):
            self._after(broken_by, seconds)

    def _after(self, broken_by: Tensor, seconds: float) -> None:
        stands = self.clean & ((broken_by < 0) | (broken_by > self.member))
        name, robust = self.names[self.member].upper(), stands.double().mean().item()
        self.log(f"robust accuracy after {name}: {robust:.2%} (total time {seconds:.1f} s)")
        self.member, self.done = self.member + 1, 0


@contextmanager
def _looking(model: nn.Module) -> Iterator[None]:
    """While it lasts, the model is as under attack; torch's random numbers go on afterwards as if nobody had looked."""
    place = device_of(model)
    forked = torch.random.fork_rng([place] if place.type == "cuda" else [])
    with forked, in_float32(model), frozen_for_attack(model), torch.no_grad():
        yield


def _answers_to(model: nn.Module, x: Images) -> bool:
    """Whether a model has a row of logits for each image of such a batch."""
    with _looking(model):
        try:
            logits = model(x.to(device_of(model, x.device)))
        except Exception:  # a user's code can raise anything
            return False
    return isinstance(logits, Tensor) and logits.ndim == 2 and len(logits) == len(x)


def _logits(model: nn.Module, x: Images, size: int) -> Logits:
    """Those of some images, a few at a time in batches that are filled up with the last one, as the engine's are."""
    size, device = min(size, FEW), device_of(model, x.device)
    places = torch.arange(-(-len(x) // size) * size).clamp(max=len(x) - 1)
    logits = torch.cat([judge(model, x[index].to(device))[0] for index in places.split(size)])
    return logits[: len(x)].float().cpu()


def _answers(model: nn.Module, x: Images, size: int) -> Tensor:
    """The logits of the first images, asked for again and again, shape (times, images, classes)."""
    with _looking(model):
        return torch.stack([_logits(model, x[:FEW], size) for _ in range(FEW)]).nan_to_num(0, 0, 0)


def _drawn(answers: Tensor) -> Tensor:
    """By how much answers differ, as they do where a model draws random numbers."""
    return (answers - answers[0]).abs().max()


def _same(known: dict[str, Any], of: dict[str, Any], answers: Tensor, *, weights: bool) -> bool:
    """Whether a state is of a run.

    Args:
        known: what the state says that it is of. One of an earlier version, without logits, goes by the weights alone.
        of: what the run is of.
        answers: of its model; where they differ, it draws random numbers, and one more answer may differ likewise.
        weights: whether the model has any.
    """
    if any(known[name] != of.get(name) for name in known if name != "logits"):
        return False
    if "logits" not in known:
        return weights
    logits, first = torch.tensor(known["logits"]), answers[0]
    if logits.shape != first.shape:
        return False
    return bool((logits - first).abs().max() <= ROUNDING * first.abs().max() + 2 * _drawn(answers))


def _examples(x: Images, y: Labels) -> TensorExamples:
    return TensorExamples(x, y, torch.arange(len(x)))
