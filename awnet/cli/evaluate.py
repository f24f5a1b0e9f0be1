"""awnet evaluate: from a checkpoint, or any network of a user's own, to a record."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from rich.console import Console

from awnet.cli.arguments import parse
from awnet.cli.checkpoints import named
from awnet.cli.second_networks import check_second, short_name
from awnet.cli.subject import Subject, subject_of
from awnet.cli.waiting import waiting
from awnet.errors import Mistake

if TYPE_CHECKING:
    from torch import nn

    from awnet.attacks import Attack, Engine, Suite
    from awnet.data import Dataset
    from awnet.evaluation import Record
    from awnet.evaluation.preflight import Cleared
    from awnet.evaluation.shared import Share


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Attack a checkpoint, or a network of your own, and write a record of every example."""

    checkpoint: tyro.conf.Positional[Path]
    """A checkpoint; a run's folder, whose best checkpoint is meant; or any network as package.module:attribute (an nn.Module or
    a function without arguments that returns one) or timm:NAME, for which --data, --eps and --norm are needed."""
    attacks: tuple[str, ...] = ("fgsm", "pgd-sat", "pgd-trades", "cw-inf")
    """Which attacks (awnet list attacks)."""
    protocol: str | None = None
    """A versioned list of attacks with every setting written down, such as standard@1, instead (awnet list protocols)."""
    surrogates: tuple[Path, ...] = ()
    """Other networks, whose adversarial images (of PGD_sat and CW_inf, as in the paper) are shown to this one too: checkpoints,
    runs, or any network as package.module:attribute or timm:NAME."""
    teacher: Path | None = None
    """The adversarial teacher of Eq. 22, named as surrogates are: the paper's own adaptive attack is run with it too, once with
    what it says taken as given and once through its gradient."""
    budget: str | None = None
    """Run a ladder of attacks of our choice for so long, such as 10m: the record has the best upper bound on the robust
    accuracy that this finds, and curve.csv beside it tells how it fell."""
    settle: bool = False
    """Run the adaptive suite, and go on until twice as much of everything finds less than 0.2 points more: for hours, where a
    network routes. The record tells what each round left, and whether it has settled."""
    rounds: int = 12
    """Of --settle, at most: 2 for the suite and twice as much of it, which says how far from settled it is."""
    eps: float | None = None
    """The radius, such as 8/255; that of its training by default."""
    norm: Literal["linf", "l2", "l1"] | None = None
    """The norm of the threat model; that of its training by default."""
    limit: int | None = None
    """A seeded subset of so many images."""
    indices: Path | None = None
    """A subset, such as the images that others have reported on, by a file of places in the split, counted from 0, or of what
    their files are called (class/file.png), one a line or as a JSON list."""
    split: Literal["test", "validation", "train", "all"] = "test"
    """Which images; all: of a set without splits, such as a folder of ImageNet's validation images."""
    data: str | None = None
    """Another data set than that of its training, with the same classes."""
    data_dir: str | None = None
    """The folder of the data set's files."""
    image_size: int | None = None
    """For a network of your own: the side of the square images that it takes; the set's own by default."""
    resize: int | None = None
    """And the shorter side that images are resized to (bicubic) before that is cut from their middle, as 256 before 224."""
    out: Path | None = None
    """Where the record goes; a folder beside the checkpoint by default."""
    resume: bool = False
    """Go on where the evaluation in this folder stopped, or add attacks to it, or rounds with --settle."""
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
    batch_size: int | Literal["auto"] = "auto"
    """Images at a time; auto: the smallest number that is nearly as fast as any, which takes some seconds to find and stands
    in the record."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the search; the verdict is always float32."""
    compile: bool = False
    """Compile the network for the search: a minute at the beginning, for long searches on a GPU."""
    device: str = "cpu"
    """cpu or cuda; under torchrun --nproc-per-node N -m awnet.cli each process takes a GPU and its share of the images."""
    keep_images: int = 8
    """How many sample images the record holds."""
    adversarials: bool = True
    """Keep each adversarial image found beside the record, so that awnet verify can check the claim."""
    rigour: bool = False
    """After the attacks, run the ten checks (C1 to C10) that say whether the numbers can be believed; off by default, as they
    cost some thousand forward and backward passes an image, on --rigour-images of them."""
    rigour_images: int = 100
    """How many images the checks look at."""
    trust_range: bool = False
    """Attack a network of your own although it is more often right on images in another range than [0, 1]."""


