"""A classifier and the detector that watches it, as one model that decides: what attacks that know the detector attack.

`awnet.attacks.adaptive.evade` fools class and detector at once in any model that is `Deciding`; so it does here.
"""

from __future__ import annotations

from torch import nn

from awnet.detection.detector import Detector
from awnet.models.model import Decision
from awnet.types import Hits, Images, Logits


class Guarded(nn.Module):
    """The logits of the classifier, the detector's score as log-odds of clean.

    Args:
        detector: fitted to its classifier.
    """

    forms: tuple[str, ...] = ()  # nothing of the class depends on the detector

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Images) -> Logits:
        return self.detector.model(x)

    def decide(self, x: Images, seen: Images, form: str, forced: Hits) -> Decision:
        """Logits of x, and how clean the images `seen` look; see `Deciding`."""
        # copies, as a classifier may normalise in place, and x and seen are mostly one tensor
        return Decision(self(x.clone()), self.detector.score(seen.clone()))
