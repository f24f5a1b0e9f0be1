"""How the gradient of the class and that of the decision make one direction, and how good a point is.

- "sum": both at length 1, the decision's times a weight, and only until the decision is made.
- "stay": the decision's until it is made, then the class's: the attacker stays on that side.
- "selective": the class's until the image is misclassified, then the decision's (Bryniarski, Hein, Gowal and Carlini,
  "Evading adversarial example detection defenses with orthogonal projected gradient descent", 2021,
  https://arxiv.org/abs/2106.15023, section 4.1).
- "orthogonal": the same, each less its part along the other, so that no step undoes what the last one won (4.2).
- "decision": the decision's alone.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import torch

from awnet.attacks.attack import per_image, select
from awnet.types import Hits, Images, PerExample

Weigh: TypeAlias = Literal["sum", "stay", "selective", "orthogonal", "decision"]


class Weighed(NamedTuple):
    """What a step goes by.

    Attributes:
        direction: uphill, of any length.
        merit: how good the point is, to be raised.
        there: whether the decision is made.
    """

    direction: Images
    merit: PerExample
    there: Hits

    @classmethod
    def of(
        cls,
        how: Weigh,
        margin: PerExample,
        uphill: Images,
        beyond: PerExample,
        push: Images,
        weight: PerExample,
        both: bool,
    ) -> Weighed:
        """A class margin and how far the decision is beyond the wanted level, each with its gradient.

        Args:
            how: one of `Weigh`.
            margin, uphill: positive where the image is misclassified.
            beyond, push: positive where the decision is as wanted.
            weight: of the decision in a sum.
            both: whether a point is as good as the lesser of the two. In a frozen form it has to be; the margin of the
                model as it is tells by itself what the decision was good for.
        """
        there = beyond >= 0
        uphill, push = unit(uphill), unit(push)
        if how == "sum":
            direction = uphill + per_image(weight * ~there) * push
        elif how == "stay":
            direction = select(there, uphill, push)
        elif how == "decision":
            direction = push
        else:
            if how == "orthogonal":
                along = (uphill * push).flatten(1).sum(1)
                uphill, push = uphill - per_image(along) * push, push - per_image(along) * uphill
            direction = select(margin > 0, push, uphill)
        if how == "decision":
            return cls(direction, beyond, there)
        return cls(direction, torch.minimum(margin, beyond) if both or how != "sum" else margin, there)


def unit(gradient: Images) -> Images:
    """The gradient at Euclidean length 1; 0 where it is 0."""
    # scaled before it is squared: the square of a gradient below 1e-23 is 0
    largest = gradient.abs().flatten(1).amax(1)
    scaled = gradient / per_image(torch.where(largest > 0, largest, 1.0))
    return scaled / per_image(scaled.flatten(1).norm(dim=1).clamp(min=1))
