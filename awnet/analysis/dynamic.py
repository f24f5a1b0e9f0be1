"""What an AW-Net's signals do, on clean images and on the same images attacked: the numbers behind its claims, in one value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from awnet.analysis.distributions import moments, wasserstein
from awnet.analysis.effective_filters import EffectiveFilters, effective_filters, narrowing
from awnet.analysis.survival import Answers, Types, share_between_types, survival
from awnet.evaluation.metrics import accuracy
from awnet.evaluation.modulation import Omega, signals, summarise
from awnet.models import AWNet
from awnet.types import Labels


@dataclass(frozen=True, kw_only=True)
class Dynamic:
    """What was found of an AW-Net; layers by the names of their modules.

    Attributes:
        filters: of "clean" and "attacked" images, each layer's effective filters.
        omega: of both, each layer's signals in a few numbers.
        between: the share of a layer's variance of omega that lies between the types.
        answers: with omega replaced in each way, of both types.
    """

    filters: dict[str, dict[str, EffectiveFilters]]
    omega: dict[str, dict[str, Omega]]
    between: dict[str, float]
    answers: dict[str, dict[str, Answers]]

    def means(self, type_: str) -> dict[str, Tensor]:
        """The means of each layer's effective filters, over the images of a type: shape (c_out,)."""
        return {layer: found.means.mean(0) for layer, found in self.filters[type_].items()}

    def figures(self) -> dict[str, Any]:
        """All numbers as JSON has them."""
        clean, attacked = self.filters["clean"], self.filters["attacked"]
        return {
            "effective filters": {
                layer: {
                    **{type_: asdict(moments(self.means(type_)[layer])) for type_ in self.filters},
                    "wasserstein": wasserstein(self.means("clean")[layer], self.means("attacked")[layer]),
                    "attacked over clean": {
                        "deviation of the means": asdict(narrowing(clean[layer].deviation, attacked[layer].deviation)),
                        "of all weights": asdict(narrowing(clean[layer].weights, attacked[layer].weights)),
                        "of the means, norm-free": asdict(narrowing(clean[layer].relative, attacked[layer].relative)),
                    },
                }
                for layer in clean
            },
            "omega": {type_: {layer: asdict(o) for layer, o in found.items()} for type_, found in self.omega.items()},
            "share of omega's variance between types": self.between,
            "omega replaced": {
                way: {
                    type_: {
                        "accuracy": accuracy(said.correct).value,
                        "class changed": accuracy(said.moved).value,
                        "change of logits": float(said.change.mean()),
                    }
                    for type_, said in by_type.items()
                }
                for way, by_type in self.answers.items()
            },
        }


def dynamic(
    model: AWNet, images: Types, y: Labels, *, seed: int = 0, batch_size: int = 128, fit: Types | None = None
) -> Dynamic:
    """Look at an AW-Net.

    Args:
        model: left as it was.
        images: of both types, the same ones in the same order.
        y: their labels.
        seed: of who is shuffled with whom.
        batch_size: how many are looked at together.
        fit: training images of both types, for batch norms that are estimated anew.

    Raises:
        Mistake: where the model scales no filters, or there are fewer than two images.
    """
    filters = {type_: effective_filters(model, x, batch_size) for type_, x in images._asdict().items()}
    names = list(filters["clean"])  # the signals call a layer "block 1, conv 1"; here it goes by its module
    clean, attacked = (
        dict(zip(names, signals(model, x, batch_size).values(), strict=True)) for x in (images.clean, images.attacked)
    )
    return Dynamic(
        filters=filters,
        omega={"clean": summarise(clean), "attacked": summarise(attacked, clean)},
        between=share_between_types(clean, attacked),
        answers=survival(model, images, y, seed=seed, batch_size=batch_size, fit=fit),
    )
