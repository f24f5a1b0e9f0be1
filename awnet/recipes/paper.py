"""Every system of the AW-Net paper as a recipe, on each of its data sets and at each scale (`awnet.recipes.scale`).

A name is SCALE/DATA/SYSTEM, and DATA/SYSTEM for the paper's own scale: `cifar10/awnet`, `small/cifar100/resnet34`. Networks
are named as in the paper, whatever their size. A system of several seeds has a recipe for each, with "-seed1" behind its
name for the second; its teachers are those of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from awnet.data import DataConfig
from awnet.experiment import RECIPES, Experiment, Selection
from awnet.models.adaptive_smoothing import AdaptiveSmoothingConfig
from awnet.models.awnet import AWNetConfig, Knob
from awnet.models.model import MODELS
from awnet.models.oat import OATConfig
from awnet.models.preact_resnet import PreActResNetConfig
from awnet.models.resnet import ResNetConfig
from awnet.models.resnet_cifar import ResNetCifarConfig
from awnet.models.separate_net import SeparateNetConfig
from awnet.recipes.scale import FULL, SCALES, Scale
from awnet.training.adaptive_smoothing import MixingConfig
from awnet.training.advmoe import AdvMoEConfig
from awnet.training.hat import HATConfig
from awnet.training.joint import JointConfig
from awnet.training.mart import MARTConfig
from awnet.training.mtard import MTARDConfig
from awnet.training.oat import OnceForAllConfig
from awnet.training.objective import ObjectiveConfig
from awnet.training.optimizer import OneCycle, SGDConfig, StepDecay
from awnet.training.pgd_at import PGDATConfig
from awnet.training.rdi import RDIConfig
from awnet.training.rslad import RSLADConfig
from awnet.training.standard import StandardConfig
from awnet.training.trades import TRADESConfig
from awnet.training.train import TrainingConfig
from awnet.training.type_detector import TypeDetectorConfig
from awnet.training.vit_at import ViTATConfig

CIFAR10, CIFAR100, TINY = "cifar10", "cifar100", "tiny-imagenet"
EVERYWHERE = (CIFAR10, CIFAR100, TINY)
BETAS = (1, 2, 4, 5)  # beside 3 (Fig. 4)

# The schedules of other methods' authors, for the paper's own scale.
TRADES = TrainingConfig(batch_size=128)  # steps at 75 and 90 of 100, which the paper took over
HAT = TrainingConfig(  # theirs is torch's OneCycleLR, which cycles the momentum too (0.95 to 0.85 and back); here it stays 0.9
    epochs=50,
    batch_size=128,
    optimizer=SGDConfig(lr=0.21, weight_decay=5e-4, nesterov=True),
    schedule=OneCycle(warm_up=0.25),
)
VIT = TrainingConfig(
    epochs=40,
    batch_size=64,
    optimizer=SGDConfig(weight_decay=1e-4),
    schedule=StepDecay(milestones=(35 / 40, 38 / 40)),
    clip=1.0,
)
RDI = TrainingConfig(  # 64,176 steps, 382 an epoch on 49,000 images; published: 64,000
    epochs=168,
    batch_size=128,
    optimizer=SGDConfig(weight_decay=1e-4),
    schedule=StepDecay(milestones=(0.5, 0.75)),
)
ADVMOE = TrainingConfig(batch_size=128, optimizer=SGDConfig(weight_decay=5e-4), schedule=OneCycle(warm_up=0.0))
OAT = TrainingConfig(  # half a cosine, as published, where it moves once an epoch
    epochs=200,
    batch_size=128,
    optimizer=SGDConfig(weight_decay=5e-4),
    schedule=OneCycle(warm_up=0.0),
)
MART = TrainingConfig(
    epochs=120,
    batch_size=128,
    optimizer=SGDConfig(lr=0.01, weight_decay=3.5e-3),
    schedule=StepDecay(milestones=(74 / 120, 89 / 120, 99 / 120)),
)


@dataclass(frozen=True)
class At:
    """Where a system is built: on which data, at which scale; and what many of them need there."""

    data: str
    scale: Scale

    def name(self, system: str, seed: int = 0) -> str:
        """The recipe of another system here."""
        return f"{self.scale.prefix}{self.data}/{system}" + (f"-seed{seed}" if seed else "")

    def experiment(self, system: str, network: str, objective: ObjectiveConfig, **more: Any) -> Experiment:
        """An experiment on a network of the paper, with the training that it gets here."""
        training = self.scale.on.get(self.data, self.scale.static)
        found = Experiment(
            name=self.name(system),
            data=DataConfig(name=self.data, validation=1000),
            model=self.scale.network(network),
            objective=objective,
            training=training,
            selection=Selection(limit=self.scale.selection),
        )
        return replace(found, **more)

    def dynamic(self, system: str, objective: ObjectiveConfig, **more: Any) -> Experiment:
        """The same for an AW-Net."""
        training = self.scale.on.get(self.data, self.scale.training)
        return self.experiment(system, **{"network": "awnet", "objective": objective, "training": training, **more})

    def as_published(self, found: Experiment, training: TrainingConfig) -> Experiment:
        """At the paper's own scale an experiment with the schedule of its method's authors."""
        return replace(found, training=training) if self.scale is FULL else found

    def inner(self) -> dict[str, Any]:
        """The settings of the inner attack, where the scale has its own."""
        given = {"steps": self.scale.steps, "step_size": self.scale.step_size}
        return {name: value for name, value in given.items() if value is not None}

    def mtard(self) -> MTARDConfig:
        """MTARD with the teachers of this data set and the temperature that AW-Net has there (5.1, 5.4)."""
        clean, robust = self.scale.teachers[self.data]
        given = {} if self.scale.kd_scale is None else {"kd_scale": self.scale.kd_scale}
        tau = 1.0 if self.data == CIFAR10 else 5.0
        return MTARDConfig(clean_teacher=clean, robust_teacher=robust, tau=tau, **given, **self.inner())


Build = Callable[[At], Experiment]
SYSTEMS: dict[str, tuple[tuple[str, ...], str, Build]] = {}


def system(name: str, *data: str, says: str) -> Callable[[Build], Build]:
    """Decorator that enters a system, the data sets on which the paper has it, and a line on it."""

    def enter(build: Build) -> Build:
        SYSTEMS[name] = (data, says, build)
        return build

    return enter


def _static(name: str, network: str, says: str, *data: str) -> None:
    @system(name, *data, says=says)
    def build(at: At) -> Experiment:
        objective = at.mtard()
        # 5.1 gives tau = 5 where it describes AW-Net, and then has the baselines "strictly follow the setting in [70]": MTARD,
        # whose published code has no temperature. On Tiny-ImageNet 5.4 gives it for all; smaller scales train all alike.
        if (at.scale, at.data) == (FULL, CIFAR100):
            objective = replace(objective, tau=1.0)
        return at.experiment(name, network, objective)


_static("resnet18", "resnet18", "ResNet-18 by MTARD: the baseline of Table 3.", CIFAR10)
_static("resnet34", "resnet34", "ResNet-34 by MTARD.", *EVERYWHERE)
_static("resnet50", "resnet50", "ResNet-50 by MTARD.", *EVERYWHERE)
_static("wrn-34-8", "wrn-34-8", "WideResNet-34-8 by MTARD.", CIFAR10, CIFAR100)
_static("vgg16", "vgg16", "VGG-16-BN by MTARD.", CIFAR10, CIFAR100)
_static("repvgg-a2", "repvgg-a2", "RepVGG-A2 by MTARD, in its training form.", CIFAR10, CIFAR100)


@system("awnet", *EVERYWHERE, says="AW-Net as the paper trains it (5.1).")
def _awnet(at: At) -> Experiment:
    return at.dynamic("awnet", JointConfig(over=at.mtard()))


@system("awnet-l", CIFAR10, says="The large AW-Net: a dynamic ResNet-34 under a ResNet-18 router.")
def _awnet_l(at: At) -> Experiment:
    return at.dynamic("awnet-l", JointConfig(over=at.mtard()), network="awnet-l")


@system("awnet-pgd-at", CIFAR10, says="AW-Net by PGD-AT (Fig. 5): both types' cross-entropies, as MixBN needs both.")
def _awnet_pgd_at(at: At) -> Experiment:
    return at.dynamic("awnet-pgd-at", JointConfig(over=PGDATConfig(clean_weight=1.0, **at.inner())))


@system("awnet-trades", CIFAR10, says="AW-Net by TRADES (Fig. 5).")
def _awnet_trades(at: At) -> Experiment:
    return at.dynamic("awnet-trades", JointConfig(over=TRADESConfig(**at.inner())))


@system("awnet-signals", CIFAR10, says="AW-Net with signals alone, without MixBN and type head (Table 3).")
def _signals(at: At) -> Experiment:
    return _ablation(at, "awnet-signals", mix=False)


@system("awnet-mixbn", CIFAR10, says="AW-Net with MixBN and without type head: BN_adv for all images (Table 3).")
def _mixbn(at: At) -> Experiment:
    return _ablation(at, "awnet-mixbn", mix=True)


def _ablation(at: At, name: str, *, mix: bool) -> Experiment:
    found = at.dynamic(name, JointConfig(over=at.mtard()))
    assert isinstance(found.model, AWNetConfig)
    router, knob = replace(found.model.router, type_head=False), Knob(p_max=0.0)
    return replace(found, model=replace(found.model, router=router, mix=mix, knob=knob))


def _beta(beta: int) -> None:
    name = f"awnet-beta{beta}"

    @system(name, CIFAR10, says=f"AW-Net with beta = {beta} (Fig. 4), trained anew.")
    def build(at: At) -> Experiment:
        found = at.dynamic(name, JointConfig(over=at.mtard()))
        assert isinstance(found.model, AWNetConfig)
        return replace(found, model=replace(found.model, beta=float(beta)))


for _one in BETAS:
    _beta(_one)


@system("trades-resnet18", CIFAR10, says="ResNet-18 by TRADES: the robust half of Separate-Net (Table 4).")
def _trades_18(at: At) -> Experiment:
    found = at.experiment("trades-resnet18", "resnet18", TRADESConfig(**at.inner()))
    return at.as_published(found, TRADES)


@system("trades-resnet34", CIFAR10, says="ResNet-34 by TRADES: the robust half of Separate-Net-L (Table 4).")
def _trades_34(at: At) -> Experiment:
    found = at.experiment("trades-resnet34", "resnet34", TRADESConfig(**at.inner()))
    return at.as_published(found, TRADES)


@system("mobilenet", CIFAR10, says="MobileNet-V2 on clean images: the accurate half of Separate-Net (Table 4).")
def _mobilenet(at: At) -> Experiment:
    return _on_clean_images(at, "mobilenet", at.scale.network("mobilenet_v2"))


@system(
    "separate-net",
    CIFAR10,
    says="Separate-Net: its detector over the MobileNet and the ResNet-18 by TRADES (Table 4).",
)
def _separate(at: At) -> Experiment:
    return _separate_net(at, "separate-net", "18")


@system("separate-net-l", CIFAR10, says="Separate-Net-L, whose robust network is the ResNet-34 (Table 4).")
def _separate_l(at: At) -> Experiment:
    return _separate_net(at, "separate-net-l", "34")


def _separate_net(at: At, name: str, depth: str) -> Experiment:
    clean, robust, detector = (at.scale.network(part) for part in ("mobilenet_v2", f"resnet{depth}", "resnet18"))
    objective = TypeDetectorConfig(
        clean_teacher=at.name("mobilenet"), robust_teacher=at.name(f"trades-resnet{depth}"), **at.inner()
    )
    found = at.experiment(
        name, "resnet18", objective, model=SeparateNetConfig(clean=clean, robust=robust, detector=detector)
    )
    optimizer = at.scale.training.optimizer  # the detector learns as long and as slowly as AW-Net's router
    training = replace(at.scale.training, optimizer=replace(optimizer, lr=optimizer.router_lr))
    return replace(found, training=training, data=replace(found.data, padding=0))  # see `awnet.training.type_detector`


@system("rdi-resnet38", CIFAR10, says="RDI-ResNet-38: seven exits, all of them attacked and trained (Table 8).")
def _rdi(at: At) -> Experiment:
    # an attack on each exit, of which the worst is kept, as published, costs several times as much
    objective = RDIConfig(**at.inner()) if at.scale is FULL else RDIConfig(inner="average", **at.inner())
    return at.as_published(at.experiment("rdi-resnet38", "rdi-resnet38", objective), RDI)


@system("advmoe", CIFAR10, says="ADVMOE: two experts a layer, chosen for each image by a router (Table 8).")
def _advmoe(at: At) -> Experiment:
    found = at.experiment("advmoe", "advmoe-resnet18", AdvMoEConfig())  # two inner steps, as published
    return at.as_published(found, ADVMOE)


@system(
    "oat",
    CIFAR10,
    says="OAT on ResNet-18, its lambda chosen afterwards; a rival that is not in the paper.",
)
def _oat(at: At) -> Experiment:
    base = at.scale.network("resnet18")
    assert isinstance(base, ResNetConfig)
    model = OATConfig(base=base)
    return at.as_published(at.experiment("oat", "resnet18", OnceForAllConfig(**at.inner()), model=model), OAT)


@system(
    "adaptive-smoothing",
    CIFAR10,
    says="Adaptive smoothing of two ResNet-18; a rival that is not in the paper.",
)
def _adaptive_smoothing(at: At) -> Experiment:
    part = at.scale.network("resnet18")
    objective = MixingConfig(
        clean_teacher=at.name("standard-resnet18"), robust_teacher=at.name("trades-resnet18"), **at.inner()
    )
    model = AdaptiveSmoothingConfig(clean=part, robust=part)
    found = at.experiment("adaptive-smoothing", "resnet18", objective, model=model)
    return replace(found, data=replace(found.data, padding=0))  # see `awnet.training.type_detector`


def _standard_of(name: str, network: str, says: str) -> None:
    system(name, CIFAR10, says=says)(lambda at: _on_clean_images(at, name, at.scale.network(network)))


_standard_of("standard-resnet18", "resnet18", "ResNet-18 on clean images (Fig. 1).")
_standard_of("standard-resnet50", "resnet50", "ResNet-50 on clean images (Fig. 3).")
_standard_of("standard-wrn-34-8", "wrn-34-8", "WideResNet-34-8 on clean images (Fig. 3).")
_static("mobilenet-mtard", "mobilenet_v2", "MobileNet-V2 by MTARD (Fig. 3).", CIFAR10)


@system("hat-resnet18", CIFAR10, says="ResNet-18 by HAT (Table 9).")
def _hat_18(at: At) -> Experiment:
    return _hat(at, "hat-resnet18", "resnet18")


@system("hat-wrn-34-10", CIFAR10, says="WideResNet-34-10 by HAT (Table 9).")
def _hat_wrn(at: At) -> Experiment:
    return _hat(at, "hat-wrn-34-10", "wrn-34-10")


def _hat(at: At, name: str, network: str) -> Experiment:
    objective = HATConfig(helper=at.scale.teachers[at.data][0], **at.inner())
    return at.as_published(at.experiment(name, network, objective), HAT)


@system("mart-resnet18", CIFAR10, says="ResNet-18 by MART (Fig. 1).")
def _mart(at: At) -> Experiment:
    found = at.experiment("mart-resnet18", "resnet18", MARTConfig(**at.inner()))
    return at.as_published(found, MART)


@system("rslad-resnet18", CIFAR10, says="ResNet-18 by RSLAD (Fig. 1).")
def _rslad(at: At) -> Experiment:
    given = {} if at.scale.kd_scale is None else {"kd_scale": at.scale.kd_scale}
    objective = RSLADConfig(robust_teacher=at.scale.teachers[at.data][1], **given, **at.inner())
    return at.experiment("rslad-resnet18", "resnet18", objective)


@system(
    "swin-t",
    CIFAR10,
    says="Swin-Tiny by the recipe of Mo et al. (Table 8); theirs starts from ImageNet weights (awnet import, then --init).",
)
def _swin_t(at: At) -> Experiment:
    return _swin(at, "swin-t")


@system("swin-s", CIFAR10, says="Swin-Small by the recipe of Mo et al. (Table 8).")
def _swin_s(at: At) -> Experiment:
    return _swin(at, "swin-s")


def _swin(at: At, name: str) -> Experiment:
    found = at.as_published(at.experiment(name, name, ViTATConfig(**at.inner())), VIT)
    return replace(found, training=replace(found.training, clip=1.0))


@system("standard", *EVERYWHERE, says="The clean teacher: a network that sees clean images only.")
def _standard(at: At) -> Experiment:
    model = PreActResNetConfig(depth=34) if (at.scale, at.data) == (FULL, TINY) else at.scale.network("resnet18")
    return _on_clean_images(at, "standard", model)


@system("pgd-at", *EVERYWHERE, says="A robust teacher by PGD-AT.")
def _pgd_at(at: At) -> Experiment:
    return at.experiment("pgd-at", "resnet18", PGDATConfig(**at.inner()), training=_of_teacher(at))


@system("trades", *EVERYWHERE, says="A robust teacher by TRADES.")
def _trades(at: At) -> Experiment:
    found = at.experiment("trades", "resnet18", TRADESConfig(**at.inner()), training=_of_teacher(at))
    return replace(found, model=PreActResNetConfig(depth=34)) if (at.scale, at.data) == (FULL, TINY) else found


def _on_clean_images(at: At, name: str, model: Any) -> Experiment:
    found = at.experiment(name, "resnet18", StandardConfig(), model=model, training=_of_teacher(at))
    return replace(found, selection=Selection(gamma_nat=1, gamma_adv=0))


def _of_teacher(at: At) -> TrainingConfig:
    return replace(at.scale.standard, batch_size=at.scale.on[TINY].batch_size) if at.data == TINY else at.scale.standard


# The paper's own teachers (MTARD's). Public weights exist for the robust ones: `awnet import` puts them in the run's place.


@RECIPES.register("cifar10/resnet56")
def resnet56() -> Experiment:
    """The clean teacher of MTARD and of the paper."""
    return _on_clean_images(At(CIFAR10, FULL), "resnet56", ResNetCifarConfig(depth=56))


@RECIPES.register("cifar10/wrn-34-10")
def wrn_34_10() -> Experiment:
    """The robust teacher of MTARD and of the paper: TRADES on a wide network (its authors' weights are public)."""
    return At(CIFAR10, FULL).experiment("wrn-34-10", "wrn-34-10", TRADESConfig(), training=TRADES)


@RECIPES.register("cifar100/wrn-22-6")
def wrn_22_6() -> Experiment:
    """The clean teacher of MTARD and of the paper on CIFAR-100."""
    return _on_clean_images(At(CIFAR100, FULL), "wrn-22-6", MODELS["wrn-22-6-swish"])


@RECIPES.register("cifar100/wrn-70-16")
def wrn_70_16() -> Experiment:
    """The robust teacher of MTARD and of the paper on CIFAR-100 (Gowal et al.; its weights are public)."""
    return At(CIFAR100, FULL).experiment("wrn-70-16", "wrn-70-16-swish", TRADESConfig(), training=TRADES)


@RECIPES.register("cifar10/wrn-70-16")
def surrogate() -> Experiment:
    """The network whose adversarial images Table 6 shows to the others (Gowal et al.; its weights are public)."""
    return At(CIFAR10, FULL).experiment("wrn-70-16", "wrn-70-16-swish", TRADESConfig(), training=TRADES)


def recipes_at(scale: Scale) -> Iterator[tuple[str, Callable[[], Experiment]]]:
    """Every system at a scale, on every data set that the paper has it on, in every seed."""
    for name, (sets, says, build) in SYSTEMS.items():
        for data, seed in [(one, seed) for one in sets for seed in range(trainings(scale, name, one))]:
            at = At(data, scale)

            def recipe(build: Build = build, at: At = at, name: str = name, seed: int = seed) -> Experiment:
                found = build(at)
                assert found.name == at.name(name)
                return replace(found, name=at.name(name, seed), seed=seed, teacher_seed=0) if seed else found

            recipe.__doc__ = says
            yield at.name(name, seed), recipe


REPEATED = ("awnet", "resnet34", "resnet18")  # the rows on which the paper's claims rest


def trainings(scale: Scale, name: str, data: str) -> int:
    """How many seeds of a system there are."""
    return scale.seeds if name in REPEATED and data == CIFAR10 else 1


def _register(scales: Iterable[Scale]) -> None:
    for scale in scales:
        for name, recipe in recipes_at(scale):
            RECIPES.register(name)(recipe)


_register(SCALES.values())
