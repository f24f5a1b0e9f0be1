"""Attacks on one form of the model under the constraint that the decision leads there.

If the decision were made, the images would be classified in that form: so this form is attacked, and the decision pushed to
it. Three ways to serve two aims: stay on the side before all else, or selective and orthogonal projected gradient descent
(Bryniarski et al., 2021, https://arxiv.org/abs/2106.15023), which put the class first (`awnet/attacks/adaptive/weigh.py`).
"""

from __future__ import annotations

from awnet.attacks.adaptive.steer import Side, Steer
from awnet.threat_model import ThreatModel


def stay(threat: ThreatModel, side: Side) -> Steer:
    """Steps for the class are taken only while the decision is on this side, and lead back to it otherwise."""
    return Steer(threat=threat, form=side, push=side, weigh="stay")


def selective(threat: ThreatModel, side: Side) -> Steer:
    """Selective PGD: the class first, then the decision."""
    return Steer(threat=threat, form=side, push=side, weigh="selective")


def orthogonal(threat: ThreatModel, side: Side) -> Steer:
    """Orthogonal PGD: the same, along directions in which the other, to first order, does not change."""
    return Steer(threat=threat, form=side, push=side, weigh="orthogonal")
