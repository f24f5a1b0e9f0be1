"""How far two rows are apart, image by image, and whether chance explains it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from awnet.evaluation.metrics import Difference, mean_difference, paired_difference
from awnet.evaluation.record import Record
from awnet.report.alike import same_attacks, same_images, same_settings
from awnet.report.tables import CLEAN, WORST, Row


def differences(records: Sequence[Record], row: Row, base: Row) -> dict[str, Difference] | None:
    """What a row has over another, on each column that both have; None where their images or threat models differ.

    The columns are called "clean", "worst case" and by the attacks.
    """
    a, b = records[row.of[0]], records[base.of[0]]
    if row.threat != base.threat or not same_images(a, b) or not len(a):
        return None
    both = [name for name in b.attacks if name in a.attacks and same_settings(a, b, name)]

    def gap(hits: Callable[[Record], Tensor]) -> Difference:
        return difference(records, row, base, hits)

    found = {CLEAN.title: gap(lambda r: r.clean.correct)}
    if same_attacks(a, b):  # a worst case over different attacks is not the same measure
        found[WORST.title] = gap(lambda r: r.worst)
    return found | {name: gap(lambda r, name=name: r.attacks[name].correct) for name in both}


def difference(records: Sequence[Record], row: Row, base: Row, value: Callable[[Record], Tensor]) -> Difference:
    """How much larger the mean of a value of each example, such as a hit, is in one row than in another.

    Rows of one training each know nothing of the luck of training; the interval of hits is then the exact one for pairs.
    """
    a, b = ([value(records[i]) for i in of] for of in (row.of, base.of))
    if len(a) == len(b) == 1 and not a[0].is_floating_point():
        return paired_difference(a[0], b[0])
    return mean_difference(a, b)


def points(difference: float) -> str:
    """A difference of shares in points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "\u2212")
