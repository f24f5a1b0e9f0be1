"""The fast gradient sign method (Goodfellow, Shlens and Szegedy, 2015, https://arxiv.org/abs/1412.6572).

x_adv = clip(x + eps * sign(grad CE)): one step of PGD of the full radius from the image itself. The AW-Net paper does not
say whether it starts at random; its family of evaluators does not, and neither do we.
"""

from __future__ import annotations

from awnet.attacks.pgd import PGD
from awnet.attacks.registry import ATTACKS
from awnet.threat_model import ThreatModel


@ATTACKS.register("fgsm")
def fgsm(threat: ThreatModel) -> PGD:
    """One step of size eps on the cross-entropy, without a random start; in L2 along the normalised gradient."""
    return PGD(threat=threat, steps=1, step_size=1.0, initial="zero")
