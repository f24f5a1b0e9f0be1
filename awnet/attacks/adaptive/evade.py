"""Evasion: attacks that count only where the image is misclassified and the decision takes it for clean all the same.

What a detector is worth is seen under an attacker who has to fool both at once (Carlini and Wagner, 2017,
https://arxiv.org/abs/1705.07263; Bryniarski et al., 2021, https://arxiv.org/abs/2106.15023).
"""

from __future__ import annotations

from collections.abc import Mapping

from awnet.attacks.adaptive.steer import Steer
from awnet.attacks.adaptive.weigh import Weigh
from awnet.threat_model import ThreatModel

SLACK = 0.1  # of log-odds, by which the push goes beyond what is needed


def evasions(threat: ThreatModel, caught: float) -> Mapping[str, Steer]:
    """Four ways to weigh class against decision; an image is caught at log-odds of clean up to `caught`.

    An example is evaded where any of them misclassifies it unnoticed. They are no `Suite`, whose members leave alone what
    is misclassified, noticed or not.
    """
    ways: tuple[Weigh, ...] = ("sum", "orthogonal", "selective", "stay")
    return {
        f"evade-{way}": Steer(
            threat=threat, push="clean", weigh=way, level=caught + SLACK, caught=caught, stop_on_success=False
        )
        for way in ways
    }
