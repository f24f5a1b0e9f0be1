"""Recipes on CIFAR-10, L_inf 8/255: the paper's systems, and a narrow one that two CPU cores can train."""

from __future__ import annotations

from dataclasses import replace

from awnet.data import DataConfig
from awnet.experiment import RECIPES, Experiment, Selection
from awnet.models.awnet import AWNetConfig
from awnet.models.resnet import ResNetConfig
from awnet.models.resnet_cifar import ResNetCifarConfig
from awnet.models.router import RouterConfig
from awnet.models.wide_resnet import WideResNetConfig
from awnet.training.joint import JointConfig
from awnet.training.mtard import MTARDConfig
from awnet.training.optimizer import OneCycle, SGDConfig
from awnet.training.pgd_at import PGDATConfig
from awnet.training.standard import StandardConfig
from awnet.training.trades import TRADESConfig
from awnet.training.train import TrainingConfig

PAPER = Experiment(
    data=DataConfig(name="cifar10", validation=1000)
)  # 100 epochs of 256, SGD 0.1/0.01, steps at 75 and 90


@RECIPES.register("cifar10/resnet56")
def resnet56() -> Experiment:
    """The clean teacher of MTARD and of the paper."""
    return replace(
        PAPER,
        name="cifar10/resnet56",
        model=ResNetCifarConfig(depth=56),
        objective=StandardConfig(),
        selection=Selection(gamma_nat=1, gamma_adv=0),
    )


@RECIPES.register("cifar10/wrn-34-10")
def wrn_34_10() -> Experiment:
    """The robust teacher of MTARD and of the paper: TRADES on a wide network (its authors' weights are public)."""
    return replace(
        PAPER,
        name="cifar10/wrn-34-10",
        model=WideResNetConfig(depth=34, widen=10),
        objective=TRADESConfig(),
        training=replace(PAPER.training, batch_size=128),
    )


@RECIPES.register("cifar10/awnet")
def awnet() -> Experiment:
    """AW-Net as the paper trains it (5.1)."""
    teachers = MTARDConfig(clean_teacher="cifar10/resnet56", robust_teacher="cifar10/wrn-34-10")
    return replace(PAPER, name="cifar10/awnet", model=AWNetConfig(), objective=JointConfig(over=teachers))


@RECIPES.register("cifar10/awnet-l")
def awnet_l() -> Experiment:
    """The large AW-Net: a dynamic ResNet-34 under a ResNet-18 router."""
    return replace(awnet(), name="cifar10/awnet-l", model=AWNetConfig(base=ResNetConfig(depth=34)))


# The small recipes: a ResNet-10 of a quarter of the width, two inner steps that span the ball, eight epochs. On two CPU
# cores, a network on each, all four trainings take about an hour and a half.
SMALL = TrainingConfig(
    epochs=8, batch_size=128, optimizer=SGDConfig(lr=0.1, router_lr=0.05), schedule=OneCycle(), precision="bf16-mixed",
    validate_every=2,
)  # fmt: skip
QUARTER = ResNetConfig(depth=10, width=16)


@RECIPES.register("cifar10/standard-small")
def standard_small() -> Experiment:
    """A clean teacher of a quarter of the width."""
    return replace(
        PAPER,
        name="cifar10/standard-small",
        model=QUARTER,
        objective=StandardConfig(),
        training=replace(SMALL, epochs=16),  # an epoch costs a third of the others'
        selection=Selection(gamma_nat=1, gamma_adv=0),
    )


@RECIPES.register("cifar10/pgd-at-small")
def pgd_at_small() -> Experiment:
    """A robust teacher of a quarter of the width, two inner steps."""
    return replace(
        PAPER,
        name="cifar10/pgd-at-small",
        model=QUARTER,
        objective=PGDATConfig(steps=2, step_size=0.6),
        training=SMALL,
        selection=Selection(limit=500),
    )


@RECIPES.register("cifar10/awnet-small")
def awnet_small() -> Experiment:
    """AW-Net of a quarter of the width, two inner steps, two teachers of its own size."""
    # kd_scale: the tenth to which MTARD's learning rate was tuned teaches too slowly for eight epochs
    teachers = MTARDConfig(
        clean_teacher="cifar10/standard-small",
        robust_teacher="cifar10/pgd-at-small",
        kd_scale=1,
        steps=2,
        step_size=0.6,
    )
    model = AWNetConfig(base=QUARTER, router=RouterConfig(backbone=QUARTER))
    return replace(pgd_at_small(), name="cifar10/awnet-small", model=model, objective=JointConfig(over=teachers))


@RECIPES.register("cifar10/static-small")
def static_small() -> Experiment:
    """A static network with as many parameters as the small AW-Net, trained by the same teachers."""
    small = awnet_small()
    assert isinstance(small.objective, JointConfig)
    return replace(small, name="cifar10/static-small", model=replace(QUARTER, width=25), objective=small.objective.over)


@RECIPES.register("cifar10/awnet-hard-small")
def awnet_hard_small() -> Experiment:
    """The small AW-Net over PGD-AT: hard labels instead of teachers."""
    robust = pgd_at_small().objective
    return replace(awnet_small(), name="cifar10/awnet-hard-small", objective=JointConfig(over=robust))
