"""Networks from [0, 1] images to logits: frozen settings that say what to build, and a registry of names for them."""

from awnet.models.adaptive_smoothing import AdaptiveSmoothing, AdaptiveSmoothingConfig
from awnet.models.advmoe import AdvMoEResNet, AdvMoEResNetConfig
from awnet.models.awnet import AWNet, AWNetConfig, Knob, Output
from awnet.models.mix_batch_norm import Branch
from awnet.models.mixed_nuts import MixedNUTS, MixedNUTSConfig, Transform
from awnet.models.mobilenet_v2 import MobileNetV2, MobileNetV2Config
from awnet.models.model import (
    MODELS,
    Architecture,
    Averaging,
    Calibrating,
    Deciding,
    Decision,
    Detecting,
    Holding,
    Normalize,
    create,
    judge,
    parameter_count,
)
from awnet.models.oat import OAT, OATConfig
from awnet.models.preact_resnet import PreActResNet, PreActResNetConfig
from awnet.models.rdi import RDIResNet, RDIResNetConfig
from awnet.models.repvgg import RepVGG, RepVGGConfig
from awnet.models.resnet import ResNet, ResNetConfig
from awnet.models.resnet_cifar import ResNetCifar, ResNetCifarConfig
from awnet.models.router import Router, RouterConfig, Routing
from awnet.models.separate_net import SeparateNet, SeparateNetConfig
from awnet.models.static_mixture import StaticMixture, StaticMixtureConfig
from awnet.models.swin import Swin, SwinConfig
from awnet.models.swish_wide_resnet import SwishWideResNet, SwishWideResNetConfig
from awnet.models.vgg import VGG, VGGConfig
from awnet.models.wide_resnet import WideResNet, WideResNetConfig

__all__ = [
    "MODELS",
    "OAT",
    "VGG",
    "AWNet",
    "AWNetConfig",
    "AdaptiveSmoothing",
    "AdaptiveSmoothingConfig",
    "AdvMoEResNet",
    "AdvMoEResNetConfig",
    "Architecture",
    "Averaging",
    "Branch",
    "Calibrating",
    "Deciding",
    "Decision",
    "Detecting",
    "Holding",
    "Knob",
    "MixedNUTS",
    "MixedNUTSConfig",
    "MobileNetV2",
    "MobileNetV2Config",
    "Normalize",
    "OATConfig",
    "Output",
    "PreActResNet",
    "PreActResNetConfig",
    "RDIResNet",
    "RDIResNetConfig",
    "RepVGG",
    "RepVGGConfig",
    "ResNet",
    "ResNetCifar",
    "ResNetCifarConfig",
    "ResNetConfig",
    "Router",
    "RouterConfig",
    "Routing",
    "SeparateNet",
    "SeparateNetConfig",
    "StaticMixture",
    "StaticMixtureConfig",
    "Swin",
    "SwinConfig",
    "SwishWideResNet",
    "SwishWideResNetConfig",
    "Transform",
    "VGGConfig",
    "WideResNet",
    "WideResNetConfig",
    "create",
    "judge",
    "parameter_count",
]
