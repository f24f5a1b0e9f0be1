"""How large a system of the paper is built and how long it is trained: as in the paper, or as a smaller machine allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from awnet.models.advmoe import AdvMoEResNetConfig
from awnet.models.awnet import AWNetConfig
from awnet.models.mobilenet_v2 import MobileNetV2Config
from awnet.models.model import MODELS, Architecture
from awnet.models.rdi import RDIResNetConfig
from awnet.models.repvgg import RepVGGConfig
from awnet.models.resnet import ResNetConfig
from awnet.models.resnet_cifar import ResNetCifarConfig
from awnet.models.router import RouterConfig
from awnet.models.swin import SwinConfig
from awnet.models.vgg import VGGConfig
from awnet.models.wide_resnet import WideResNetConfig
from awnet.training.optimizer import OneCycle, SGDConfig, StepDecay
from awnet.training.train import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One size of everything.

    Attributes:
        name: of the scale.
        says: what it is, for people.
        networks: in place of those of the paper, by their names in `MODELS`; what is not here stays as large as it is.
        training: of AW-Net, and of every network but the following.
        static: of the networks that AW-Net is compared with.
        standard: of teachers, and of networks that see clean images only.
        on: by data set, of all its students, in place of the first two.
        steps, step_size: of the inner attack, the size as a fraction of eps; None: each objective's own, as published.
        kd_scale: of distillation; None: as published.
        selection: so many validation images choose the best checkpoint.
        teachers: for each data set, the recipes of the clean and of the robust one.
        surrogates: for each data set, the recipe of the network whose adversarial images are shown to the others.
        seeds: how many trainings there are of the rows on which the paper's claims rest.
        images: so many test images are attacked; None: all.
        few: so many where it takes longest, by AutoAttack and the adaptive suite; None: all.
    """

    name: str
    says: str
    networks: Mapping[str, Architecture]
    training: TrainingConfig
    static: TrainingConfig
    standard: TrainingConfig
    on: Mapping[str, TrainingConfig]
    steps: int | None = None
    step_size: float | None = None
    kd_scale: float | None = None
    selection: int = 1000
    teachers: Mapping[str, tuple[str, str]]
    surrogates: Mapping[str, str]
    seeds: int = 1
    images: int | None = None
    few: int | None = None

    @property
    def prefix(self) -> str:
        """Of the recipes' names; the paper's own scale has none."""
        return "" if self.name == "full" else f"{self.name}/"

    def network(self, name: str) -> Architecture:
        """A network of the paper at this scale."""
        return self.networks[name] if name in self.networks else MODELS[name]


# AW-Net, 100 epochs of 256, steps at 75 and 90 (5.1); its baselines as in MTARD, 300 of 128, steps after 215, 260 and 285;
# Tiny-ImageNet 50 of 128, steps at 25 and 40 (5.4; "divided by" what is not printed, ten assumed).
PAPER = TrainingConfig()
FULL = Scale(
    name="full",
    says="The paper's own networks, trainings and images: days of a modern GPU. It was never run here.",
    networks={},
    training=PAPER,
    static=replace(PAPER, epochs=300, batch_size=128, schedule=StepDecay(milestones=(215 / 300, 260 / 300, 285 / 300))),
    standard=PAPER,
    on={"tiny-imagenet": replace(PAPER, epochs=50, batch_size=128, schedule=StepDecay(milestones=(24 / 50, 39 / 50)))},
    teachers={
        "cifar10": ("cifar10/resnet56", "cifar10/wrn-34-10"),
        "cifar100": ("cifar100/wrn-22-6", "cifar100/wrn-70-16"),
        "tiny-imagenet": ("tiny-imagenet/standard", "tiny-imagenet/trades"),
    },
    surrogates={"cifar10": "cifar10/wrn-70-16", "cifar100": "cifar100/wrn-70-16"},
)

