"""Training: objectives, and the one loop that lowers them."""

from awnet.training.adaptive_smoothing import MixingConfig
from awnet.training.advmoe import AdvMoEConfig
from awnet.training.ard import ARDConfig
from awnet.training.awp import AWPConfig
from awnet.training.dajat import DAJATConfig
from awnet.training.fast_at import FastATConfig
from awnet.training.gat import GATConfig
from awnet.training.hat import HATConfig
from awnet.training.joint import JointConfig
from awnet.training.mart import MARTConfig
from awnet.training.mtard import MTARDConfig
from awnet.training.oat import OnceForAllConfig
from awnet.training.objective import OBJECTIVES, Objective
from awnet.training.pgd_at import PGDATConfig
from awnet.training.rdi import RDIConfig
from awnet.training.rslad import RSLADConfig
from awnet.training.standard import StandardConfig
from awnet.training.trades import TRADESConfig
from awnet.training.train import TrainingConfig, train
from awnet.training.type_detector import TypeDetectorConfig
from awnet.training.vit_at import ViTATConfig

__all__ = [
    "OBJECTIVES",
    "ARDConfig",
    "AWPConfig",
    "AdvMoEConfig",
    "DAJATConfig",
    "FastATConfig",
    "GATConfig",
    "HATConfig",
    "JointConfig",
    "MARTConfig",
    "MTARDConfig",
    "MixingConfig",
    "Objective",
    "OnceForAllConfig",
    "PGDATConfig",
    "RDIConfig",
    "RSLADConfig",
    "StandardConfig",
    "TRADESConfig",
    "TrainingConfig",
    "TypeDetectorConfig",
    "ViTATConfig",
    "train",
]
