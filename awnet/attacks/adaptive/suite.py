"""The adaptive suite: what a careful adversary does to a model that decides, and the worst of all of it for each image.

AutoAttack's two gradient attacks and diversified starts, which know of no decision, and everything in this folder, each on who
still stands, the attacks that most often find something first. On a model that does not decide (`awnet.models.model.Deciding`),
the others end after one look and the suite is those three: add Square and FAB there (`aa`).

`adaptive` is the strongest suite that there is here; a record says what it was. What never changes are the protocols:
`adaptive@2` is this suite with FAB and Square, `adaptive@1` the one before it.

A model may offer more frozen forms than those that every suite begins from, its exits or its experts: whoever has the model at
hand gives the suite their names (`awnet.models.model.forms_of`), and it has a warm start from each.

Whether it was enough for a network is seen by doubling it: `adaptive-twice` goes on with the same attacks, each with twice the
steps and twice the runs, on who still stands. What those find is by how far the first number was too high, at least.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from awnet.attacks.adaptive.constrained import orthogonal, selective, stay
from awnet.attacks.adaptive.joint import joint
from awnet.attacks.adaptive.parts import expert_only, router_only
from awnet.attacks.adaptive.warm_start import small, warm
from awnet.attacks.apgd import APGD
from awnet.attacks.attack import Attack
from awnet.attacks.diversified import Diversified
from awnet.attacks.effort import more
from awnet.attacks.registry import ATTACKS
from awnet.attacks.suite import Suite
from awnet.losses import TargetedDLR
from awnet.threat_model import ThreatModel

FORMS = ("clean", "adversarial", "half", "detached", "unmodulated", "averaged")  # that every suite begins from


def adaptive_suite(threat: ThreatModel, forms: Sequence[str] = ()) -> Suite:
    """Twenty-two attacks, nineteen of which know what routes; on a network that does not, the other three.

    Args:
        threat: the ball.
        forms: frozen forms that the model offers; from each that is not among `FORMS` one attack more begins.
    """
    further = tuple((f"warm-{form}", warm(threat, form)) for form in forms if form not in FORMS)
    return Suite(
        members=(
            ("apgd-ce", APGD(threat=threat)),
            ("joint-clean", joint(threat, "clean")),
            ("joint-adversarial", joint(threat, "adversarial")),
            ("orthogonal-clean", orthogonal(threat, "clean")),
            ("orthogonal-adversarial", orthogonal(threat, "adversarial")),
            ("apgd-t", APGD(threat=threat, loss=TargetedDLR(), targets=9)),
            ("diversified", Diversified(threat=threat)),
            ("small-quarter", small(threat, 1 / 4)),
            ("small-half", small(threat, 1 / 2)),
            ("stay-clean", stay(threat, "clean")),
            ("stay-adversarial", stay(threat, "adversarial")),
            ("selective-clean", selective(threat, "clean")),
            ("selective-adversarial", selective(threat, "adversarial")),
            *((f"warm-{form}", warm(threat, form)) for form in FORMS),
            ("expert-only", expert_only(threat)),
            ("router-only-clean", router_only(threat, "clean")),
            ("router-only-adversarial", router_only(threat, "adversarial")),
            *further,
        )
    )


def doubled(suite: Suite) -> Suite:
    """Each attack of a suite with twice the steps and twice the runs; its random starts follow its place in a suite."""
    return Suite(members=tuple((f"{name} twice", more(attack, steps=2, runs=2)) for name, attack in suite.members))


def insisting(suite: Suite, names: Collection[str], times: int) -> Suite:
    """The named attacks of a suite with so many times their runs: what still finds something gets more of the same."""
    chosen = [(name, attack) for name, attack in suite.members if name in names]
    return Suite(members=tuple((f"{name} x{times}", more(attack, runs=times)) for name, attack in chosen))


def adaptive_twice(threat: ThreatModel, forms: Sequence[str] = ()) -> Suite:
    """The adaptive suite, and then the same with twice the steps and twice the runs."""
    suite = adaptive_suite(threat, forms)
    return Suite(members=(*suite.members, *doubled(suite).members))


def named(names: Iterable[str], threat: ThreatModel, forms: Sequence[str]) -> dict[str, Attack | Suite]:
    """Attacks by their names in `ATTACKS`, for a model that offers these frozen forms.

    Raises:
        Mistake: there is no attack of such a name.
    """
    suites = {"adaptive": adaptive_suite, "adaptive-twice": adaptive_twice}
    return {name: suites[name](threat, forms) if name in suites else ATTACKS[name](threat) for name in names}


ATTACKS.register("adaptive")(adaptive_suite)  # a plain call: the decorator would widen its type
ATTACKS.register("adaptive-twice")(adaptive_twice)
