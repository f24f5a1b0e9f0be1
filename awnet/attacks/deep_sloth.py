"""DeepSloth (Hong et al., 2021, https://arxiv.org/abs/2010.02432) on a network's one output (5.3.2 of the AW-Net paper).

It slows networks with early exits down, by images on which no exit is sure: it lowers the cross-entropy between the uniform
distribution and the prediction of each exit, in 30 steps of 0.002 at eps 0.03125, from within one step of the image. AW-Net
has no exits, so its one output takes their place; that the prediction is then still right is no robustness to anything else.
"""

from __future__ import annotations

from awnet.attacks.pgd import PGD
from awnet.attacks.registry import ATTACKS
from awnet.losses import Unsure
from awnet.threat_model import ThreatModel


@ATTACKS.register("deep-sloth")
def deep_sloth(threat: ThreatModel) -> PGD:
    """DeepSloth on the one output: 30 steps of 0.064 eps towards an even prediction."""
    return PGD(threat=threat, loss=Unsure(), steps=30, step_size=0.002 / 0.03125, initial="step")
