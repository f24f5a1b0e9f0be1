"""The images of a record as small PNGs inside the page: as they are, what the attack added, and what came out."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO

import torch
from torch import Tensor

from awnet.evaluation.record import Record
from awnet.types import Images

LONGEST = 96  # pixels of a side; larger images are reduced by a whole factor
BUDGET = 360_000  # characters of all images of a page
MOST = 8  # examples of a record


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One example before and after the attack.

    Attributes:
        x, difference, x_adv: addresses that hold the images themselves.
        true, before, after: names of classes.
        right_before, right_after: whether those are the true one.
        p_before, p_after: P(clean), None where the model does not tell.
    """

    x: str
    difference: str
    x_adv: str
    true: str
    before: str
    after: str
    right_before: bool
    right_after: bool
    p_before: float | None
    p_after: float | None


def samples(record: Record, budget: int = BUDGET) -> list[Sample]:
    """The record's samples, as many as fit into so many characters, but one if there is one."""
    found = record.samples
    if found is None or found.attack not in record.attacks:
        return []
    after = record.attacks[found.attack]
    shown: list[Sample] = []
    spent = 0
    difference = magnified(found.x, found.x_adv, _radius(record))
    for k, i in enumerate(found.positions.tolist()[:MOST]):
        images = [png(_reduced(found.x[k], smooth=True)), png(_reduced(difference[k], smooth=False))]
        images.append(png(_reduced(found.x_adv[k], smooth=True)))
        spent += sum(map(len, images))
        if shown and spent > budget:
            break
        p_before, p_after = (float(result.p_clean[i]) for result in (record.clean, after))
        shown.append(
            Sample(
                x=images[0],
                difference=images[1],
                x_adv=images[2],
                true=_class(record, record.labels[i]),
                before=_class(record, record.clean.prediction[i]),
                after=_class(record, after.prediction[i]),
                right_before=bool(record.clean.correct[i]),
                right_after=bool(after.correct[i]),
                p_before=None if p_before != p_before else p_before,
                p_after=None if p_after != p_after else p_after,
            )
        )
    return shown


def magnified(x: Images, x_adv: Images, radius: float | None) -> Images:
    """0.5 + delta / (2 radius): grey where nothing changed, an end of the range at the edge of the ball.

    Args:
        x, x_adv: the images.
        radius: of a ball in the maximum norm; None for another ball, where each image's largest change is taken.
    """
    delta = x_adv - x
    largest = delta.abs().amax((1, 2, 3), keepdim=True) if radius is None else torch.tensor(radius)
    return (0.5 + delta / (2 * largest.clamp(min=1e-12))).clamp(0, 1)


def _radius(record: Record) -> float | None:
    eps = record.threat.get("eps")
    return float(eps) if record.threat.get("kind") == "Linf" and isinstance(eps, (int, float)) and eps > 0 else None


def _class(record: Record, label: Tensor) -> str:
    number = int(label)
    return record.classes[number] if 0 <= number < len(record.classes) else f"class {number}"


def _reduced(image: Tensor, *, smooth: bool) -> Tensor:
    """The image by a whole factor smaller: means for looking at it, single pixels where their signs matter."""
    factor = -(-max(image.shape[1:]) // LONGEST)
    if factor == 1:
        return image
    return torch.nn.functional.avg_pool2d(image, factor) if smooth else image[:, ::factor, ::factor]


def png(image: Tensor) -> str:
    """The address of a PNG of an image of shape (c, h, w) in [0, 1]; two channels or more than three show their mean."""
    from PIL import Image

    pixels = image if len(image) in (1, 3) else image.mean(0, keepdim=True)
    pixels = (
        (pixels.nan_to_num(0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).squeeze(2).cpu().numpy()
    )
    written = BytesIO()
    Image.fromarray(pixels).save(written, "PNG", optimize=True)
    return "data:image/png;base64," + b64encode(written.getvalue()).decode()
