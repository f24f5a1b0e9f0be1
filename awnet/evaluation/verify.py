"""Verify: does a record's headline follow from the adversarial images beside it? Each is looked at again, in seconds.

What is shown is that the robust accuracy is at most what the record says: no attack is run, and that no stronger one exists
cannot be shown. The accuracies of single attacks are taken on trust; the worst case over all of them is re-derived.

No verdict of a model that draws random numbers can be had again: its accuracies are shown on average over draws
(`awnet.evaluation.draws`). A record of attacks that stopped at the first lucky draw says less than its images do on average,
and fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from awnet.attacks.engine import Engine
from awnet.attacks.float32 import in_float32
from awnet.attacks.frozen import frozen_for_attack
from awnet.attacks.sweep import TensorExamples
from awnet.config import from_json, to_json
from awnet.data.dataset import Dataset
from awnet.errors import Mistake
from awnet.evaluation.adversarials import Adversarials, find_adversarials
from awnet.evaluation.draws import Average, average, draws_numbers, in_draws
from awnet.evaluation.metrics import Accuracy, accuracy
from awnet.evaluation.record import Record
from awnet.json_file import read_json
from awnet.losses import Margin
from awnet.models.awnet import AWNet
from awnet.models.model import device_of, fingerprint, judge
from awnet.threat_model import ThreatModel
from awnet.types import Hits, Images, Labels

TIE = 1e-4  # of the largest logit: two kernels may differ so much, and images at the boundary with them


class Check(NamedTuple):
    """One thing that a record says, and how often it holds."""

    name: str
    held: int
    of: int
    meaning: str

    @property
    def passed(self) -> bool:
        """Whether it holds throughout."""
        return self.held == self.of


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What holds of a record.

    Attributes:
        checks: one after the other.
        claimed: the robust accuracy that the record says.
        derived: the robust accuracy that follows from those images for which all holds; of a model that draws random numbers
            on average.
    """

    checks: tuple[Check, ...]
    claimed: Accuracy
    derived: Accuracy | Average

    @property
    def holds(self) -> bool:
        """Whether the claim is shown."""
        return all(check.passed for check in self.checks)


def verify(folder: Path, model: nn.Module, dataset: Dataset) -> Verification:
    """Check a record against its adversarial images.

    Args:
        folder: the record's.
        model: the network that it is about, its knob turned as it was; left as it was.
        dataset: the split that it is about.

    Raises:
        Mistake: there is no record or no images beside it, or it is about another network or other images.
    """
    record = Record.load(folder)
    if not record.attacks:
        raise Mistake(f"the record in {folder} is of no attack, so there is nothing to verify; evaluate with --attacks")
    found, belongs = find_adversarials(folder, record.adversarials)
    _check_model(record, model)
    dataset = _its_images(record, dataset)
    threat = _threat(record)
    n, k = len(record), len(found)
    checks = [Check("file", int(belongs), 1, "the images are in the file whose digest the record names")]

    written = read_json(folder / "record.json").get("summary")
    summary = record.summary()
    same = sum(isinstance(written, dict) and written.get(name) == value for name, value in summary.items())
    checks.append(Check("summary", same, len(summary), "the accuracies that record.json shows are those of its arrays"))
    threats = [_threat_of(result.settings) == to_json(threat) for result in record.attacks.values()]
    checks.append(Check("threat model", sum(threats), len(threats), f"the attacks were run in {threat}"))
    labels = _count(record.labels == dataset.labels)
    checks.append(Check("labels", labels, n, f"the labels are those of {dataset.name}"))

    batch_size = (record.run.get("engine") or {}).get("batch_size")
    engine = Engine(batch_size=batch_size if isinstance(batch_size, int) and batch_size > 0 else Engine().batch_size)
    known = (found.positions >= 0) & (found.positions < n)
    at = torch.where(known, found.positions, 0)
    known = known & (record.ids[at] == found.ids) & (torch.bincount(at, minlength=n)[at] == 1)
    known = known & _broke(record, found, at)
    checks.append(Check("attack", _count(known), k, "its attack is one of the record's and broke that example"))

    x, y = dataset.batch(at)
    fits = found.x_adv.shape[1:] == x.shape[1:]
    x_adv = found.x_adv if fits else torch.full_like(x, torch.nan)
    in_range = ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(1)
    checks.append(Check("range", _count(in_range), k, "every pixel is a number in [0, 1]"))
    distance = threat.distance(x.double(), x_adv.double())
    near = distance <= threat.eps + threat.rounding(x.shape[1:].numel())
    measured = f"; the largest distance is {distance.max():.6g}" if k else ""
    checks.append(Check("budget", _count(near), k, f"within {threat} of the image, measured again{measured}"))
    shown = _Shown(TensorExamples(x_adv, y, found.ids), at, known & in_range & near)
    if draws_numbers(model, dataset):
        more, derived = _on_average(engine, model, dataset, record, shown)
    else:
        more, derived = _one_by_one(engine, model, dataset, record, shown)
    return Verification(checks=(*checks, *more), claimed=record.worst_accuracy, derived=derived)


class _Shown(NamedTuple):
    """The adversarial images as examples, the place of each in the record, and which are of it and allowed."""

    examples: TensorExamples
    at: Tensor
    allowed: Hits


