"""AutoAttack (Croce and Hein, 2020, https://arxiv.org/abs/2003.01690): four attacks of different kinds, without tuning.

APGD on the cross-entropy, APGD on the targeted difference of logits ratio, FAB-T and Square, on whoever still stands. Where
the authors' code and ours differ is told in the files of the attacks; its version "plus" has FAB without targets and FAB-T
where we have FAB-T alone, from as many starts.
"""

from __future__ import annotations

from collections.abc import Sequence

from awnet.attacks.apgd import APGD
from awnet.attacks.attack import Attack
from awnet.attacks.eot import EOT
from awnet.attacks.fab import FAB
from awnet.attacks.registry import ATTACKS
from awnet.attacks.suite import Suite
from awnet.errors import Mistake, unknown
from awnet.losses import DLR, TargetedDLR
from awnet.threat_model import ThreatModel

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")


def auto_attack(threat: ThreatModel, version: str | Sequence[str] = "standard") -> Suite:
    """AutoAttack in a threat model.

    Args:
        threat: the norm, and eps.
        version: "standard"; "plus", with five runs of each APGD without targets and of FAB-T, with nine targets in L1 too,
            and with APGD on the difference of logits ratio; "rand", the two APGD without targets by means of twenty
            gradients, for models that draw random numbers; or the names of attacks, run in this order.

    Raises:
        Mistake: where there is no such version or attack.
    """
    if version == "plus":
        return Suite(
            members=(
                ("apgd-ce", APGD(threat=threat, restarts=5)),
                ("apgd-dlr", APGD(threat=threat, loss=DLR(), restarts=5)),
                ("apgd-t", APGD(threat=threat, loss=TargetedDLR(), targets=9)),
                ("fab-t", FAB(threat=threat, restarts=5)),
                ("square", _attack("square", threat)),
            )
        )
    if version == "rand":
        ce, dlr = APGD(threat=threat), APGD(threat=threat, loss=DLR())
        return Suite(members=(("apgd-ce", EOT(attack=ce)), ("apgd-dlr", EOT(attack=dlr))))
    if isinstance(version, str) and version != "standard":
        raise unknown("version of AutoAttack", version, ("standard", "plus", "rand"))
    names = STANDARD if isinstance(version, str) else version
    return Suite(members=tuple((name, _attack(name, threat)) for name in names))


def _attack(name: str, threat: ThreatModel) -> Attack:
    attack = ATTACKS[name](threat)
    if isinstance(attack, Suite):
        raise Mistake(f"a suite is made of attacks, and {name} is a suite itself; name its members instead")
    return attack


@ATTACKS.register("aa")
def standard(threat: ThreatModel) -> Suite:
    """AutoAttack, standard: APGD-CE, APGD-T, FAB-T and Square, each on the images that still stand."""
    return auto_attack(threat)


@ATTACKS.register("aa-plus")
def plus(threat: ThreatModel) -> Suite:
    """AutoAttack, plus: more runs, and APGD on the difference of logits ratio too; several times the cost."""
    return auto_attack(threat, "plus")


@ATTACKS.register("aa-rand")
def rand(threat: ThreatModel) -> Suite:
    """AutoAttack for models that draw random numbers: APGD twice, each gradient a mean of twenty."""
    return auto_attack(threat, "rand")