def evaluate(argv: Sequence[str]) -> None:
    """Attack a network and write a record."""
    options = parse(Evaluate, argv, "awnet evaluate")
    from awnet.evaluation.shared import started_together

    with started_together(options.device) as share:
        _evaluate(options, share)


def _evaluate(options: Evaluate, share: Share) -> None:
    """What one of the processes does."""
    from awnet.config import from_json
    from awnet.evaluation.evaluate import clear
    from awnet.evaluation.evaluate import evaluate as attack_all
    from awnet.evaluation.modulation import with_means
    from awnet.evaluation.preflight import Cleared
    from awnet.report.tables import rich_table

    subject = subject_of(options)
    _check_together(options)
    if options.trust_range and subject.ours and not (options.surrogates or options.teacher):
        raise Mistake(
            "--trust-range is for a network of your own, a surrogate or a teacher; a checkpoint knows its range"
        )
    split = subject.dataset
    if options.indices:
        subject = subject._replace(dataset=named(subject.dataset, options.indices))
    attacks = _attacks(options, subject, quiet=not share.leads)
    if options.rigour_images < 1:
        raise Mistake(f"the checks look at 1 or more images, got --rigour-images {options.rigour_images}")
    if (options.budget or options.settle) and share.world > 1:
        raise Mistake("--budget and --settle are for one process; leave torchrun out")
    images = subject.dataset if options.limit is None else subject.dataset.sample(options.limit, seed=options.seed)
    cleared = Cleared(subject.model)
    if not subject.ours:
        with waiting("a look at the model", quiet=not share.leads):
            cleared = clear(subject.model, images, attacks, trust_range=options.trust_range)
    cleared = cleared._replace(model=with_means(cleared.model, split))
    unattacked = () if attacks or options.settle else ("no attack is run: the worst case is the clean accuracy",)
    for sentence in (*unattacked, *cleared.remarks) if share.leads else ():
        print(f"note: {sentence}", file=sys.stderr)
    attacked = subject._replace(model=cleared.model, dataset=images)
    if options.settle:
        out = options.out or _place(subject, options, "settled")
        _say_rounds(_settled(subject._replace(dataset=images), cleared, options, out), out)
        return
    if options.budget:
        out = options.out or _place(subject, options, f"within {options.budget}")
        _say_bound(_within(options.budget, subject._replace(dataset=images), cleared, attacks, options, out), out)
        return
    out = options.out or _place(subject, options)
    with waiting("clean images", quiet=not share.leads) as say:
        record = attack_all(
            subject.model,
            subject.dataset,
            attacks,
            threat=subject.threat,
            engine=lambda model, images: _fitting(options, out, model, images, attacks),
            seed=options.seed,
            limit=options.limit,
            part=f"named in {options.indices}" if options.indices else "",
            label=options.label or subject.label,
            front=subject.front,
            about=subject.about,
            samples=options.keep_images,
            keep_adversarials=options.adversarials,
            progress=say,
            out=out,
            resume=options.resume,
            cleared=cleared,
        )
        if not share.leads:
            return
        if options.rigour:
            engine = from_json(record.run["engine"])
            record = _checked(record, attacked, engine, options, out, say)
    Console().print(rich_table([record]))
    if record.rigour:
        from awnet.report.rigour import rich_rigour

        Console().print(rich_rigour(record.rigour))
    print(f"record: {out}; next: awnet report {out}")


