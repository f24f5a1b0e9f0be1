"""awnet: train, attack and judge image classifiers that must be accurate on clean images and hold under attack.

The public names below are loaded when they are first used, so importing the package costs little and does nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from awnet.attacks import (
        ATTACKS,
        PGD,
        Attack,
        Engine,
        TensorExamples,
        auto_attack,
        cw_inf,
        fgsm,
        pgd_sat,
        pgd_trades,
    )
    from awnet.checkpoint import load
    from awnet.data import DataConfig, Dataset
    from awnet.data import load as load_data
    from awnet.errors import Mistake
    from awnet.evaluation import Record
    from awnet.evaluation.drop_in import AutoAttack
    from awnet.evaluation.evaluate import evaluate
    from awnet.experiment import Experiment, run
    from awnet.hub import from_pretrained, save_pretrained
    from awnet.models import MODELS, AWNet, Branch, Knob, create
    from awnet.report import write_page
    from awnet.threat_model import L1, L2, Linf

__version__ = "0.1.0"

_HOMES = {
    "awnet.attacks": (
        "ATTACKS",
        "PGD",
        "Attack",
        "Engine",
        "TensorExamples",
        "auto_attack",
        "cw_inf",
        "fgsm",
        "pgd_sat",
        "pgd_trades",
    ),
    "awnet.checkpoint": ("load",),
    "awnet.data": ("DataConfig", "Dataset"),
    "awnet.errors": ("Mistake",),
    "awnet.evaluation": ("Record",),
    "awnet.evaluation.drop_in": ("AutoAttack",),
    "awnet.evaluation.evaluate": ("evaluate",),
    "awnet.experiment": ("Experiment", "run"),
    "awnet.hub": ("from_pretrained", "save_pretrained"),
    "awnet.models": ("MODELS", "AWNet", "Branch", "Knob", "create"),
    "awnet.report": ("write_page",),
    "awnet.threat_model": ("L1", "L2", "Linf"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names} | {"load_data": "awnet.data"}

__all__ = [
    "ATTACKS",
    "L1",
    "L2",
    "MODELS",
    "PGD",
    "AWNet",
    "Attack",
    "AutoAttack",
    "Branch",
    "DataConfig",
    "Dataset",
    "Engine",
    "Experiment",
    "Knob",
    "Linf",
    "Mistake",
    "Record",
    "TensorExamples",
    "auto_attack",
    "create",
    "cw_inf",
    "evaluate",
    "fgsm",
    "from_pretrained",
    "load",
    "load_data",
    "pgd_sat",
    "pgd_trades",
    "run",
    "save_pretrained",
    "write_page",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'awnet' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), "load" if name == "load_data" else name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
