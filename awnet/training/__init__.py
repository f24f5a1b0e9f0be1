"""Training: objectives, and the one loop that lowers them."""

from awnet.training.awp import AWPConfig
from awnet.training.fast_at import FastATConfig
from awnet.training.hat import HATConfig
from awnet.training.joint import JointConfig
from awnet.training.mart import MARTConfig
from awnet.training.mtard import MTARDConfig
from awnet.training.objective import OBJECTIVES, Objective
from awnet.training.pgd_at import PGDATConfig
from awnet.training.standard import StandardConfig
from awnet.training.trades import TRADESConfig
from awnet.training.train import TrainingConfig, train

__all__ = [
    "OBJECTIVES",
    "AWPConfig",
    "FastATConfig",
    "HATConfig",
    "JointConfig",
    "MARTConfig",
    "MTARDConfig",
    "Objective",
    "PGDATConfig",
    "StandardConfig",
    "TRADESConfig",
    "TrainingConfig",
    "train",
]
