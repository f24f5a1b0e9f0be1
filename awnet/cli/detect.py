"""awnet detect: how well a model tells attacked images from clean ones, and what that is worth."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from awnet.cli.arguments import parse
from awnet.cli.subject import Subject, images_of, subject_of
from awnet.cli.waiting import waiting
from awnet.errors import Mistake

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from awnet.attacks import Engine
    from awnet.data import Dataset
    from awnet.evaluation.preflight import Cleared


@dataclass(frozen=True, kw_only=True)
class Detect:
    """Judge a checkpoint as a detector: against attacks, on benign changes, and under attackers who mean to evade it.

    Or with --detectors, other detectors that watch it.
    """

    checkpoint: tyro.conf.Positional[Path]
    """A checkpoint; a run's folder, whose best checkpoint is meant; or any network as package.module:attribute (an nn.Module or
    a function without arguments that returns one) or timm:NAME, for which --data, --eps and --norm are needed."""
    attacks: tuple[str, ...] = ("fgsm", "pgd-sat", "pgd-trades", "cw-inf", "apgd-ce", "apgd-t", "fab-t", "square")
    """Which attacks (awnet list attacks), beside those that evade."""
    detectors: tuple[str, ...] = ()
    """Judge these side by side (awnet list detectors), each fitted on validation images, instead of the checkpoint's own."""
    fit_attack: str | None = None
    """The attack that detectors are fitted under; the one each is judged on by default."""
    references: int = 1000
    """A seeded subset of so many training images that detectors know."""
    limit: int | None = 500
    """A seeded subset of so many images."""
    split: Literal["test", "validation", "train"] = "test"
    """Which images."""
    data: str | None = None
    """Another data set than that of its training, with the same classes."""
    data_dir: str | None = None
    """The folder of the data set's files."""
    image_size: int | None = None
    """For a network of your own: the side of the square images that it takes; the set's own by default."""
    resize: int | None = None
    """And the shorter side that images are resized to (bicubic) before that is cut from their middle, as 256 before 224."""
    eps: float | None = None
    """The radius, such as 8/255; that of its training by default."""
    norm: Literal["linf", "l2", "l1"] | None = None
    """The norm of the threat model; that of its training by default."""
    shares: tuple[float, ...] = (0.125, 0.25, 0.75)
    """Shares of the radius at which the attacks are seen too, beside 1 and 1/2."""
    out: Path | None = None
    """Where the record goes, and beside it that of each of the detectors; a folder beside the checkpoint by default."""
    resume: bool = False
    """Go on where the judging into this folder was interrupted."""
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
    device: str = "cpu"
    """cpu or cuda."""
    trust_range: bool = False
    """Attack a network of your own although it is more often right on images in another range than [0, 1]."""


def detect(argv: Sequence[str]) -> None:
    """Judge a detector, print its figures and write its record."""
    options = parse(Detect, argv, "awnet detect")
    _check_together(options)
    subject = subject_of(options)
    if options.detectors:
        side_by_side(options, subject)
        return
    by_itself(options, subject)


def by_itself(options: Detect, subject: Subject) -> None:
    """Judge what a network itself says of its images."""
    from awnet.attacks.adaptive.suite import named
    from awnet.evaluation.detection import RATES, detection
    from awnet.evaluation.preflight import UNSTEERED
    from awnet.models.model import forms_of

    out = _place(options, subject, "detection")
    images = subject.dataset if options.limit is None else subject.dataset.sample(options.limit, seed=options.seed)
    # what its detect says is steered here
    model, remarks = _cleared(options, subject, images, but=UNSTEERED)
    with _engine(options, out) as engine, waiting() as say:
        found = detection(
            model,
            subject.dataset,
            lambda ball: named(options.attacks, ball, forms_of(model)),
            threat=subject.threat,
            engine=engine,
            seed=options.seed,
            limit=options.limit,
            rates=RATES,
            shares=options.shares,
            watch=say,
        )
        replace(found, remarks=(*remarks, *found.remarks)).save(out, _said(options, subject))
    for table in _tables(found.figures()):
        Console().print(table)
    for sentence in found.remarks:
        print(f"note: {sentence}")
    print(f"record: {out}")


