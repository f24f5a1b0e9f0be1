"""Attacks on what routes: on models that decide for each image how it is classified, by somebody who knows that they do."""

from awnet.attacks.adaptive.constrained import orthogonal, selective, stay
from awnet.attacks.adaptive.evade import evasions
from awnet.attacks.adaptive.joint import joint
from awnet.attacks.adaptive.paper import PaperAdaptive, taught
from awnet.attacks.adaptive.parts import expert_only, router_only
from awnet.attacks.adaptive.steer import Steer
from awnet.attacks.adaptive.suite import adaptive_suite, adaptive_twice
from awnet.attacks.adaptive.warm_start import small, warm

__all__ = [
    "PaperAdaptive",
    "Steer",
    "adaptive_suite",
    "adaptive_twice",
    "evasions",
    "expert_only",
    "joint",
    "orthogonal",
    "router_only",
    "selective",
    "small",
    "stay",
    "taught",
    "warm",
]
