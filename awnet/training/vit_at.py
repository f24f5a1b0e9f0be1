"""Adversarial training of transformers (Mo et al., "When adversarial training meets vision transformers", NeurIPS 2022,
https://arxiv.org/abs/2210.07540): PGD training whose attack is weak in the first epochs.

    ARD, attention random dropping: in the attack the gradient of a block's attention counts with probability p, else not at all
    PRM, perturbation random masking: before each step 1 - p of the patches of the perturbation are set back to 0
    p = t / n_w in epoch t, 1 from n_w on: n_w = 10 of 40 epochs

on images that are mixed with a probability of 0.3 (`awnet.training.mixup`). To the published recipe belong a gradient clipped
to a norm of 1 (`TrainingConfig.clip`), 40 epochs in batches of 64, a learning rate of 0.1 that is divided by 10 for the last
five and again for the last two, and weights from ImageNet. There ARD and PRM draw once for a whole batch, here for each image;
there p rises with each epoch, here with each step; there patches are those of the network, here `patch` pixels a side.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from awnet.attacks.attack import Answer, Attack, Gradient
from awnet.attacks.frozen import frozen_for_attack
from awnet.attacks.pgd import PGD, PGDState
from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.swin import WindowAttention
from awnet.noise import Noise
from awnet.threat_model import ThreatModel
from awnet.training.mixup import MixedCrossEntropy, Mixup, alone
from awnet.training.objective import OBJECTIVES, Losses, Moment, Objective, ObjectiveConfig, maximise
from awnet.types import Hits, Images, Labels

_MIXED, _MASKED, _DROPPED = 1, 2, 3  # streams of a step's noise, beside the start of its attack


@setting
@dataclass(frozen=True, kw_only=True)
class ViTATConfig(ObjectiveConfig):
    """mean CE(f(x_adv), y) on mixed images, the attack growing complete in the first epochs.

    Args:
        steps: of the inner PGD, from a uniform start.
        step_size: as a fraction of eps (2/255 at eps 8/255).
        warm_up: n_w, as a share of the training.
        attention: whether attention is dropped (ARD).
        masking: whether perturbations are masked (PRM).
        patch: pixels of a side of a patch that is masked.
        mixup: how images are mixed.
    """

    steps: int = 10
    step_size: float = 1 / 4
    warm_up: float = 0.25
    attention: bool = True
    masking: bool = True
    patch: int = 4
    mixup: Mixup = field(default_factory=Mixup)

    def __post_init__(self) -> None:
        if not (0 <= self.warm_up <= 1 and self.patch >= 1):
            raise Mistake(
                "warm_up is a share of the training between 0 and 1, and a patch has 1 pixel or more a side, got "
                f"{self.warm_up:g} and {self.patch}"
            )

    def build(self, threat: ThreatModel, teachers: dict[str, nn.Module]) -> ViTAT:
        return ViTAT(self, threat)


class ViTAT(Objective):
    """PGD training on mixed images, with ARD and PRM while it warms up."""

    def __init__(self, config: ViTATConfig, threat: ThreatModel) -> None:
        super().__init__()
        self.config = config
        self.attack = PGD(
            threat=threat, loss=MixedCrossEntropy(), steps=config.steps, step_size=config.step_size, initial="uniform"
        )

    def _find(self, model: nn.Module, x: Images, target: Tensor, ids: Tensor, moment: Moment) -> Images:
        config, noise = self.config, Noise(moment.seed, ids)
        p = min(1.0, moment.done / config.warm_up) if config.warm_up else 1.0
        attack = MaskedPGD(over=self.attack, patch=config.patch, p=p if config.masking else 1.0)
        dropped = attention_dropped(model, p if config.attention else 1.0, noise.stream(_DROPPED))
        with frozen_for_attack(model), dropped:
            return maximise(attack, model, x, target, ids, moment)

    def adversarial(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Images:
        return self._find(model, x, alone(y), ids, moment)

    def forward(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Losses:
        mixed, target = self.config.mixup(x, y, Noise(moment.seed, ids).stream(_MIXED))
        x_adv = self._find(model, mixed, target, ids, moment)
        return Losses({"adversarial": MixedCrossEntropy()(model(x_adv), target)}, {"adversarial": 1.0}, {})


@contextmanager
def attention_dropped(model: nn.Module, p: float, noise: Noise) -> Iterator[None]:
    """While it lasts, gradients pass a block's attention with probability p, an image; what it computes stays the same."""
    blocks = [module for module in model.modules() if isinstance(module, WindowAttention)]
    if not blocks:
        raise Mistake(f"vit-at trains a transformer (swin-t, swin-s), got {type(model).__name__}; use pgd-at")
    hooks = [block.register_forward_hook(_Dropping(p, noise.stream(n))) for n, block in enumerate(blocks) if p < 1]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Dropping:
    """The hook of one block, which counts its passes."""

    def __init__(self, p: float, noise: Noise) -> None:
        self.p, self.noise, self.passes = p, noise, 0

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        passing = self.noise.uniform(self.passes) < self.p
        self.passes += 1
        return torch.where(passing[:, None, None, None], output, output.detach())


@dataclass(frozen=True, kw_only=True)
class MaskedPGD(Attack):
    """PGD that forgets some patches of its perturbation before each step.

    Args:
        over: the PGD.
        patch: pixels of a side of a patch.
        p: the share of patches that are kept.
    """

    over: PGD
    patch: int
    p: float
    stop_on_success = False

    @property
    def threat(self) -> ThreatModel:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.over.threat

    @property
    def queries(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.over.queries

    def within(self, threat: ThreatModel) -> MaskedPGD:
        return replace(self, over=replace(self.over, threat=threat))

    def _masked(self, state: PGDState, noise: Noise) -> PGDState:
        rows, columns = (-(-size // self.patch) for size in state.x.shape[2:])
        order = noise.stream(_MASKED).bits(state.step, (rows * columns,)).argsort(dim=1).argsort(dim=1)
        forgotten = order < int(rows * columns * (1 - self.p))  # so many patches, each as likely
        forgotten = forgotten.view(-1, 1, rows, columns)
        forgotten = forgotten.repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)
        forgotten = forgotten[:, :, : state.x.shape[2], : state.x.shape[3]]
        # after the last step nothing is forgotten any more
        forgotten = forgotten & ~self.done(state)[:, None, None, None]
        return state._replace(x_adv=torch.where(forgotten, state.x, state.x_adv))

    def start(self, x: Images, target: Tensor, noise: Noise) -> PGDState:
        return self._masked(self.over.start(x, target, noise), noise)

    def query(self, state: PGDState) -> Gradient:
        return self.over.query(state)

    def update(self, state: PGDState, answer: Answer, noise: Noise) -> PGDState:
        return self._masked(self.over.update(state, answer, noise), noise)

    def done(self, state: PGDState) -> Hits:
        return self.over.done(state)

    def adversarial(self, state: PGDState) -> Images:
        return self.over.adversarial(state)


OBJECTIVES.register("vit-at")(ViTATConfig())