def side_by_side(options: Detect, subject: Subject) -> None:
    """Judge detectors that watch a network: against attacks that do not know them, then each against those that do."""
    from awnet.attacks.adaptive.suite import named
    from awnet.detection import DETECTORS, Guarded
    from awnet.evaluation.detection import detection
    from awnet.evaluation.detectors import compare, known_of
    from awnet.evaluation.modulation import with_means
    from awnet.models.model import forms_of

    if options.split != "test":
        raise Mistake("detectors know training images and are fitted on validation images; judge them on --split test")
    threat, out = subject.threat, _place(options, subject, "detectors")
    chosen = {name: DETECTORS[name] for name in options.detectors}
    attacks = named(options.attacks, threat, forms_of(subject.model))
    sets = {split: images_of(subject, replace(options, split=split)) for split in ("train", "validation", "test")}
    if not len(sets["validation"]):
        raise Mistake("detectors are fitted on validation images, and this run kept none")
    train = sets["train"].sample(options.references, seed=options.seed)
    known, judged = (
        sets[split] if options.limit is None else sets[split].sample(options.limit, seed=options.seed)
        for split in ("validation", "test")
    )
    model, remarks = _cleared(options, subject, judged)
    model = with_means(model, subject.dataset)
    said = {**_said(options, subject), **({"remarks": list(remarks)} if remarks else {})}
    with _engine(options, out) as engine, waiting() as say:
        found = compare(
            model,
            chosen,
            attacks,
            train=train,
            validation=known,
            test=judged,
            fit_attack=options.fit_attack,
            engine=engine,
            seed=options.seed,
            watch=say,
        )
        fit_attack = options.fit_attack or options.attacks[-1]
        learned = known_of(model, attacks[fit_attack], train=train, validation=known, engine=engine, seed=options.seed)
        aware = {
            name: detection(
                Guarded(config.fit(model, learned)),
                judged,
                lambda ball: named(options.attacks, ball, ()),  # who is watched offers no forms
                threat=threat,
                engine=engine,
                seed=options.seed,
                watch=lambda what, name=name: say(f"{name}: {what}"),
            )
            for name, config in chosen.items()
        }
        found.save(out, {**said, "threat": str(threat)})
        for name, one in aware.items():
            one = replace(one, remarks=(*remarks, *one.remarks))
            one.save(out / name, {**said, "detector": name, "fitted under": fit_attack})
    for table in _side_by_side(found.figures(), {name: one.figures() for name, one in aware.items()}):
        Console().print(table)
    for name, one in aware.items():
        for sentence in one.remarks:
            print(f"note: {name}: {sentence}")
    print(f"record: {out}")


def _check_together(options: Detect) -> None:
    """Refuse options that would go unheard, and a judgement without attacks."""
    usual = Detect(checkpoint=options.checkpoint)
    if not options.attacks:
        raise Mistake("a detector is judged on attacked images, and --attacks names no attack; name some, such as fgsm")
    if options.detectors and options.shares != usual.shares:
        raise Mistake("--shares is for the checkpoint's own decision; leave out --shares or --detectors")
    if not options.detectors and options.fit_attack:
        raise Mistake("--fit-attack says what --detectors are fitted under; name some")
    if not options.detectors and options.references != usual.references:
        raise Mistake("--references says how many training images --detectors know; name some")


def _cleared(options: Detect, subject: Subject, images: Dataset, but: str = "") -> Cleared:
    """What may be attacked, after a look at a network of a user's own; what is odd about it is printed, `but` for a remark."""
    from awnet.evaluation.preflight import Cleared, preflight

    if subject.ours:
        return Cleared(subject.model)
    with waiting("a look at the model"):
        # what evades climbs, whatever the attacks do
        found = preflight(subject.model, images, classes=len(images.classes), trust_range=options.trust_range)
    remarks = tuple(sentence for sentence in found.remarks if sentence != but)
    for sentence in remarks:
        print(f"note: {sentence}", file=sys.stderr)
    return Cleared(found.model, remarks)


def _place(options: Detect, subject: Subject, what: str) -> Path:
    """The record's folder, in which there must be none yet."""
    out = options.out or subject.home / what
    if any((out / f"{name}.json").exists() for name in ("detection", "detectors")):
        raise Mistake(f"{out} holds a record already; choose another --out")
    return out


def _engine(options: Detect, out: Path) -> AbstractContextManager[Engine]:
    """One that keeps what it has run beside the record's place until that is written."""
    from awnet.attacks import Engine
    from awnet.evaluation.remembering import remembering

    engine, place = Engine(batch_size=options.batch_size), out.parent / f"{out.name}-under-way"
    return remembering(engine, place, resume=options.resume)


def _said(options: Detect, subject: Subject) -> dict[str, Any]:
    """What the record says of its making, beside the figures."""
    knob = {"knob": subject.about["knob"]} if subject.about.get("knob") else {}
    data = {"data": subject.dataset.name, "split": subject.dataset.split}
    return {"model": str(options.checkpoint), **knob, **data, "seed": options.seed}


