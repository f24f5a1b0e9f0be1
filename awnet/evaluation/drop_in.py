"""AutoAttack in the clothes of its authors' class (https://github.com/fra31/auto-attack): change one import, keep the script.

    from awnet import AutoAttack          # was: from autoattack import AutoAttack

The constructor, the methods, what they return and the kind of lines that are printed are the reference's; the work is the
engine's. What is different is told in the class.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from awnet.attacks.apgd import APGD
from awnet.attacks.attack import Attack
from awnet.attacks.engine import Engine, Sweep, TensorExamples
from awnet.attacks.eot import EOT
from awnet.attacks.fab import FAB
from awnet.attacks.frozen import frozen_for_attack
from awnet.attacks.inputs import checked, threat_model
from awnet.attacks.square import Square
from awnet.attacks.suite import Suite
from awnet.checkpoint import read_state
from awnet.config import to_json
from awnet.data.dataset import digest
from awnet.errors import Mistake, unknown
from awnet.evaluation.journal import Journal
from awnet.folders import whole_folder
from awnet.losses import DLR, CrossEntropy, Loss, TargetedDLR
from awnet.models.awnet import AWNet
from awnet.models.model import device_of, fingerprint, judge
from awnet.types import Images, Labels

VERSIONS = {
    "standard": ["apgd-ce", "apgd-t", "fab-t", "square"],
    "plus": ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"],
    "rand": ["apgd-ce", "apgd-dlr"],
    "custom": [],
}
KNOWN = VERSIONS["plus"]

FEW = 8  # images on which a model is known again, each asked about so many times
ROUNDING = 5e-3  # of the largest logit, between two machines; TF32 keeps three digits


@dataclass(slots=True)
class ClimbSettings:
    """What can be set of APGD: `adversary.apgd.n_restarts = 1`; of the targeted one at `adversary.apgd_targeted`."""

    n_restarts: int = 5
    n_iter: int = 100
    n_target_classes: int = 9
    eot_iter: int = 1
    rho: float = 0.75


@dataclass(slots=True)
class BoundarySettings:
    """What can be set of FAB, at `adversary.fab`."""

    n_restarts: int = 5
    n_iter: int = 100
    n_target_classes: int = 9
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9


@dataclass(slots=True)
class SquareSettings:
    """What can be set of Square, at `adversary.square`."""

    n_queries: int = 5000
    p_init: float = 0.8
    resc_schedule: bool = False


class AutoAttack:
    """The reference's `AutoAttack` on the engine of this library.

    It differs from the reference where that could surprise:

    - `seed=None` is 0, not the clock, and what an image meets depends on its place in `x_orig`, not on `bs`.
    - The model is evaluated in eval mode, in whatever mode it is, and left as it was. It is used where it is: `device` moves
      nothing, since images are brought to the model.
    - "fab", FAB without targets, is FAB-T from as many starts, after which "fab-t" has nothing left to do and is not run.
    - Linf and L2 "plus" are the reference's; L1 uses the larger radii of its "standard" in every version.
    - `state_path` is a folder. A run that is killed goes on where it was, inside an attack too, to the very same result, and
      all adversarial images are returned, not those of the last process alone. A state of another run is a mistake; the
      model, which may be a function, is known again by its weights, its knob and its logits on the first images.
    - The reference's warnings about models (randomised, probabilities, dynamic) are part of the rigour report.
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
        device: not used.
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
        device: str | torch.device = "cuda",
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
        self.apgd = ClimbSettings()
        self.apgd_targeted = ClimbSettings(n_restarts=1)
        self.fab = BoundarySettings()
        self.square = SquareSettings()
        if version != "custom":
            self.set_version(version)

    def set_version(self, version: str = "standard") -> None:
        """The attacks and settings of a version."""
        if version not in VERSIONS:
            raise unknown("version of AutoAttack", version, VERSIONS)
        self._log(f"setting parameters for {version} version")
        self.version, self.attacks_to_run = version, list(VERSIONS[version])
        if version == "standard":
            self.apgd.n_restarts = 5 if self.norm == "L1" else 1
            self.apgd_targeted.n_target_classes = 5 if self.norm == "L1" else 9
            self.fab.n_restarts = 1
        elif version == "plus":
            self.apgd.n_restarts = self.fab.n_restarts = 5
            self.apgd_targeted.n_target_classes = 9
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
        x_adv, y_adv, _ = self._run(x_orig, y_orig, bs, state_path)
        return (x_adv, y_adv) if return_labels else x_adv

    def run_standard_evaluation_individual(
        self, x_orig: Tensor, y_orig: Tensor, bs: int = 250, return_labels: bool = False
    ) -> dict[str, Any]:
        """Each attack by itself, on all images that are classified correctly.

        Returns:
            By the names of the attacks what `run_standard_evaluation` returns.
        """
        self._log(f"using {self.version} version including {', '.join(self.attacks_to_run)}")
        adv: dict[str, Any] = {}
        verbose, attacks = self.verbose, self.attacks_to_run
        try:
            for name in attacks:
                self.attacks_to_run, self.verbose = [name], False
                began = time.monotonic()
                x_adv, y_adv, robust = self._run(x_orig, y_orig, bs, None)
                adv[name] = (x_adv, y_adv) if return_labels else x_adv
                self.verbose = verbose
                took = time.monotonic() - began
                self._log(f"robust accuracy by {name.upper()} \t {robust:.2%} \t (time attack: {took:.1f} s)")
        finally:
            self.verbose, self.attacks_to_run = verbose, attacks
        return adv

    def clean_accuracy(self, x_orig: Tensor, y_orig: Tensor, bs: int = 250) -> float:
        """The share of images that are classified as labelled."""
        model = self._module(x_orig)
        x, y = checked(model, x_orig, y_orig)
        correct = Engine(batch_size=min(bs, max(len(x), 1))).predict(model, _examples(x, y)).correct
        found = correct.double().mean().item()
        self._log(f"clean accuracy: {found:.2%}")
        return found

    def _run(
        self, x_orig: Tensor, y_orig: Tensor, bs: int, state_path: str | Path | None
    ) -> tuple[Images, Labels, float]:
        """x_adv, y_adv and the robust accuracy."""
        model, suite, seed = self._module(x_orig), self._suite(), self.get_seed()
        x, y = checked(model, x_orig, y_orig)
        if len(x) == 0:
            return x_orig.clone(), y_orig.clone(), float("nan")
        examples, engine = _examples(x, y), Engine(batch_size=min(bs, len(x)))
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
        self._log(f"initial accuracy: {clean.correct.double().mean().item():.2%}")
        journal = self._journal(state_path, of, model, x)
        began, told = time.monotonic(), _Told(suite.names, clean.correct, max(bs, 1), self._log)

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
        self._log(
            f"max {self.norm} perturbation: {largest:.5f}, nan in tensor: {int(x_adv.isnan().sum())}, "
            f"max: {x_adv.max():.5f}, min: {x_adv.min():.5f}"
        )
        self._log(f"robust accuracy: {robust:.2%}")
        return x_adv, y_adv, robust

    def _journal(
        self, state_path: str | Path | None, of: dict[str, Any], model: nn.Module, x: Images
    ) -> Journal | None:
        if state_path is None:
            return None
        folder = Path(state_path)
        if folder.is_file():
            raise Mistake(f"{folder} is a file, perhaps a state of the reference's; awnet keeps its state in a folder")
        answers = _answers(model, x[:FEW])
        of = {**of, "logits": answers[0].tolist()}
        if (whole_folder(folder) / "training.json").exists():
            known = read_state(folder)["of"]
            if not _same(known, of, answers, weights=bool(model.state_dict())):
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

    def _suite(self) -> Suite:
        if not self.attacks_to_run:
            raise Mistake("there are no attacks to run; name some in attacks_to_run, such as ['apgd-ce', 'square']")
        twice = {"fab", "fab-t"} <= set(self.attacks_to_run) and self.version != "custom"
        names = [name for name in self.attacks_to_run if not (twice and name == "fab-t")]
        return Suite(members=tuple((name, self._attack(name)) for name in names))

    def _attack(self, name: str) -> Attack:
        threat, fab, square = threat_model(self.norm, self.epsilon), self.fab, self.square
        if name in ("apgd-ce", "apgd-dlr", "apgd-t"):
            losses: dict[str, Loss] = {"apgd-ce": CrossEntropy(), "apgd-dlr": DLR(), "apgd-t": TargetedDLR()}
            own = self.apgd_targeted if name == "apgd-t" else self.apgd
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
            return Square(threat=threat, steps=square.n_queries, p=square.p_init, rescale=square.resc_schedule)
        raise unknown("attack of AutoAttack", name, KNOWN)

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


class _Told:
    """What has been printed of a run: how far each attack is, and the robust accuracy after it."""

    def __init__(self, names: Sequence[str], clean: Tensor, every: int, log: Callable[[str], None]) -> None:
        self.names, self.clean, self.every, self.log = names, clean, every, log
        self.member, self.done = 0, 0

    def where(self, sweep: Sweep, seconds: float) -> None:
        """Tell of attacks that have ended, and of each `every` images of the one under way."""
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


def _answers(model: nn.Module, x: Images) -> Tensor:
    """The logits of a few images, asked for again and again, shape (times, images, classes)."""
    device = device_of(model, x.device)
    with torch.no_grad(), frozen_for_attack(model):
        logits = torch.stack([judge(model, x.to(device))[0] for _ in range(FEW)])
    return logits.float().cpu().nan_to_num(0, 0, 0)


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
    drawn = (answers - first).abs().max()
    return bool((logits - first).abs().max() <= ROUNDING * first.abs().max() + 2 * drawn)


def _examples(x: Images, y: Labels) -> TensorExamples:
    return TensorExamples(x, y, torch.arange(len(x)))
