"""C5: attacks that can do more find more: many steps than one, white box than Square, Square than noise, adaptive than plain.

Carlini et al. (2019), section 5.4. Cheap attacks of the check's own are compared with each other and, image by image, with
those of the record. How the record's attacks compare among themselves is what `awnet.report.checks` says too.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

from torch import Tensor

from awnet.attacks.attack import Attack
from awnet.attacks.pgd import PGD
from awnet.attacks.square import Square
from awnet.evaluation.kinds import FEEBLE, WEAKER, kind, knows_the_router
from awnet.evaluation.metrics import accuracy, paired_difference, worst_case
from awnet.evaluation.rigour.branches import steering
from awnet.evaluation.rigour.check import Part, Trial, check, percent
from awnet.evaluation.rigour.recorded import shared
from awnet.models.model import Deciding
from awnet.noise import Noise

QUERIES = 100  # of Square
MISSED = 0.01  # of the images that a cheap attack may break and the whole record not


@check("C5", "ordering of attacks")
def ordered(trial: Trial) -> Iterator[Part]:
    """The ladder, and whether a cheap attack finds what the record missed."""
    own = _own(trial)
    recorded, rows = _recorded(trial)
    figures = {f"{name}, %": percent(hits) for name, hits in own.items()}
    ladder = {**{name: hits[rows] for name, hits in own.items()}, **recorded} if recorded else own
    knowing = {name for name in ladder if _knows(trial, name)}
    wrong = []
    for weak, strong in permutations(ladder, 2):
        if strong in own and weak not in own and kind(weak.removesuffix(OF_RECORD)) not in FEEBLE:
            continue  # ours are short: the record's may well be stronger
        if knowing.isdisjoint({weak, strong}) and _below(weak, strong):
            gap = paired_difference(ladder[strong], ladder[weak])
            if gap.low > 0:
                wrong.append(f"{strong} leaves {100 * gap.value:.0f} points more than {weak}")
    aware = [hits for name, hits in ladder.items() if name in knowing]
    plain = [hits for name, hits in ladder.items() if name in own and name not in knowing]
    if aware:
        gap = paired_difference(worst_case(aware), worst_case(plain))
        if gap.low > 0:
            wrong.append(f"the attacks that know the router leave {100 * gap.value:.0f} points more than plain ones")
    if wrong:
        said = "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        yield Part("fail", f"The order of the attacks is wrong: {said}.", DISORDER, figures)
    else:
        yield Part("pass", f"{len(ladder)} attacks find the more the more they can do.", "", figures)
    if recorded:
        yield _missed(trial, own, rows)


def _below(weak: str, strong: str) -> bool:
    """Whether one attack can do less than the other by design."""
    return kind(weak.removesuffix(OF_RECORD)) in WEAKER.get(kind(strong.removesuffix(OF_RECORD)), ())


def _knows(trial: Trial, name: str) -> bool:
    """Whether an attack, ours or the record's, goes for the decision too."""
    own = name.removesuffix(OF_RECORD)
    settings = trial.record.attacks[own].settings if trial.record and name != own else None
    return knows_the_router(own, settings)


OF_RECORD = " (record)"
DISORDER = "The stronger attack does not work here: its gradient misleads it, or it has too few steps; see C2 and C9."


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