def _side_by_side(figures: dict[str, Any], aware: dict[str, Any]) -> list[Table]:
    """The AUC of each detector against each attack, and what is left under attackers who know it."""
    attacks = list(next(iter(figures.values())))
    told = Table("AUC", *attacks, *(f"{name}, fooled" for name in attacks), box=None, header_style="bold")
    told.add_row("images changed", *(str(of["changed"]) for of in next(iter(figures.values())).values()))
    for name, row in figures.items():
        told.add_row(name, *(_percent(row[attack][of]) for of in ("AUC", "AUC, fooled") for attack in attacks))
    rates = list(next(iter(aware.values()))["accuracy with rejection"])
    left = Table(
        "right, and no attack evades",
        *(f"@{_percent(rate)}, {eps}" for rate in rates for eps in ("eps", "eps/2")),
        box=None,
        header_style="bold",
    )
    for name, row in aware.items():
        left.add_row(
            name, *(_percent(share) for rate in rates for share in row["accuracy with rejection"][rate].values())
        )
    worst = next(iter(aware.values()))["worst of the attacks"]
    left.add_row(
        "no detector, worst of the attacks above", *(_percent(worst[eps]) for _ in rates for eps in ("eps", "eps/2"))
    )
    return [told, left, _under_evasion({name: row["under evasion"] for name, row in aware.items()})]


def _tables(figures: dict[str, Any]) -> list[Table]:
    """What was attacked, what was not, and what is left under attackers who mean to evade."""
    rates = list(figures["accuracy with rejection"])
    attacked = Table(
        "attacked by", "accuracy", "changed", "AUC", *(f"TPR@{_percent(r)}" for r in rates), "AUC, fooled",
        *(f"TPR@{_percent(r)}, fooled" for r in rates), box=None, header_style="bold",
    )  # fmt: skip
    for name, row in figures["attacks"].items():
        every = [row["AUC"], *(row[f"noticed at {r}"] for r in rates)]
        fooled = [row["AUC, fooled"], *(row[f"noticed at {r}, fooled"] for r in rates)]
        attacked.add_row(name, _percent(row["accuracy"]), str(row["changed"]), *map(_percent, (*every, *fooled)))
    by_radius = figures.get("by radius", {})
    shares = list(next(iter(by_radius.values()), {}))
    nearer = Table("share of eps", *shares, box=None, header_style="bold")
    for name, row in by_radius.items():
        nearer.add_row(f"{name}, accuracy", *(_percent(row[share]["accuracy"]) for share in shares))
        for rate in rates:
            said = f"{name}, TPR@{_percent(rate)}"
            nearer.add_row(said, *(_percent(row[share][f"noticed at {rate}"]) for share in shares))
    benign = Table("not attacked", "accuracy", *(f"alarms@{_percent(r)}" for r in rates), box=None, header_style="bold")
    for name, row in figures["false alarms"].items():
        benign.add_row(name, *map(_percent, (row["accuracy"], *(row[r] for r in rates))))
    evaded = Table("right, and no attack evades", "eps", "eps/2", box=None, header_style="bold")
    for rate, row in figures["accuracy with rejection"].items():
        evaded.add_row(f"with rejection, {_percent(rate)} false alarms", *map(_percent, row.values()))
    evaded.add_row("without, worst of the attacks above", *map(_percent, figures["worst of the attacks"].values()))
    return [attacked, *([nearer] if shares else []), benign, evaded, _under_evasion({"": figures["under evasion"]})]


def _under_evasion(rows: Mapping[str, dict[str, dict[str, float]]]) -> Table:
    """What each detector says of the examples whose class is fooled, each by the image that looks cleanest to it."""
    rates = [key.removeprefix("noticed at ") for key in next(iter(rows.values()))["eps"] if key.startswith("noticed")]
    table = Table(
        "fooled, and as clean as may be", "images", "AUC, at most", *(f"TPR@{_percent(r)}" for r in rates),
        box=None, header_style="bold",
    )  # fmt: skip
    for name, row in rows.items():
        for radius, said in row.items():
            figures = (said["AUC, at most"], *(said[f"noticed at {r}"] for r in rates))
            table.add_row(f"{name}, {radius}".lstrip(", "), str(said["fooled"]), *map(_percent, figures))
    return table


def _percent(share: float | str) -> str:
    return "" if isnan(float(share)) else f"{100 * float(share):.1f}"
