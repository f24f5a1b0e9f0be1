"""CW_inf: the margin loss of Carlini and Wagner (2017, https://arxiv.org/abs/1608.04644) raised by PGD.

The paper says 30 steps and no more. Its lineage (the Madry challenge's evaluation, IAD, CIARD) takes kappa = 50 and steps
of 2/255, which is our default; the FAT evaluators take 0.003, here `cw-inf-small-step`.
"""

from __future__ import annotations

from awnet.attacks.pgd import PGD
from awnet.attacks.registry import ATTACKS
from awnet.losses import Margin
from awnet.threat_model import ThreatModel


@ATTACKS.register("cw-inf")
def cw_inf(threat: ThreatModel) -> PGD:
    """30 steps of eps/4 (2/255 at eps 8/255) on the margin loss with kappa = 50, from a uniform start."""
    return PGD(threat=threat, loss=Margin(kappa=50), steps=30, step_size=1 / 4)


@ATTACKS.register("cw-inf-small-step")
def cw_inf_small_step(threat: ThreatModel) -> PGD:
    """The same with the smaller step of the FAT evaluators, 0.003 at eps 8/255."""
    return PGD(threat=threat, loss=Margin(kappa=50), steps=30, step_size=0.003 * 255 / 8)


@ATTACKS.register("cw-inf-absolute")
def cw_inf_absolute(threat: ThreatModel) -> PGD:
    """The same with the absolute step of 2/255 whatever eps is."""
    return PGD(threat=threat, loss=Margin(kappa=50), steps=30, step_size=2 / 255, unit="pixel")