# What we expect one modern GPU to train in about half an hour a network; never run so far.
HALF_AN_HOUR = replace(
    PAPER, epochs=24, optimizer=SGDConfig(lr=0.1, router_lr=0.05), schedule=OneCycle(), precision="bf16-mixed", validate_every=4
)  # fmt: skip
GPU = Scale(
    name="gpu",
    says="The paper's networks, trained for what we expect to be half an hour of one modern GPU each. It was never run here.",
    networks={},
    training=HALF_AN_HOUR,
    static=HALF_AN_HOUR,
    standard=HALF_AN_HOUR,
    on={"tiny-imagenet": replace(HALF_AN_HOUR, epochs=8, batch_size=128)},
    steps=5,
    step_size=0.4,
    kd_scale=1.0,
    teachers={name: (f"gpu/{name}/standard", f"gpu/{name}/trades") for name in FULL.teachers},
    surrogates={"cifar10": "gpu/cifar10/hat-wrn-34-10", "cifar100": "gpu/cifar100/trades"},
)

# Two CPU cores: networks of AW-Net's 0.7 million parameters, two inner steps that span the ball, two epochs.
QUARTER = ResNetConfig(depth=10, width=16)
TWO_EPOCHS = TrainingConfig(
    epochs=2, batch_size=128, optimizer=SGDConfig(lr=0.1, router_lr=0.05), schedule=OneCycle(), precision="bf16-mixed",
    validate_every=2,
)  # fmt: skip
SMALL = Scale(
    name="small",
    says=(
        "Real images and narrow networks: about 0.7 million parameters for AW-Net and for the networks that it is compared "
        "with (0.3 for a ResNet-18, 1.3 for AW-Net-L, 0.8 and 1.3 for Swin), two epochs of two inner steps on all training "
        "images (one on CIFAR-100, three on Tiny-ImageNet), in bfloat16 where it is safe. 1,000 test images are attacked, 300 "
        "by AutoAttack, the adaptive suite and the detectors of Table 5. The networks are named as in the paper. Numbers of "
        "this size compare systems under equal and small training; they are not the paper's numbers."
    ),
    networks={
        "resnet18": QUARTER,
        "resnet34": replace(QUARTER, depth=18),
        "resnet50": ResNetConfig(depth=50, width=11),
        "wrn-34-8": WideResNetConfig(depth=10, widen=3),
        "wrn-34-10": WideResNetConfig(depth=16, widen=2),
        "vgg16": VGGConfig(width=13, hidden=256),
        "repvgg-a2": RepVGGConfig(widths=(16, 32, 56, 104, 384), blocks=(1, 2, 3, 1)),
        "swin-t": SwinConfig(depths=(1, 1, 2, 1), width=24, heads=3),
        "swin-s": SwinConfig(depths=(2, 2, 2, 2), width=24, heads=3),
        "rdi-resnet38": RDIResNetConfig(),  # the paper's own
        "mobilenet_v2": MobileNetV2Config(width=0.2),
        "awnet": AWNetConfig(base=QUARTER, router=RouterConfig(backbone=QUARTER)),
        "awnet-l": AWNetConfig(base=replace(QUARTER, depth=18), router=RouterConfig(backbone=QUARTER)),
        "advmoe-resnet18": AdvMoEResNetConfig(base=replace(QUARTER, width=27), router=ResNetCifarConfig(depth=20)),
    },
    training=TWO_EPOCHS,
    static=TWO_EPOCHS,
    standard=replace(TWO_EPOCHS, epochs=4, validate_every=4),
    on={
        "cifar100": replace(TWO_EPOCHS, epochs=1, validate_every=1),  # as many systems again in half the hours
        "tiny-imagenet": replace(TWO_EPOCHS, epochs=3, batch_size=64, validate_every=3),
    },
    steps=2,
    step_size=0.6,
    kd_scale=1.0,  # a tenth of it, to which MTARD's learning rate was tuned, teaches too slowly for so few steps
    selection=500,
    teachers={
        "cifar10": ("cifar10/standard-small", "cifar10/pgd-at-small"),  # longer trained, and there already
        "cifar100": ("small/cifar100/standard", "small/cifar100/pgd-at"),
        "tiny-imagenet": ("small/tiny-imagenet/standard", "small/tiny-imagenet/pgd-at"),
    },
    surrogates={"cifar10": "small/cifar10/hat-wrn-34-10", "cifar100": "small/cifar100/pgd-at"},
    seeds=3,
    images=1000,
    few=300,
)

SCALES: Mapping[str, Scale] = {scale.name: scale for scale in (FULL, GPU, SMALL)}
