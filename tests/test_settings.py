"""Settings refuse values that mean nothing, each with a sentence that names the field."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from math import inf, nan

import numpy as np
import pytest

from awnet.attacks import PGD, Engine, Steer
from awnet.config import from_json, to_json
from awnet.data import DataConfig
from awnet.errors import Mistake
from awnet.experiment import Selection
from awnet.losses import KL, Margin
from awnet.models import AWNetConfig, Knob, ResNetConfig
from awnet.models.mobilenet_v2 import MobileNetV2Config
from awnet.models.preact_resnet import PreActResNetConfig
from awnet.models.resnet_cifar import ResNetCifarConfig
from awnet.models.static_mixture import StaticMixtureConfig
from awnet.models.wide_resnet import WideResNetConfig
from awnet.threat_model import L1, L2, Linf
from awnet.training import AdvMoEConfig, JointConfig, MTARDConfig, PGDATConfig, TRADESConfig, TrainingConfig
from awnet.training.optimizer import OneCycle, SGDConfig, StepDecay

Mixture = StaticMixtureConfig

NONSENSE = [
    *[(partial(ResNetConfig, width=width), "width") for width in (0, -1)],
    (partial(PreActResNetConfig, width=0), "width"),
    *[(partial(ResNetCifarConfig, depth=depth), "depth") for depth in (0, 2, 55, 6 * 10**8 + 2)],
    (partial(ResNetCifarConfig, width=0), "width"),
    *[(partial(WideResNetConfig, depth=depth), "depth") for depth in (4, 30, 6 * 10**8 + 4)],
    (partial(WideResNetConfig, widen=0), "widen"),
    *[(partial(MobileNetV2Config, width=width), "width") for width in (0.0, 0.01, -1.0, inf, nan)],
    *[(partial(ResNetConfig, mean=(0.0,), std=(std,)), "std") for std in (0.0, -1.0, inf, nan)],
    (partial(ResNetConfig, mean=(nan,), std=(1.0,)), "mean"),
    *[(partial(Mixture, weight=weight), "weight") for weight in (0.0, 1.0, -0.1, nan)],
    *[(partial(Mixture, sharpness=sharpness), "sharpness") for sharpness in (0.0, -1.0, inf, nan)],
    *[(partial(AWNetConfig, beta=beta), "beta") for beta in (0.0, -1.0, inf, nan)],
    *[(partial(Knob, p_max=p_max), "p_max") for p_max in (-0.1, 1.1, nan)],
    (partial(Knob, type_bias=nan), "type_bias"),
    *[(partial(Margin, kappa=kappa), "kappa") for kappa in (-1.0, nan)],
    *[(partial(KL, tau=tau), "tau") for tau in (0.0, -1.0, inf, nan)],
    *[(partial(Linf, eps), "eps") for eps in (-0.1, 1.1, 8.0, inf, nan)],
    *[(partial(L2, eps), "eps") for eps in (-0.1, 128.0, inf, nan)],
    *[(partial(L1, eps), "eps") for eps in (-0.1, inf, nan)],
    *[(partial(SGDConfig, lr=lr), "lr") for lr in (0.0, -1.0, inf, nan)],
    *[(partial(SGDConfig, router_lr=lr), "router_lr") for lr in (0.0, -1.0, inf, nan)],
    *[(partial(SGDConfig, momentum=momentum), "momentum") for momentum in (-0.1, 1.0, nan)],
    *[(partial(SGDConfig, weight_decay=decay), "weight_decay") for decay in (-1.0, inf, nan)],
    (partial(SGDConfig, momentum=0.0, nesterov=True), "nesterov"),
    *[(partial(StepDecay, milestones=(0.5, place)), "milestones") for place in (-0.1, 75.0, nan)],
    *[(partial(StepDecay, gamma=gamma), "gamma") for gamma in (0.0, -1.0, inf, nan)],
    *[(partial(OneCycle, warm_up=share), "warm_up") for share in (-0.1, 1.1, nan)],
    *[(partial(OneCycle, start=share), "start") for share in (-0.1, 1.1, nan)],
    *[(partial(TRADESConfig, beta=beta), "beta") for beta in (-1.0, inf, nan)],
    *[(partial(PGDATConfig, clean_weight=weight), "clean_weight") for weight in (-1.0, inf, nan)],
    *[(partial(JointConfig, type_weight=weight), "type_weight") for weight in (-1.0, inf, nan)],
    *[(partial(AdvMoEConfig, beta=beta), "beta") for beta in (-1.0, inf, nan)],
    *[(partial(AdvMoEConfig, alpha=alpha), "alpha") for alpha in (-1.0, inf, nan)],
    *[(partial(MTARDConfig, tau=tau), "tau") for tau in (0.0, inf, nan)],
    *[(partial(MTARDConfig, kd_scale=scale), "kd_scale") for scale in (0.0, inf, nan)],
    *[(partial(MTARDConfig, weight_lr=lr), "weight_lr") for lr in (-0.1, 1.1, nan)],
    *[(partial(MTARDConfig, balance=balance), "balance") for balance in (-1.0, inf, nan)],
    *[(partial(TrainingConfig, eps_warm_up=share), "eps_warm_up") for share in (-0.1, 1.1, nan)],
    *[(partial(TrainingConfig, clip=clip), "clip") for clip in (-1.0, inf, nan)],
    (partial(TrainingConfig, statistics_images=0), "statistics_images"),
    *[(partial(TrainingConfig, save_seconds=seconds), "save_seconds") for seconds in (-1.0, nan)],
    *[(partial(TrainingConfig, ema=ema), "ema") for ema in (-0.1, 1.0, nan)],
    (partial(Selection, limit=0), "limit"),
    *[(partial(Selection, gamma_adv=gamma), "weights of A_w") for gamma in (-1.0, inf, nan)],
    (partial(Selection, gamma_nat=0.0, gamma_adv=0.0), "weights of A_w"),
    *[(partial(DataConfig, validation=share), "validation") for share in (-0.1, 1.0, 1.5, inf, nan)],
    *[(partial(DataConfig, image_size=size), "image_size") for size in (0, 7, 8193)],
]


def shown(value: object) -> str:
    return repr(value).removeprefix("functools.partial(<class '").replace("'>", "") if callable(value) else ""


@pytest.mark.parametrize(("make", "field"), NONSENSE, ids=shown)
def test_a_value_that_means_nothing_is_refused(make, field):
    with pytest.raises(Mistake, match=field) as said:
        make()
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(("cls", "depth"), [(ResNetConfig, 7), (ResNetConfig, 101), (PreActResNetConfig, 50)])
def test_a_depth_that_there_is_not_is_refused(cls, depth):
    with pytest.raises(Mistake, match=f"depth to be .* got {depth}"):
        cls(depth=depth)


WRONG_KINDS = [
    (lambda: Linf("8/255"), "Linf expects eps to be a number, got '8/255'"),
    (lambda: PGD(threat=0.03), "PGD expects threat to be a ThreatModel, got 0.03"),
    (lambda: PGD(threat=Linf(0.1), steps=2.5), "PGD expects steps to be a whole number, got 2.5"),
    (lambda: PGD(threat=Linf(0.1), steps=True), "PGD expects steps to be a whole number, got True"),
    (lambda: PGD(threat=Linf(0.1), unit="eps "), "PGD expects unit to be 'eps' or 'pixel', got 'eps '"),
    (lambda: Engine(precision="fp16"), "Engine expects precision to be 'float32' or 'bfloat16', got 'fp16'"),
    (lambda: Engine(compile=1), "Engine expects compile to be True or False, got 1"),
    (lambda: Steer(threat=Linf(0.1), push="left"), "push to be 'clean' or 'adversarial' or None, got 'left'"),
    (lambda: AWNetConfig(base=18), "AWNetConfig expects base to be a ResNetConfig, got 18"),
    (lambda: DataConfig(flip="no"), "DataConfig expects flip to be True or False or None, got 'no'"),
    (lambda: replace(PGD(threat=Linf(0.1)), step_size=None), "PGD expects step_size to be a number, got None"),
]


@pytest.mark.parametrize(("make", "sentence"), WRONG_KINDS, ids=[sentence for _, sentence in WRONG_KINDS])
def test_a_value_of_another_kind_is_refused(make, sentence):
    with pytest.raises(Mistake, match=re.escape(sentence)):
        make()


def test_numbers_of_numpy_are_numbers():
    attack = PGD(threat=Linf(np.float32(0.5)), steps=np.int64(3))
    assert attack == from_json(json.loads(json.dumps(to_json(attack)))) == PGD(threat=Linf(0.5), steps=3)


def test_the_edges_of_the_ranges_are_allowed():
    (
        Knob(type_bias=-inf, p_max=0),
        Margin(),
        Linf(0),
        Linf(1),
        SGDConfig(momentum=0, weight_decay=0),
        OneCycle(warm_up=1),
    )
    MTARDConfig(weight_lr=0, balance=0), TRADESConfig(beta=0), TrainingConfig(eps_warm_up=1, save_seconds=inf)
    Selection(gamma_nat=0), DataConfig(validation=0), DataConfig(validation=2), MobileNetV2Config(width=1 / 16)
    ResNetCifarConfig(depth=1202), Mixture(weight=0.999), DataConfig(image_size=8192), StepDecay(milestones=())


def test_a_mixture_of_mixtures_has_an_end():
    mixture = Mixture()
    for _ in range(3):
        mixture = Mixture(clean=mixture, robust=mixture)
    assert mixture.networks == 16
    with pytest.raises(Mistake, match="at most 16 networks, got 17"):
        Mixture(clean=mixture)
