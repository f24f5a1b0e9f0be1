"""The joint attack on class and decision: raise the margin of a class and push the log-odds, each gradient at length 1.

Between class loss and detector loss with one weight for all stands the choice of that weight (Carlini and Wagner, 2017,
https://arxiv.org/abs/1705.07263; Tramer et al., 2020, https://arxiv.org/abs/2002.08347): here it is searched image by image,
run by run, and in both directions, since either side of a decision may be the weak one.
"""

from __future__ import annotations

from awnet.attacks.adaptive.steer import Side, Steer
from awnet.threat_model import ThreatModel


def joint(threat: ThreatModel, side: Side) -> Steer:
    """Class and decision together, in the model as it is."""
    return Steer(threat=threat, push=side)
