"""The rigour report: ten small experiments on a model, each of which says whether its robust accuracy can be believed.

After the checklists of the field: Carlini et al. (2019, https://arxiv.org/abs/1902.06705), AutoAttack's own checks (Croce and
Hein, 2020), the binarised-model test (Zimmermann et al., 2022) and the indicators of attack failure (Pintor et al., 2022). A
new check is a file of this folder with a function under `@check`, an import below, and a line in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from awnet.attacks.engine import Engine
from awnet.attacks.frozen import frozen_for_attack
from awnet.attacks.sweep import Examples, TensorExamples
from awnet.errors import Mistake
from awnet.evaluation.adversarials import Adversarials
from awnet.evaluation.finding import Finding
from awnet.evaluation.record import Record
from awnet.evaluation.rigour import (
    batches,
    benign,
    binarised,
    branches,
    failures,
    gradients,
    honesty,
    inputs,
    ordering,
    radius,
)
from awnet.evaluation.rigour.check import CHECKS, Check, Part, Trial, check
from awnet.noise import permutation
from awnet.threat_model import ThreatModel

__all__ = [
    "CHECKS",
    "Check",
    "Finding",
    "Part",
    "Trial",
    "batches",
    "benign",
    "binarised",
    "branches",
    "check",
    "failures",
    "gradients",
    "honesty",
    "inputs",
    "ordering",
    "radius",
    "rigour",
]


def rigour(
    model: nn.Module,
    examples: Examples,
    threat: ThreatModel,
    *,
    engine: Engine | None = None,
    seed: int = 0,
    limit: int = 100,
    steps: int = 40,
    record: Record | None = None,
    adversarials: Adversarials | None = None,
    checks: Sequence[str] | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> tuple[Finding, ...]:
    """Put a model, and a record of its evaluation, to the checks.

    Args:
        model: maps [0, 1] images to logits; left as it was.
        examples: images and labels; best those of the record, so that its attacks and the checks' own can be compared.
        threat: the threat model of the evaluation.
        engine: how attacks are run.
        seed: of the random numbers, and of the choice of images.
        limit: at most so many images are looked at.
        steps: of the checks' own attacks; all checks together ask for about 30 times as many gradients an image, and with a
            record, whose attacks are run anew with more steps and from other seeds, for up to half as many again.
        record: the evaluation whose claims are to be believed, if there is one.
        adversarials: its images (`read_adversarials`); without them C3 measures the few that the record itself holds.
        checks: their codes; all of them by default.
        progress: told the name of the check that begins.

    Raises:
        Mistake: no example, no such check, or limits below 1.
    """
    if min(limit, steps) < 1 or len(examples) == 0:
        raise Mistake(
            f"the rigour report needs at least 1 image and 1 step, got {len(examples)} images, limit={limit} and "
            f"steps={steps}"
        )
    chosen = sorted(CHECKS if checks is None else checks, key=lambda code: (len(code), code))  # C10 after C9
    found = [CHECKS[code] for code in chosen]
    places = permutation(seed, len(examples))[:limit].sort().values
    x, y = (t.cpu() for t in examples.batch(places))
    engine = engine or Engine()
    trial = Trial(
        model=model,
        examples=TensorExamples(x, y, examples.ids.cpu()[places]),
        threat=threat,
        engine=replace(engine, batch_size=min(engine.batch_size, max(len(x), 2))),  # a lone image twice: see `filled`
        seed=seed,
        steps=steps,
        record=record,
        whole=examples,
        saved=adversarials,
    )
    findings: list[Finding] = []
    with frozen_for_attack(model), torch.enable_grad():
        for each in found:
            progress(f"{each.code} {each.name}")
            findings.append(each(trial))
    return tuple(findings)