def _check_together(options: Evaluate) -> None:
    """Refuse options of which one would go unheard beside another."""
    usual = Evaluate(checkpoint=options.checkpoint)
    named = ("attacks", "protocol", "surrogates", "teacher", "rigour")
    given = [name for name in named if getattr(options, name) != getattr(usual, name)]
    if options.settle and options.budget:
        raise Mistake("--settle takes the time it needs; leave out --budget or --settle")
    if (options.budget or options.settle) and given:
        one = "--budget" if options.budget else "--settle"
        raise Mistake(f"{one} runs attacks of its own; leave out --{', --'.join(given)}")
    if options.rigour_images != usual.rigour_images and not options.rigour:
        raise Mistake("--rigour-images says how many images the checks look at; give --rigour too")
    if options.rounds != usual.rounds and not options.settle:
        raise Mistake("--rounds says how long --settle goes on; give --settle too")
    if options.protocol and "attacks" in given:
        raise Mistake(f"{options.protocol} says itself which attacks are run; leave out --attacks or --protocol")


def _attacks(options: Evaluate, subject: Subject, *, quiet: bool) -> dict[str, Attack | Suite]:
    """Those that are asked for; within a budget the ladder, which ends with the adaptive ones where there is a decision."""
    from awnet.attacks import adaptive_suite, transferred
    from awnet.attacks.adaptive import taught
    from awnet.attacks.adaptive.suite import named as named_attacks
    from awnet.evaluation.anytime import ladder
    from awnet.evaluation.protocol import attacks_of
    from awnet.models.model import forms_of

    threat, forms = subject.threat, forms_of(subject.model)
    attacks = named_attacks(options.attacks, threat, forms)
    if options.protocol:
        attacks = attacks_of(options.protocol, threat)
    for surrogate in options.surrogates:
        _check_second(surrogate, "surrogate", subject, options, quiet=quiet)
        source = short_name(surrogate, options.surrogates)
        found = transferred(threat, str(surrogate))
        attacks |= {f"{name} from {source}": attack for name, attack in found.items()}
    if options.teacher:
        _check_second(options.teacher, "teacher", subject, options, quiet=quiet)
        found, source = taught(threat, str(options.teacher)), short_name(options.teacher, [options.teacher])
        attacks |= {f"adaptive-paper {how} {source}": attack for how, attack in found.items()}
    if options.budget:
        attacks = ladder(threat) | ({"adaptive": adaptive_suite(threat, forms)} if forms else {})
    return attacks


def _check_second(name: Path, role: str, subject: Subject, options: Evaluate, *, quiet: bool) -> None:
    """That it is there and fits, and what is odd about it."""
    from awnet.models.model import device_of

    with waiting(f"a look at the {role}", quiet=quiet):
        there = device_of(subject.model, options.device)
        said = check_second(name, role, subject.dataset, there, trust_range=options.trust_range)
    for sentence in () if quiet else said:
        print(f"note: {sentence}", file=sys.stderr)


def _engine(options: Evaluate) -> Engine:
    from awnet.attacks import Engine

    engine = Engine(precision=options.precision, compile=options.compile)
    return engine if options.batch_size == "auto" else replace(engine, batch_size=options.batch_size)


def _fitting(
    options: Evaluate, out: Path, model: nn.Module, images: Dataset, attacks: Mapping[str, Attack | Suite]
) -> Engine:
    """The engine, with a batch size found by itself if that is asked for; an evaluation that goes on keeps the one it had."""
    from awnet.attacks.batch_size import fitting_batch_size
    from awnet.evaluation.keeping import batch_size_in

    engine = _engine(options)
    if options.batch_size != "auto" or not attacks:
        return engine
    size = batch_size_in(out) or fitting_batch_size(model, images, next(iter(attacks.values())), engine)
    return replace(engine, batch_size=size)


def _within(
    budget: str, subject: Subject, cleared: Cleared, attacks: Mapping[str, Attack | Suite], options: Evaluate, out: Path
) -> Record:
    """The record of the bound on the robust accuracy that so much time finds."""
    from awnet.evaluation.anytime import IMAGES, seconds_of
    from awnet.evaluation.within import within

    seconds = seconds_of(budget)
    with waiting("clean images") as say:
        return within(
            subject.model,
            subject.dataset,
            attacks,
            seconds=seconds,
            threat=subject.threat,
            out=out,
            name=f"within {budget.strip()}",
            engine=_engine(options),
            images=options.limit or IMAGES,
            seed=options.seed,
            resume=options.resume,
            samples=options.keep_images,
            keep_adversarials=options.adversarials,
            cleared=cleared,
            watch=lambda point: say(f"{point.attack or 'clean images'}: at most {point.accuracy}"),
            label=options.label or subject.label,
            front=subject.front,
            about=subject.about,
            **({"part": f"named in {options.indices}, in a random order"} if options.indices else {}),
        )


