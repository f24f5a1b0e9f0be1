"""Attacks: frozen values that describe per-example state machines, and the one engine that runs them all."""

from awnet.attacks.attack import Answer, Attack, Forward, Gradient, frozen_for_attack, perturb
from awnet.attacks.cw import cw_inf
from awnet.attacks.engine import Engine, Examples, Outcome, TensorExamples
from awnet.attacks.fgsm import fgsm
from awnet.attacks.pgd import PGD, pgd_sat, pgd_trades
from awnet.attacks.registry import ATTACKS

__all__ = [
    "ATTACKS",
    "PGD",
    "Answer",
    "Attack",
    "Engine",
    "Examples",
    "Forward",
    "Gradient",
    "Outcome",
    "TensorExamples",
    "cw_inf",
    "fgsm",
    "frozen_for_attack",
    "perturb",
    "pgd_sat",
    "pgd_trades",
]
