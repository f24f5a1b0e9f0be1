"""Warm starts: attack what the model would be with its decision frozen, then go on in the model as it is.

A frozen form has no router to mask its gradient, and shares the weights; what breaks it is often near to what breaks the
whole. Athalye, Carlini and Wagner (2018, https://arxiv.org/abs/1802.00420) attack such stand-ins for lack of a gradient;
here they are starts.
"""

from __future__ import annotations

from awnet.attacks.adaptive.steer import Steer
from awnet.threat_model import ThreatModel


def warm(threat: ThreatModel, form: str) -> Steer:
    """From the worst point of a frozen form; a form that the model does not offer is the model as it is."""
    return Steer(threat=threat, form=form)


def small(threat: ThreatModel, reach: float) -> Steer:
    """From the worst point of a smaller ball, of radius reach * eps, where routers trained at eps have never looked."""
    return Steer(threat=threat, reach=reach)
