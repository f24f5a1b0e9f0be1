"""Attacks on one part of a model that decides, as mixtures of experts are judged (RA-R and RA-E of robust mixtures).

Each ends with a second leg in the model as it is: what becomes of the whole when one part is lost.
"""

from __future__ import annotations

from awnet.attacks.adaptive.steer import Side, Steer
from awnet.threat_model import ThreatModel


def router_only(threat: ThreatModel, side: Side) -> Steer:
    """The decision is driven to one side, whatever becomes of the class."""
    return Steer(threat=threat, push=side, weigh="decision")


def expert_only(threat: ThreatModel) -> Steer:
    """What classifies is attacked while the decision is the one on the clean image."""
    return Steer(threat=threat, form="still")
