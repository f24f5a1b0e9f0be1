"""Attacks: frozen values that describe per-example state machines, and the one engine that runs them all."""

from awnet.attacks.adaptive import Steer, adaptive_suite
from awnet.attacks.apgd import APGD
from awnet.attacks.attack import Answer, Attack, Forward, Gradient, Steering, perturb
from awnet.attacks.auto_attack import auto_attack
from awnet.attacks.cw import cw_inf
from awnet.attacks.deep_sloth import deep_sloth
from awnet.attacks.diversified import Diversified
from awnet.attacks.engine import Engine
from awnet.attacks.eot import EOT
from awnet.attacks.fab import FAB
from awnet.attacks.fgsm import fgsm
from awnet.attacks.frozen import frozen_for_attack
from awnet.attacks.pgd import PGD, pgd_sat, pgd_trades
from awnet.attacks.rays import RayS
from awnet.attacks.registry import ATTACKS
from awnet.attacks.square import Square
from awnet.attacks.suite import Suite
from awnet.attacks.sweep import Examples, Outcome, Sweep, TensorExamples
from awnet.attacks.transfer import Transfer, transferred

__all__ = [
    "APGD",
    "ATTACKS",
    "EOT",
    "FAB",
    "PGD",
    "Answer",
    "Attack",
    "Diversified",
    "Engine",
    "Examples",
    "Forward",
    "Gradient",
    "Outcome",
    "RayS",
    "Square",
    "Steer",
    "Steering",
    "Suite",
    "Sweep",
    "TensorExamples",
    "Transfer",
    "adaptive_suite",
    "auto_attack",
    "cw_inf",
    "deep_sloth",
    "fgsm",
    "frozen_for_attack",
    "perturb",
    "pgd_sat",
    "pgd_trades",
    "transferred",
]