def _settled(subject: Subject, cleared: Cleared, options: Evaluate, out: Path) -> Record:
    """The record of a suite that was gone on with."""
    from awnet.attacks import adaptive_suite
    from awnet.evaluation.settled import settled
    from awnet.models.model import forms_of

    with waiting("adaptive") as say:
        return settled(
            subject.model,
            subject.dataset,
            adaptive_suite(subject.threat, forms_of(subject.model)),
            threat=subject.threat,
            out=out,
            engine=_engine(options),
            seed=options.seed,
            most=options.rounds,
            resume=options.resume,
            samples=options.keep_images,
            keep_adversarials=options.adversarials,
            cleared=cleared,
            watch=lambda one: say(f"{one.name}: {one.left} left"),
            label=options.label or subject.label,
            front=subject.front,
            about=subject.about,
            limit=options.limit,
            part=f"named in {options.indices}" if options.indices else "",
        )


def _say_rounds(record: Record, out: Path) -> None:
    """Print what each round left."""
    from rich.table import Table

    ((_, result),) = record.attacks.items()
    assert result.settings is not None
    table = Table("round", "left, %", "found by")
    for one in result.settings["rounds"]:
        found_by = ", ".join(f"{name} {count}" for name, count in one["broken by"].items())
        table.add_row(one["name"], f"{100 * one['left']:.1f}", found_by or "–")
    Console().print(table)
    said = "settled" if result.settings["settled"] else "NOT settled; --resume with more --rounds goes on"
    print(f"robust accuracy at most {record.worst_accuracy} of {record.worst_accuracy.n} images; {said}")
    print(f"record: {out}; next: awnet report {out}")


def _say_bound(record: Record, out: Path) -> None:
    """Print what a record of a bound says."""
    from awnet.report.tables import rich_table

    ((name, result),) = record.attacks.items()
    assert result.members
    Console().print(rich_table([record]))
    bound, last = record.worst_accuracy, result.members.names[-1]
    print(f"robust accuracy at most {bound} of {bound.n} images {name}; the last attack: {last}")
    print(f"record: {out}; next: awnet report {out}")


def _checked(
    record: Record, subject: Subject, engine: Engine, options: Evaluate, out: Path, progress: Callable[[str], None]
) -> Record:
    """The record with what the checks found, on the images that it is of."""
    from awnet.evaluation.adversarials import read_adversarials
    from awnet.evaluation.remembering import remembering
    from awnet.evaluation.rigour import rigour

    with remembering(engine, out / "rigour-under-way", resume=options.resume) as remembers:
        found = rigour(
            subject.model,
            subject.dataset,
            subject.threat,
            engine=remembers,
            seed=options.seed,
            limit=options.rigour_images,
            record=record,
            adversarials=read_adversarials(out, record.adversarials) if record.adversarials else None,
            progress=progress,
        )
        record = replace(record, rigour=found)
        record.save(out)
    return record


def _place(subject: Subject, options: Evaluate, time: str = "") -> Path:
    """The record's folder, named by threat model, knob, images and time; for a user's own network by its name and data too."""
    what = [str(subject.threat), subject.about.get("knob") or "", _images_of(options), time]
    what = what if subject.ours else [subject.label, subject.dataset.name, *what]
    return subject.home / "records" / slug(" ".join(map(str, what)))


def _images_of(options: Evaluate) -> str:
    """Which images, in words: a subset has a folder of its own beside that of the whole."""
    split = options.split if options.indices is None else f"{options.split} {options.indices.stem}"
    return split if options.limit is None else f"{split} {options.limit} of seed {options.seed}"


def slug(text: str) -> str:
    """A folder name."""
    return re.sub(r"[^\w.]+", "-", text).strip("-").lower()
