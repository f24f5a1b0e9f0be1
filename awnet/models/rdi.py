"""RDI-ResNet-38 (Hu et al., 2020, "Triple wins", https://arxiv.org/abs/2002.10025): a residual network with seven exits.

The CIFAR ResNet of 6n + 2 layers, n = 6, with an exit after the second and the fifth block of each stage beside the last
one. An image leaves at the first exit that is sure enough: whose entropy is below a threshold of its own. The decision is
hard, so no gradient passes through it, and an attacker can aim at any exit: `decide` offers them all.

With 10 classes it has 692,310 parameters; the AW-Net paper prints 2.7, which is megabytes of them in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from awnet.config import setting
from awnet.errors import Mistake
from awnet.models.model import MODELS, Architecture, Decision
from awnet.models.resnet import BasicBlock
from awnet.types import Hits, Images, Logits

STAGES, EXITS = 3, 7


@setting
@dataclass(frozen=True, kw_only=True)
class RDIResNetConfig(Architecture):
    """A multi-exit ResNet.

    Args:
        blocks: in each of the three stages, at least 2; 6 in RDI-ResNet-38.
        width: channels of the first stage.
        thresholds: of the entropy at the first six exits, in nats; an image with less leaves. Negative: nobody does.
    """

    blocks: int = 6
    width: int = 16
    thresholds: tuple[float, ...] = (-1.0,) * (EXITS - 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.blocks <= 1000 or self.width < 1 or len(self.thresholds) != EXITS - 1:
            raise Mistake(
                f"RDI-ResNet needs 2 to 1000 blocks a stage, a width of at least 1 and {EXITS - 1} thresholds, got "
                f"blocks={self.blocks}, width={self.width} and {len(self.thresholds)} thresholds"
            )

    def build(self, *, classes: int, channels: int = 3) -> RDIResNet:
        return RDIResNet(self, classes=classes, channels=channels)

    def narrow(self) -> RDIResNetConfig:
        return replace(self, blocks=2, width=4)


class RDIResNet(nn.Module):
    """Logits of the exit at which each image leaves; `exits` are those of all."""

    def __init__(self, config: RDIResNetConfig, *, classes: int, channels: int = 3) -> None:
        super().__init__()
        w = config.width
        self.normalize = config.normalize(channels)
        self.stem = nn.Sequential(nn.Conv2d(channels, w, 3, 1, 1, bias=False), nn.BatchNorm2d(w), nn.ReLU())
        self.stages = nn.ModuleList()
        for stage in range(STAGES):
            c_in, c_out = w * 2 ** max(stage - 1, 0), w * 2**stage
            blocks = [
                BasicBlock(c_in if i == 0 else c_out, c_out, 1 + (stage > 0 and i == 0)) for i in range(config.blocks)
            ]
            self.stages.append(nn.ModuleList(blocks))
        self.branches = nn.ModuleList(
            [
                *(_early(w) for _ in range(2)),
                *(BasicBlock(2 * w, 2 * w, 1) for _ in range(2)),
                nn.Identity(),
                nn.Identity(),
            ]
        )
        widths = (2 * w, 2 * w, 2 * w, 2 * w, 4 * w, 4 * w, 4 * w)
        self.heads = nn.ModuleList(nn.Linear(width, classes) for width in widths)
        self.register_buffer("thresholds", torch.tensor(config.thresholds))

    def exits(self, x: Images) -> Tensor:
        """The logits at every exit, the last one last, shape (7, b, classes)."""
        return torch.stack(list(self._exits(x)))

    def exit(self, x: Images, number: int) -> Logits:
        """The logits at one exit, 0 to 6, computed no further than there."""
        return next(islice(self._exits(x), number, None))

    def _exits(self, x: Images) -> Iterator[Logits]:
        out, number = self.stem(self.normalize(x)), 0
        for stage, blocks in enumerate(self.stages):
            blocks = cast(nn.ModuleList, blocks)
            for i, block in enumerate(blocks):
                out = block(out)
                if i in (len(blocks) // 4, len(blocks) * 3 // 4):
                    # each branch of the first two stages halves its map first
                    branch = F.max_pool2d(out, 2, ceil_mode=True) if stage < 2 else out
                    yield self.heads[number](self.branches[number](branch).mean((2, 3)))
                    number += 1
        yield self.heads[number](out.mean((2, 3)))

    def forward(self, x: Images) -> Logits:
        exits = self.exits(x)
        return _at(exits, self.leaves(exits))

    def leaves(self, exits: Tensor) -> Tensor:
        """The exit at which each image leaves, 0 to 6, from the logits of all exits."""
        sure = entropy(exits[:-1]) < self.get_buffer("thresholds")[:, None]
        # the last exit takes everybody
        return torch.cat([sure, torch.ones_like(sure[:1])]).int().argmax(0)

    @property
    def forms(self) -> tuple[str, ...]:
        """The frozen forms of `decide`: every image leaves at one exit.

        Nothing is decided about attacks here. The first and the last exit go by the names that attacks have for the two
        sides of a decision, "clean" and "adversarial", so that these look at both.
        """
        return ("clean", *(f"exit {k + 1}" for k in range(1, EXITS - 1)), "adversarial")

    def decide(self, x: Images, seen: Images, form: str, forced: Hits) -> Decision:
        """See `Deciding`; the log-odds are by how much the entropy at the first exit lies below its threshold."""
        exits = self.exits(x)
        deciding = exits if seen is x else self.exits(seen)
        leaves = self.leaves(deciding)
        if form:
            leaves = torch.where(forced, self.forms.index(form), leaves)
        return Decision(_at(exits, leaves), self.get_buffer("thresholds")[0] - entropy(deciding[0]))

    @torch.no_grad()
    def calibrate(self, x: Images) -> None:
        """Set the thresholds so that an equal share of these images leaves at every exit, in the order of the exits.

        The authors take test images; ours are for the caller to choose, and validation images are meant.
        """
        uncertain = entropy(self.exits(x)[:-1])
        left = torch.ones(len(x), dtype=torch.bool, device=x.device)
        for k, found in enumerate(uncertain):
            threshold = found[left].quantile(1 / (EXITS - k)) if left.any() else found.new_tensor(-1.0)
            self.get_buffer("thresholds")[k] = threshold
            left &= found >= threshold


def _at(exits: Tensor, leaves: Tensor) -> Logits:
    """Of all exits' logits those at which each image leaves."""
    return exits.gather(0, leaves[None, :, None].expand(1, -1, exits.shape[2]))[0]


def entropy(logits: Tensor) -> Tensor:
    """-sum_k p_k log p_k over the last dimension, in nats."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def _early(width: int) -> nn.Sequential:
    """The branch of an exit of the first stage."""
    return nn.Sequential(
        *(nn.Conv2d(width, 4 * width, 5, 1, 2, bias=False), nn.BatchNorm2d(4 * width), nn.ReLU()),
        nn.MaxPool2d(2, ceil_mode=True),
        *(nn.Conv2d(4 * width, 2 * width, 3, 1, 1, bias=False), nn.BatchNorm2d(2 * width)),
    )


MODELS.register("rdi-resnet38")(RDIResNetConfig())
