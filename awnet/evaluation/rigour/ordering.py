"""C5: attacks that can do more find more: many steps than one, white box than transfer and Square, these than noise, adaptive
than plain.

Carlini et al. (2019), section 5.4; who can do more is in `awnet.evaluation.kinds`. Cheap attacks of the check's own are
compared with each other and, image by image, with those of the record. How the record's attacks compare among themselves is
what `awnet.report.checks` says too.

What is so by design and found otherwise fails the check. What is so by experience alone is a warning: transferred images or FAB
that find less than what is mostly weaker, and our own short attacks that find less than the record's transferred images or
RayS.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import permutations

from torch import Tensor

from awnet.attacks.attack import Attack
from awnet.attacks.pgd import PGD
from awnet.attacks.square import Square
from awnet.evaluation.kinds import FEEBLE, USUALLY_WEAKER, WEAKER, kind, knows_the_router
from awnet.evaluation.metrics import accuracy, paired_difference, worst_case
from awnet.evaluation.rigour.branches import steering
from awnet.evaluation.rigour.check import Part, Trial, check, percent
from awnet.evaluation.rigour.recorded import shared
from awnet.models.model import Deciding
from awnet.noise import Noise

QUERIES = 100  # of Square
UNSEEING = {"transfer", "rays"}  # kinds that see no gradient of the network and may be strong all the same
MISSED = 0.01  # of the images that a cheap attack may break and the whole record not


@check("C5", "ordering of attacks")
def ordered(trial: Trial) -> Iterator[Part]:
    """The ladder, and whether a cheap attack finds what the record missed."""
    own = _own(trial)
    recorded, rows = _recorded(trial)
    figures = {f"{name}, %": percent(hits) for name, hits in own.items()}
    ladder = {**{name: hits[rows] for name, hits in own.items()}, **recorded} if recorded else own
    knowing = {name for name in ladder if _knows(trial, name)}
    wrong, odd = list[str](), list[str]()
    for weak, strong in permutations(ladder, 2):
        counts = wrong if _below(weak, strong, own) else odd if _mostly_below(weak, strong, own) else None
        if knowing.isdisjoint({weak, strong}) and counts is not None:
            gap = paired_difference(ladder[strong], ladder[weak])
            if gap.low > 0:
                counts.append(f"{strong} leaves {100 * gap.value:.0f} points more than {weak}")
    aware = [hits for name, hits in ladder.items() if name in knowing]
    plain = [hits for name, hits in ladder.items() if name in own and name not in knowing]
    if aware:
        gap = paired_difference(worst_case(aware), worst_case(plain))
        if gap.low > 0:
            wrong.append(f"the attacks that know the router leave {100 * gap.value:.0f} points more than plain ones")
    if wrong:
        yield Part("fail", f"The order of the attacks is wrong: {_first(wrong)}.", DISORDER, figures)
    if odd:
        yield Part("warn", f"The order of the attacks is not the usual one: {_first(odd)}.", UNUSUAL, figures)
    if not wrong and not odd:
        yield Part("pass", f"{len(ladder)} attacks find the more the more they can do.", "", figures)
    if recorded:
        yield _missed(trial, own, rows)


def _first(said: list[str]) -> str:
    return "; ".join(said[:3]) + (f"; and {len(said) - 3} more" if len(said) > 3 else "")


def _below(weak: str, strong: str, own: Collection[str]) -> bool:
    """Whether one attack can do less than the other by design; ours are short, so of the record's only feeble ones can."""
    few, many = _kinds(weak, strong)
    return few in WEAKER.get(many, ()) and (few in FEEBLE or not _against_record(weak, strong, own))


def _mostly_below(weak: str, strong: str, own: Collection[str]) -> bool:
    """Whether it mostly does."""
    few, many = _kinds(weak, strong)
    if _against_record(weak, strong, own):
        return few in UNSEEING and few in WEAKER.get(many, ())
    return few in USUALLY_WEAKER.get(many, ())


def _kinds(*names: str) -> list[str]:
    return [kind(name.removesuffix(OF_RECORD)) for name in names]


def _against_record(weak: str, strong: str, own: Collection[str]) -> bool:
    """Whether the stronger of two is one of ours, and the other one of the record's."""
    return strong in own and weak not in own


def _knows(trial: Trial, name: str) -> bool:
    """Whether an attack, ours or the record's, goes for the decision too."""
    own = name.removesuffix(OF_RECORD)
    settings = trial.record.attacks[own].settings if trial.record and name != own else None
    return knows_the_router(own, settings)


OF_RECORD = " (record)"
DISORDER = "The stronger attack does not work here: its gradient misleads it, or it has too few steps; see C2 and C9."
UNUSUAL = (
    "No theorem says so, and it is reason to look: where images of another network or a search without gradients find more "
    "than who follows the gradient, that may mislead (C2, C9)."
)


def _own(trial: Trial) -> dict[str, Tensor]:
    """Correctness of each image under cheap attacks: one draw of noise, few queries, one step, several."""
    threat = trial.threat
    length = Noise(trial.seed, trial.examples.ids).stream(5).uniform(0, tuple(trial.x.shape[1:]))
    signs = threat.project(trial.x + threat.eps * threat.ascend(length - 0.5), trial.x)
    attacks: dict[str, Attack] = {
        "square": Square(threat=threat, steps=QUERIES),
        "fgsm": PGD(threat=threat, steps=1, step_size=1.0, initial="zero"),
        "pgd": trial.pgd,
        "apgd": trial.attack,
    }
    attacks |= steering(trial) if isinstance(trial.model, Deciding) else {}
    found = {name: trial.run(attack).correct for name, attack in attacks.items()}
    return {name: hits & trial.clean.correct for name, hits in {"noise": trial.right(signs), **found}.items()}


def _recorded(trial: Trial) -> tuple[dict[str, Tensor], Tensor]:
    """Correctness under the record's attacks of the images that it shares with the trial, and which of the trial's they are."""
    rows, of = shared(trial)
    record = trial.record
    if record is None or not len(rows):
        return {}, rows
    found = {name: result.correct[of] & record.clean.correct[of] for name, result in record.attacks.items()}
    return {f"{name}{OF_RECORD}": hits for name, hits in found.items()}, rows


def _missed(trial: Trial, own: dict[str, Tensor], rows: Tensor) -> Part:
    """What a cheap attack breaks and every attack of the record left standing."""
    recorded, _ = _recorded(trial)
    stand = worst_case(recorded.values())
    fell = stand & ~worst_case([hits[rows] for hits in own.values()])
    figures = {"images that the record missed": float(fell.sum())}
    if not fell.any():
        return Part("pass", "Cheap attacks break nothing that the record's attacks left standing.", "", figures)
    text = f"{int(fell.sum())} of {len(fell)} images that withstood all attacks of the record fall to a cheap one."
    status = "fail" if accuracy(fell).low > MISSED else "warn"
    return Part(status, text, "Run stronger attacks (--attacks aa adaptive): the worst case is too kind.", figures)
