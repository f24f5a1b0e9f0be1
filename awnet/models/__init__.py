"""Networks from [0, 1] images to logits: frozen settings that say what to build, and a registry of names for them."""

from awnet.models.awnet import AWNet, AWNetConfig, Knob, Output
from awnet.models.mix_batch_norm import Branch
from awnet.models.mobilenet_v2 import MobileNetV2, MobileNetV2Config
from awnet.models.model import (
    MODELS,
    Architecture,
    Deciding,
    Decision,
    Detecting,
    Normalize,
    create,
    judge,
    parameter_count,
)
from awnet.models.preact_resnet import PreActResNet, PreActResNetConfig
from awnet.models.resnet import ResNet, ResNetConfig
from awnet.models.resnet_cifar import ResNetCifar, ResNetCifarConfig
from awnet.models.router import Router, RouterConfig, Routing
from awnet.models.static_mixture import StaticMixture, StaticMixtureConfig
from awnet.models.wide_resnet import WideResNet, WideResNetConfig

__all__ = [
    "MODELS",
    "AWNet",
    "AWNetConfig",
    "Architecture",
    "Branch",
    "Deciding",
    "Decision",
    "Detecting",
    "Knob",
    "MobileNetV2",
    "MobileNetV2Config",
    "Normalize",
    "Output",
    "PreActResNet",
    "PreActResNetConfig",
    "ResNet",
    "ResNetCifar",
    "ResNetCifarConfig",
    "ResNetConfig",
    "Router",
    "RouterConfig",
    "Routing",
    "StaticMixture",
    "StaticMixtureConfig",
    "WideResNet",
    "WideResNetConfig",
    "create",
    "judge",
    "parameter_count",
]
