"""Detectors side by side: how well each tells the attacked versions of images from the images (the AW-Net paper's Table 5).

The protocol is that of NNIF, which the paper compares with. Only images that are classified correctly count. Each of them is
there once as it is and, where the attack changed it, once attacked, white box on the classifier; whether the attack succeeded
does not matter, and the AUC on those that it fooled stands beside. A detector is fitted on validation images under the same
attack, or under one attack for all (`fit_attack`), which shows what becomes of it under attacks it has not seen. None of these
attacks knows the detector: `awnet.evaluation.detection.detection` of a `Guarded` classifier says what is left under one that
does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import nn

from awnet.attacks.attack import Attack
from awnet.attacks.engine import Engine
from awnet.attacks.suite import Suite
from awnet.attacks.sweep import TensorExamples
from awnet.config import to_json
from awnet.data.dataset import Dataset
from awnet.detection import Detector, DetectorConfig, Guarded, Known
from awnet.errors import Mistake
from awnet.evaluation.detection import RATES, scores
from awnet.evaluation.metrics import auc, noticed_at
from awnet.evaluation.modulation import with_means
from awnet.folders import replace_folder
from awnet.models.model import device_of
from awnet.provenance import provenance
from awnet.types import Hits, Images, PerExample


class Pairs(NamedTuple):
    """Images that are classified correctly, and what an attack made of them.

    Attributes:
        x: as they are.
        x_adv: attacked.
        fooled: which are misclassified then.
        ids: their places in the split they come from.
    """

    x: Images
    x_adv: Images
    fooled: Hits
    ids: torch.Tensor

    @property
    def changed(self) -> Hits:
        """Which are other images now; some attacks give back what they cannot break."""
        return (self.x_adv != self.x).flatten(1).any(1)


class Told(NamedTuple):
    """What a detector says of pairs, the higher, the cleaner, and what the attack did to them; all of shape (n,)."""

    clean: PerExample
    attacked: PerExample
    fooled: Hits
    changed: Hits

    def auc(self, *, fooled: bool = False) -> float:
        """Of the images that the attack changed, or that also fool the class; NaN where there are none."""
        attacked = self._scores(fooled)
        return auc(self.clean, attacked) if len(attacked) else float("nan")

    def noticed(self, rate: float, *, fooled: bool = False) -> float:
        """TPR at this FPR, of the same images."""
        return noticed_at(rate, self.clean, self._scores(fooled))

    def _scores(self, fooled: bool) -> torch.Tensor:
        return self.attacked[self.changed & self.fooled if fooled else self.changed]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Scores of every image; all figures are made of them.

    Args:
        detectors: their settings, by name.
        attacks: their settings, by name.
        fit_attack: the attack that all were fitted under; None where each was fitted under the one it is judged on.
        told: by detector, then by attack.
    """

    detectors: Mapping[str, DetectorConfig]
    attacks: Mapping[str, Attack | Suite]
    fit_attack: str | None
    told: Mapping[str, Mapping[str, Told]]

    def figures(self) -> dict[str, Any]:
        """All of them, as plain numbers, by detector and attack."""
        return {
            detector: {
                attack: {
                    "images": len(told.clean),
                    "changed": int(told.changed.sum()),
                    "fooled": float(told.fooled.double().mean()),
                    "AUC": told.auc(),
                    "AUC, fooled": told.auc(fooled=True),
                    **{f"noticed at {rate:g}": told.noticed(rate) for rate in RATES},
                    **{f"noticed at {rate:g}, fooled": told.noticed(rate, fooled=True) for rate in RATES},
                }
                for attack, told in row.items()
            }
            for detector, row in self.told.items()
        }

    def save(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Write `detectors.json`, the figures and what is said of them, and every score beside it.

        Raises:
            Mistake: the folder cannot be written.
        """
        arrays = {
            f"{detector}/{attack}/{what}": values
            for detector, row in self.told.items()
            for attack, told in row.items()
            for what, values in told._asdict().items()
        }
        said = {
            **about,
            "detectors": to_json(dict(self.detectors)),
            "attacks": to_json(dict(self.attacks)),
            "fitted under": self.fit_attack or "the same attack",
            "figures": self.figures(),
        }

        def write(place: Path) -> None:
            save_file({name: t.clone() for name, t in arrays.items()}, place / "detectors.safetensors")
            (place / "detectors.json").write_text(json.dumps({**said, "provenance": provenance()}, indent=1) + "\n")

        replace_folder(folder, write)


def compare(
    model: nn.Module,
    detectors: Mapping[str, DetectorConfig],
    attacks: Mapping[str, Attack | Suite],
    *,
    train: Dataset,
    validation: Dataset,
    test: Dataset,
    fit_attack: str | None = None,
    engine: Engine | None = None,
    seed: int = 0,
    watch: Callable[[str], None] = lambda what: None,
) -> Comparison:
    """Judge detectors of one classifier.

    Args:
        model: the classifier; left as it was.
        detectors: settings by name, such as `DETECTORS`.
        attacks: by name.
        train: images that the classifier was trained on, as many as the detectors may keep.
        validation: images that they are fitted on.
        test: images that they are judged on.
        fit_attack: the name of the one attack to fit under; None for the attack in question.
        engine: how the attacks are run.
        seed: of their random numbers.
        watch: told what begins.

    Raises:
        Mistake: `fit_attack` is not among the attacks, no image is classified correctly, or a detector cannot be fitted.
    """
    engine, model = engine or Engine(), with_means(model, test)
    if fit_attack is not None and fit_attack not in attacks:
        raise Mistake(f"detectors cannot be fitted under {fit_attack!r}, which is not among {', '.join(attacks)}")
    fitted: dict[str, dict[str, Detector]] = {}
    for attack in [fit_attack] if fit_attack else list(attacks):
        watch(f"{attack} on {len(validation)} validation images")
        known = known_of(model, attacks[attack], train=train, validation=validation, engine=engine, seed=seed)
        for name, config in detectors.items():
            watch(f"{name}, fitted under {attack}")
            fitted.setdefault(name, {})[attack] = config.fit(model, known)
    told: dict[str, dict[str, Told]] = {name: {} for name in detectors}
    for attack in attacks:
        watch(f"{attack} on {len(test)} {test.split} images")
        found = pairs(model, attacks[attack], test, engine=engine, seed=seed)
        for name in detectors:
            watch(f"{name} judged on {attack}")
            guarded = Guarded(fitted[name][fit_attack or attack])
            clean, attacked = (scores(guarded, x, engine.batch_size)[0] for x in (found.x, found.x_adv))
            told[name][attack] = Told(clean, attacked, found.fooled, found.changed)
    return Comparison(detectors=dict(detectors), attacks=dict(attacks), fit_attack=fit_attack, told=told)


def known_of(
    model: nn.Module, attack: Attack | Suite, *, train: Dataset, validation: Dataset, engine: Engine, seed: int
) -> Known:
    """What detectors are fitted on: training images, and pairs of validation images, on the model's device.

    Raises:
        Mistake: no validation image is classified correctly.
    """
    device = device_of(model)
    x, y = train.batch(torch.arange(len(train)))
    found = pairs(model, attack, validation, engine=engine, seed=seed)
    return Known(x.to(device), y.to(device), found.x.to(device), found.x_adv.to(device))


def pairs(model: nn.Module, attack: Attack | Suite, dataset: Dataset, *, engine: Engine, seed: int) -> Pairs:
    """The images that the model classifies correctly, as they are and attacked.

    Raises:
        Mistake: there are none.
    """
    x, y = dataset.batch(torch.arange(len(dataset)))
    _, prediction = scores(model, x, engine.batch_size) if len(x) else (None, y)
    right = (prediction == y).nonzero()[:, 0]
    if not len(right):
        raise Mistake(
            f"no {dataset.split} image of {dataset.name} is classified correctly; detectors are judged on those"
        )
    examples = TensorExamples(x[right], y[right], dataset.ids[right])
    outcome = engine.run(attack, model, examples, seed=seed)
    return Pairs(examples.x, outcome.x_adv, ~outcome.correct, examples.ids)
