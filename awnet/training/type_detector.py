"""Training of Separate-Net's detector, which looks at images before two networks that are finished.

    1/2 CE(d(x), clean) + 1/2 CE(d(x_adv), adversarial)

The AW-Net paper (5.2.2) says of the detector that it is "trained and thresholded", and not on what. Here x_adv is the PGD
image of one of the two networks: the first half of a batch is attacked on the clean network, the second on the robust one.
Clean and adversarial images pass side by side, as they pass AW-Net's router (`awnet.training.joint`), and for its reason.

Train it without random crops (`--data.padding 0`, as its recipes do): they leave black borders, which an attack does not leave
black, and a detector of our own learnt to look there and nowhere else: it told cropped test images from attacked ones, and was
at chance on whole ones.

What is trained and saved is the Separate-Net: the weights of the two networks are put into it before the first step and
never move, so that the best epoch is chosen by what the whole does, and one checkpoint holds all three.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from awnet.attacks.frozen import frozen_for_attack
from awnet.attacks.pgd import PGD
from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import CrossEntropy
from awnet.models.router import ADVERSARIAL, CLEAN
from awnet.models.separate_net import SeparateNet
from awnet.threat_model import ThreatModel
from awnet.training.finished_parts import BesideFinished
from awnet.training.objective import OBJECTIVES, Losses, Moment, ObjectiveConfig, maximise
from awnet.types import Images, Labels, Logits


@setting
@dataclass(frozen=True, kw_only=True)
class TypeDetectorConfig(ObjectiveConfig):
    """The two-way cross-entropy of a Separate-Net's detector. A learning rate of 0.01 is meant, as for AW-Net's router.

    Args:
        clean_teacher, robust_teacher: a checkpoint, or the name of a recipe that trains it first: the two networks.
        steps: of the PGD on each, from a uniform start.
        step_size: as a fraction of eps (2/255 at eps 8/255).
    """

    clean_teacher: str = ""
    robust_teacher: str = ""
    steps: int = 10
    step_size: float = 1 / 4

    @property
    def teachers(self) -> dict[str, str]:
        return {"clean": self.clean_teacher, "robust": self.robust_teacher}

    def build(self, threat: ThreatModel, teachers: dict[str, nn.Module]) -> TypeDetector:
        return TypeDetector(self, threat, clean=teachers["clean"], robust=teachers["robust"])


class TypeDetector(BesideFinished):
    """The detector's loss; of the networks behind it, it needs the weights once."""

    def __init__(self, config: TypeDetectorConfig, threat: ThreatModel, *, clean: nn.Module, robust: nn.Module) -> None:
        super().__init__(clean=clean, robust=robust)
        self.attack = PGD(threat=threat, steps=config.steps, step_size=config.step_size, initial="uniform")

    def whole(self, model: nn.Module) -> SeparateNet:
        if not isinstance(model, SeparateNet):
            raise Mistake(f"the detector objective trains the detector of a Separate-Net, got {type(model).__name__}")
        return model

    def adversarial(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Images:
        whole = self.whole(model)

        def against(network: nn.Module, rows: slice) -> Images:
            def through(x: Images) -> Logits:
                return network(whole.normalize(x))

            return maximise(self.attack, through, x[rows], y[rows], ids[rows], moment)

        half = len(x) // 2
        with frozen_for_attack(whole):
            return torch.cat([against(whole.clean, slice(half)), against(whole.robust, slice(half, None))])

    def forward(self, model: nn.Module, x: Images, y: Labels, ids: Tensor, moment: Moment) -> Losses:
        whole = self.whole(model)
        self.compare(whole, x)
        x_adv = self.adversarial(whole, x, y, ids, moment)
        of_type = whole.detector(whole.normalize(torch.cat([x, x_adv])))
        types = torch.full((2 * len(x),), CLEAN, device=x.device)
        types[len(x) :] = ADVERSARIAL
        clean, adversarial = CrossEntropy()(of_type, types).chunk(2)
        told = (of_type.argmax(1) == types).double().mean()
        return Losses({"type": (clean + adversarial) / 2}, {"type": 1.0}, {"types_told": told})


OBJECTIVES.register("type-detector")(TypeDetectorConfig())
