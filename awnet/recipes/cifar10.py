"""Recipes on CIFAR-10, L_inf 8/255: narrow systems that two CPU cores train in an hour and a half."""

from __future__ import annotations

from dataclasses import replace

from awnet.data import DataConfig
from awnet.experiment import RECIPES, Experiment, Selection
from awnet.models.awnet import AWNetConfig
from awnet.models.router import RouterConfig
from awnet.recipes.scale import QUARTER
from awnet.training.joint import JointConfig
from awnet.training.mtard import MTARDConfig
from awnet.training.optimizer import OneCycle, SGDConfig
from awnet.training.pgd_at import PGDATConfig
from awnet.training.standard import StandardConfig
from awnet.training.train import TrainingConfig

PAPER = Experiment(data=DataConfig(name="cifar10", validation=1000))

# The small recipes: a ResNet-10 of a quarter of the width, two inner steps that span the ball, eight epochs. On two CPU
# cores, a network on each, all four trainings take about an hour and a half.
SMALL = TrainingConfig(
    epochs=8, batch_size=128, optimizer=SGDConfig(lr=0.1, router_lr=0.05), schedule=OneCycle(), precision="bf16-mixed",
    validate_every=2,
)  # fmt: skip


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
