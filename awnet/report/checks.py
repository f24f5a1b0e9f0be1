"""Reasons to doubt an evaluation, found in its records (after AutoAttack's own checks, https://arxiv.org/abs/2003.01690,
and Carlini et al., "On Evaluating Adversarial Robustness", 2019, https://arxiv.org/abs/1902.06705, section 5).

Each check is a function from one record, or from all, to sentences. A check that cannot decide says nothing. These read what
was recorded; experiments on the model itself are the rigour report's (`awnet.evaluation.rigour`), whose findings a record
holds and the page shows above the doubts. Where a finding says the same, the doubt is left out (`TOLD_BY`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch

from awnet.evaluation.kinds import FEEBLE, WEAKER, kind, knows_the_router
from awnet.evaluation.metrics import accuracy, paired_difference
from awnet.evaluation.record import Record
from awnet.report.alike import (
    attack_names,
    missing_attacks,
    namesakes,
    repeated,
    same_settings,
    threat_text,
)
from awnet.report.tables import front_names, names

FEW = 1000  # examples below which an interval is wider than most differences that are claimed
MASKING = 0.15  # one step that is this much worse than many hints at gradients that mislead


@dataclass(frozen=True)
class Doubt:
    """One reason for doubt.

    Attributes:
        text: a sentence.
        of: the names of the records that it concerns; empty where it concerns all.
        grave: whether it can overturn a number, rather than widen or qualify it.
    """

    text: str
    of: tuple[str, ...] = ()
    grave: bool = False


def doubts(records: Sequence[Record]) -> list[Doubt]:
    """Everything that a reader should know before believing the numbers, the grave things first."""
    found: dict[tuple[str, bool], list[str]] = {}
    for name, record in zip(names(records), records, strict=True):
        told = {finding.code for finding in record.rigour}
        for check, grave in ONE.items():
            if TOLD_BY.get(check) in told:
                continue
            for text in check(record):
                found.setdefault((text, grave), []).append(name)
    alone = [Doubt(t, tuple(of) if len(of) < len(records) else (), grave) for (t, grave), of in found.items()]
    together = [Doubt(text, (), grave) for check, grave in ALL.items() for text in check(records)]
    return sorted([*alone, *together], key=lambda doubt: not doubt.grave)


# --- one record ---


def damaged(record: Record) -> Iterator[str]:
    """Arrays that contradict each other or themselves."""
    if len(record) == 0:
        yield "There is no example in it."
        return
    if len(record.ids.unique()) < len(record):
        yield "Some examples come twice, so that the intervals are too narrow."
    results = {"the clean images": record.clean, **record.attacks}
    for name, result in results.items():
        if any(len(array) != len(record) for array in (result.correct, result.prediction, result.p_clean)):
            yield f"The results for {name} are not as many as the examples."
            return
        missing = int(result.p_clean.isnan().sum())
        if record.tells_type and missing:
            yield f"P(clean) is missing for {missing:,} images of {name}."
        if ((result.p_clean < 0) | (result.p_clean > 1)).any():
            yield f"P(clean) leaves [0, 1] for {name}."
        hit = result.prediction == record.labels
        if (hit & ~result.correct).any():
            yield f"For {name}, some images count as wrong although the prediction is the true class."
        outside = int((result.correct & ~hit).sum())
        if outside and result is record.clean:
            yield "Some clean images count as correct although the prediction is not the true class."
        elif outside:
            yield f"{outside:,} images of {name} left the threat model and count as correct: the attack has a bug."
    if record.samples and not (record.samples.x.isfinite().all() and record.samples.x_adv.isfinite().all()):
        yield "Some of the images shown are not finite."


def masked(record: Record) -> Iterator[str]:
    """One large step that does worse than chance and design explain against many small ones."""
    accuracies = {name: record.robust_accuracy(name).value for name in record.attacks}
    steps = {name: (record.attacks[name].settings or {}).get("steps") for name in accuracies}
    single = {n: a for n, a in accuracies.items() if kind(n) == "fgsm" or steps[n] == 1}
    many = {n: a for n, a in accuracies.items() if n not in single and kind(n) in ("pgd", "apgd")}
    if single and many:
        one, best = min(single, key=lambda n: single[n]), min(many, key=lambda n: many[n])
        gap = single[one] - many[best]
        if gap > MASKING:
            yield (
                f"Accuracy under {one} is more than {100 * MASKING:.0f} points above that under {best}: the gradient may "
                "be masked. An attack without gradients, or one that starts elsewhere, may find more."
            )


def disordered(record: Record) -> Iterator[str]:
    """An attack that does worse than one which is weaker by design, by more than chance explains."""
    for a, b in combinations(record.attacks, 2):
        for weak, strong in ((a, b), (b, a)):
            if _weaker(record, weak, strong):
                gap = paired_difference(record.attacks[strong].correct, record.attacks[weak].correct)
                if gap.low > 0:
                    yield (
                        f"{strong} should be at least as strong as {weak} and leaves {100 * gap.value:.1f} points more "
                        "accuracy: it does not converge, or its gradient misleads it."
                    )


def _weaker(record: Record, weak: str, strong: str) -> bool:
    if kind(weak) in WEAKER.get(kind(strong), ()) and not (_knows(record, weak) or _knows(record, strong)):
        return True
    first, second = ({**(record.attacks[name].settings or {})} for name in (weak, strong))
    few, many = first.pop("steps", None), second.pop("steps", None)
    return isinstance(few, int) and isinstance(many, int) and few < many and first == second


def _knows(record: Record, name: str) -> bool:
    return knows_the_router(name, record.attacks[name].settings)


def blind(record: Record) -> Iterator[str]:
    """A worst case that no attack on the router is part of."""
    if not len(record) or not record.tells_type or not record.attacks:
        return
    aware = [name for name in record.attacks if _knows(record, name)]
    if not aware:
        yield (
            "The model decides by a router whether an image is attacked, and the worst case here does not include "
            "attacks that know the router: a careful adversary may do better."
        )
        return
    plain = [name for name in record.attacks if name not in aware]
    if plain:
        ignorant, knowing = (min(group, key=lambda n: record.robust_accuracy(n).value) for group in (plain, aware))
        gap = paired_difference(record.attacks[knowing].correct, record.attacks[ignorant].correct)
        if gap.low > 0:
            yield (
                f"Every attack that knows the router does worse than {ignorant}, the best of them ({knowing}) by "
                f"{100 * gap.value:.1f} points: they do not yet test the router."
            )


def unfinished(record: Record) -> Iterator[str]:
    """An evaluation under way, or one that was broken off."""
    missing = [name for name in record.planned if name not in record.attacks]
    if missing:
        yield (
            f"The evaluation is under way or was broken off: {few_names(missing)} of its {len(record.planned)} attacks "
            f"{'is' if len(missing) == 1 else 'are'} missing, and the worst case so far is too kind."
        )


def weak(record: Record) -> Iterator[str]:
    """A worst case over nothing, or over attacks that take one step or see no gradient."""
    if not record.attacks:
        yield "No attack was run: the worst case is the clean accuracy."
    elif all(kind(name) in FEEBLE and not _knows(record, name) for name in record.attacks):
        yield f"Only weak attacks were run ({', '.join(record.attacks)}): the worst case is far too kind."


def chosen_on_test(record: Record) -> Iterator[str]:
    """A checkpoint picked by the images that it is then judged on."""
    if record.model.get("selection") == "paper":
        yield (
            "The checkpoint was chosen on test images, as the paper does: its numbers are optimistic. Those chosen on "
            "validation images are the ones to compare."
        )


def few(record: Record) -> Iterator[str]:
    """An interval wider than most claims."""
    if 0 < len(record) < FEW:
        half = accuracy(torch.arange(len(record)) % 2 == 0)  # where the interval is widest
        reach = f"{50 * (half.high - half.low):.1f}"
        yield f"Only {len(record):,} examples: 95\u00a0% intervals reach up to {reach} points either way."


def sampled(record: Record) -> Iterator[str]:
    """Part of a split, by the limit that the record states, or by a file that names its images."""
    limit, split = record.data.get("limit"), record.data.get("split")
    if part := record.data.get("part"):
        yield f"Judged on {len(record):,} {f'{split} ' if split else ''}images {part}, not on all of them."
    elif limit is not None and limit <= len(record):  # otherwise more was allowed than there is
        yield f"Judged on a sample of {len(record):,} of the {f'{split} ' if split else ''}images, not on all of them."


def remarked(record: Record) -> Iterator[str]:
    """What was odd about the model when it was looked at before the attacks."""
    for sentence in record.model.get("remarks") or ():
        yield f"{sentence[:1].upper()}{sentence[1:]}."


def changed(record: Record) -> Iterator[str]:
    """Code that no commit names."""
    commit = record.provenance.get("commit")
    if isinstance(commit, str) and commit.endswith("+"):
        yield f"Made with changes to the code that are in no commit ({commit})."


# --- all records ---


def incomparable(records: Sequence[Record]) -> Iterator[str]:
    """Rows of a table that were not measured alike."""
    images: dict[Any, list[str]] = {}
    for name, record in zip(names(records), records, strict=True):
        images.setdefault(_examples(record), []).append(name)
    if len(images) > 1:
        dot = " · "  # names have commas
        parts = "; ".join(
            f"{len(key[-1]):,} of {_set(key)}: {few_names(of, between=dot)}" for key, of in images.items()
        )
        yield f"The records are of different images ({parts}): rows of different images are not comparable."
    threats = list(dict.fromkeys(filter(None, map(threat_text, records))))
    if len(threats) > 1:
        yield f"The records differ in their threat model ({', '.join(threats)}): compare only rows of the same one."


def other_settings(records: Sequence[Record]) -> Iterator[str]:
    """Attacks that share a name and nothing else."""
    for attack in attack_names(records):
        met = [record for record in records if attack in record.attacks]
        pairs = ((a, b) for a, b in combinations(met, 2) if threat_text(a) == threat_text(b))
        if not all(same_settings(a, b, attack) for a, b in pairs):
            yield (
                f"{attack} was run with different settings in different rows (under Details): they are not compared in it, "
                "nor in their worst cases."
            )


def unequal(records: Sequence[Record]) -> Iterator[str]:
    """Rows whose worst case, or luck, is not over the same things."""
    lacking = {name: missing_attacks(r, records) for name, r in zip(names(records), records, strict=True)}
    parts = [f"{name} lacks {few_names(missing)}" for name, missing in lacking.items() if missing]
    if parts:
        said = "; ".join(parts[:3]) + (f"; {len(parts) - 3} more" if len(parts) > 3 else "")
        yield f"Not every record met every attack ({said}): a worst case over fewer attacks is a kinder one."
    seeds: dict[str, set[Any]] = {}
    for record in records:
        seeds.setdefault(record.label, set()).add(record.run.get("seed"))
    if len({frozenset(of_label) for of_label in seeds.values()}) > 1:
        yield "The attacks' random numbers follow different seeds in different rows: a small part of a difference is luck."


def not_averaged(records: Sequence[Record]) -> Iterator[str]:
    """Namesakes that are not the seeds of one training."""
    for group in namesakes(records):
        if not repeated([records[i] for i in group]):
            yield (
                f"{len(group)} records are called “{records[group[0]].label}” and differ in more than the seed of their "
                "training, or share it: they are not averaged. Give them labels of their own."
            )


def picked(records: Sequence[Record]) -> Iterator[str]:
    """The best of several settings of a knob, chosen by looking."""
    for front, name in front_names(records).items():
        count = sum(record.front == front for record in records)
        if count > 2:
            yield (
                f"{name} is shown at {count} settings of its knob. The best of them is picked on the images that it "
                "is judged on, which flatters it a little."
            )


def few_names(found: Sequence[str], most: int = 3, between: str = ", ") -> str:
    """The first names, and how many more there are."""
    more = len(found) - most
    return between.join(found[:most]) + (f" and {more} more" if more > 0 else "")


def _examples(record: Record) -> tuple[Any, ...]:
    about = tuple(str(record.data.get(key) or "") for key in ("name", "split", "fingerprint"))
    return (*about, tuple(record.ids.to(torch.int64).tolist()))


def _set(examples: tuple[Any, ...]) -> str:
    return " ".join(filter(None, examples[:2])) or "a set without a name"


# In the order of the page; True for what can overturn a number.
ONE = {
    damaged: True,
    unfinished: True,
    weak: True,
    blind: True,
    masked: True,
    disordered: True,
    chosen_on_test: True,
    remarked: True,
    changed: False,
    few: False,
    sampled: False,
}
# What a finding of the rigour report says of the same record already, by its code.
TOLD_BY = {unfinished: "C10", chosen_on_test: "C10", changed: "C10", few: "C10", sampled: "C10"}
ALL = {incomparable: True, other_settings: True, unequal: False, not_averaged: False, picked: False}