def _one_by_one(
    engine: Engine, model: nn.Module, dataset: Dataset, record: Record, shown: _Shown
) -> tuple[list[Check], Accuracy]:
    """What the model says of each image is what it said."""
    n, k = len(record), len(shown.at)
    clean = engine.predict(model, dataset).correct
    turned = (clean != record.clean.correct).nonzero()[:, 0]
    tied = turned[_tied(engine, model, *dataset.batch(turned))]
    clean[tied] = record.clean.correct[tied]
    wrong, ties = _misclassified(engine, model, shown.examples)
    broken = _covered(record, shown._replace(allowed=shown.allowed & wrong))
    stands = clean & ~broken
    return [
        Check(
            "clean verdict",
            _count(clean == record.clean.correct),
            n,
            f"the model says what it said, unattacked{_within_rounding(len(tied))}",
        ),
        Check("verdict", _count(wrong), k, f"the model, in float32, does not say its label{_within_rounding(ties)}"),
        _coverage(record, broken),
        Check(
            "robust accuracy",
            _count(stands == record.worst),
            n,
            "an example stands by the images where it stands in the record",
        ),
    ], accuracy(stands)


def _on_average(
    engine: Engine, model: nn.Module, dataset: Dataset, record: Record, shown: _Shown
) -> tuple[list[Check], Average]:
    """Over many draws the model is as often right as it was in one, and under attack not more often."""
    right = in_draws(engine, model, dataset)
    clean = average(right)
    allowed = TensorExamples(*(t[shown.allowed] for t in shown.examples))
    right[:, shown.at[shown.allowed]] = in_draws(engine, model, allowed)
    attacked = average(right)
    return [
        Check(
            "clean verdict",
            int(clean.agrees(record.clean.correct)),
            1,
            f"unattacked, {clean} as in the record's one: {record.clean_accuracy}",
        ),
        _coverage(record, _covered(record, shown)),
        Check(
            "robust accuracy",
            int(not attacked.exceeds(record.worst)),
            1,
            f"by these images, {attacked} no more than in the record's one: {record.worst_accuracy}",
        ),
    ], attacked


def _covered(record: Record, shown: _Shown) -> Hits:
    """Which examples have an image that counts."""
    covered = torch.zeros(len(record), dtype=torch.bool)
    covered[shown.at[shown.allowed]] = True
    return covered


def _coverage(record: Record, covered: Hits) -> Check:
    broken = record.clean.correct & ~record.worst
    return Check("coverage", _count(covered & broken), _count(broken), "a broken example has an image that shows it")


def _check_model(record: Record, model: nn.Module) -> None:
    if fingerprint(model) != record.model.get("fingerprint"):
        raise Mistake(
            f"the record is about another network than this {type(model).__name__} (their fingerprints differ); give "
            "the one that was evaluated"
        )
    knob = to_json(model.knob) if isinstance(model, AWNet) else None
    if knob != record.model.get("knob") and record.model.get("knob") is not None:
        raise Mistake("the record is about this AW-Net with its knob turned otherwise; turn it as the record says")


def _its_images(record: Record, dataset: Dataset) -> Dataset:
    """The examples of the record: the set, or those of it that were drawn or named."""
    order = dataset.ids.argsort()
    places = order[torch.searchsorted(dataset.ids[order], record.ids).clamp(max=len(order) - 1)]
    for candidate in (dataset, dataset.subset(places)):
        if candidate.fingerprint == record.data.get("fingerprint") and torch.equal(candidate.ids, record.ids):
            return candidate
    named = f"{record.data.get('name')} {record.data.get('split')}"
    raise Mistake(
        f"the record is about other images ({named}) than {dataset!r} (their fingerprints differ); name theirs with --data "
        "and --data-dir"
    )


def _threat(record: Record) -> ThreatModel:
    return from_json({key: value for key, value in record.threat.items() if key != "text"}, ThreatModel, "threat")


def _threat_of(settings: object) -> object:
    """The threat model in the settings of an attack, or of every attack in them; None where there is none or several."""
    found: list[object] = []
    waiting = [settings]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict) and "threat" in item:
            found.append(item["threat"])
        elif isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return found[0] if found and all(threat == found[0] for threat in found) else None


def _broke(record: Record, found: Adversarials, at: Tensor) -> Hits:
    """Whether the record says that the attack of each image broke its example."""
    broke = torch.zeros(len(found), dtype=torch.bool)
    for place, name in enumerate(found.attacks):
        if name in record.attacks:
            broke |= (found.by == place) & ~record.attacks[name].correct[at]
    return broke & record.clean.correct[at]


def _misclassified(engine: Engine, model: nn.Module, examples: TensorExamples) -> tuple[Hits, int]:
    """Which images are misclassified, those that tie within rounding included, and how many those are."""
    wrong = ~engine.predict(model, examples).correct
    right = (~wrong).nonzero()[:, 0]
    tied = right[_tied(engine, model, *examples.batch(right))]
    wrong[tied] = True
    return wrong, len(tied)


def _within_rounding(ties: int) -> str:
    return f", {ties} of them by a tie within rounding" if ties else ""


def _tied(engine: Engine, model: nn.Module, x: Images, y: Labels) -> Hits:
    """Which images are so near the boundary of their label that rounding decides."""
    device, found = device_of(model), [torch.zeros(0, dtype=torch.bool)]
    with in_float32(model), frozen_for_attack(model), torch.no_grad():
        for index in torch.arange(len(x)).split(engine.batch_size) if len(x) else ():
            whole = torch.cat([index, index[-1:].expand(engine.batch_size - len(index))])  # some answer no batch of one
            logits, _ = judge(model, x[whole].to(device))
            tied = Margin()(logits, y[whole].to(device)).abs() <= TIE * logits.abs().amax(1)
            found.append(tied[: len(index)].cpu())
    return torch.cat(found)


def _count(hits: Hits) -> int:
    return int(hits.sum())
