"""The recipes of the paper's systems: what of each training is the paper's, and what its method's authors'."""

from __future__ import annotations

import pytest

from awnet.experiment import RECIPES
from awnet.recipes.scale import FULL, SMALL
from awnet.training import JointConfig, MTARDConfig
from awnet.training.optimizer import OneCycle, StepDecay

STATIC = ("resnet34", "resnet50", "wrn-34-8", "vgg16", "repvgg-a2")


def tau(name: str) -> float:
    objective = RECIPES[name]().objective
    mtard = objective.over if isinstance(objective, JointConfig) else objective
    assert isinstance(mtard, MTARDConfig)
    return mtard.tau


@pytest.mark.parametrize(
    ("data", "of_awnet", "of_others"), [("cifar10", 1, 1), ("cifar100", 5, 1), ("tiny-imagenet", 5, 5)]
)
def test_temperatures_of_the_paper(data, of_awnet, of_others):
    """5.1: of AW-Net, while its baselines "strictly follow the setting" of MTARD, which has none; 5.4: of all models."""
    assert tau(f"{data}/awnet") == of_awnet
    others = [f"{data}/{name}" for name in STATIC if f"{data}/{name}" in RECIPES]
    assert len(others) == (2 if data == "tiny-imagenet" else 5)
    assert {tau(name) for name in others} == {of_others}


@pytest.mark.parametrize("scale", ["gpu", "small"])
@pytest.mark.parametrize("data", ["cifar10", "cifar100", "tiny-imagenet"])
def test_smaller_scales_train_all_systems_alike(scale, data):
    assert tau(f"{scale}/{data}/resnet34") == tau(f"{scale}/{data}/awnet")


def test_rdi_takes_as_many_steps_as_published():
    """64,000 steps of 128 images, slower from 32,000 and 48,000 on; within an epoch."""
    training = RECIPES["cifar10/rdi-resnet38"]().training
    an_epoch = 49_000 // training.batch_size
    assert isinstance(training.schedule, StepDecay)
    for share, steps in zip((1, *training.schedule.milestones), (64_000, 32_000, 48_000), strict=True):
        assert abs(share * training.epochs * an_epoch - steps) < an_epoch


def test_oat_is_trained_as_its_authors_do():
    training = RECIPES["cifar10/oat"]().training
    assert (training.epochs, training.batch_size) == (200, 128)
    assert (training.optimizer.lr, training.optimizer.weight_decay, training.optimizer.nesterov) == (0.1, 5e-4, False)
    assert training.schedule == OneCycle(warm_up=0.0)
    assert RECIPES["small/cifar10/oat"]().training == SMALL.static


@pytest.mark.parametrize("name", ["separate-net", "separate-net-l"])
def test_a_detector_is_trained_as_long_as_the_router(name):
    for scale in (FULL, SMALL):
        detector, awnet = (RECIPES[f"{scale.prefix}cifar10/{one}"]().training for one in (name, "awnet"))
        assert (detector.epochs, detector.batch_size) == (awnet.epochs, awnet.batch_size)
        assert detector.schedule == awnet.schedule and detector.optimizer.lr == awnet.optimizer.router_lr


@pytest.mark.parametrize("system", ["awnet", "resnet34"])
def test_epochs_at_the_small_scale(system):
    """The same for AW-Net and its rivals on each data set."""
    epochs = {
        data: RECIPES[f"small/{data}/{system}"]().training.epochs for data in ("cifar10", "cifar100", "tiny-imagenet")
    }
    assert epochs == {"cifar10": 2, "cifar100": 1, "tiny-imagenet": 3}
