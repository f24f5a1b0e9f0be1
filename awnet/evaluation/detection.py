"""How well a model tells attacked images from clean ones, and what that is worth.

The detector is the log-odds of clean that the model offers (`Deciding`), which never saturate, or its P(clean) as log-odds. It
is judged

- against each attack, on all attacked images as the paper does (5.3.3), but for those that came back as they were, and on
  those that also fool the class, which alone do harm; also against the radius;
- at the rates of false alarms that people can live with, 1 % and 5 %, beside the AUC;
- on benign changes, which are no attacks: what share of them sets off the alarm at the threshold of clean images;
- against attackers who fool class and detector at once (`awnet.attacks.adaptive.evade`). "Accuracy with rejection" counts an
  image as withstanding where no attack both fools the class and goes unnoticed. Detecting at eps is about as hard as
  classifying at eps/2 (Tramer, 2022, https://arxiv.org/abs/2107.11630): the robust accuracy at eps/2 stands beside it, and a
  detector that promises much more than that has not been attacked well enough;
- on the images of all of these attacks that fool the class, for each example the one that looks cleanest: how many are noticed,
  and the AUC. An attack that evades ends once it is past an alarm, so that the AUC is an upper bound, and the rates are what
  to go by.

An image found at eps/2 lies in the ball of eps too, and one that evades a strict alarm evades a laxer one: a worst case counts
them all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import nan
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from awnet.attacks.adaptive import evasions
from awnet.attacks.attack import Attack
from awnet.attacks.engine import Engine
from awnet.attacks.frozen import frozen_for_attack
from awnet.attacks.pgd import PGD
from awnet.attacks.suite import Suite
from awnet.attacks.sweep import TensorExamples
from awnet.config import to_json
from awnet.data.dataset import Dataset
from awnet.detection.own_decision import deciding
from awnet.errors import Mistake
from awnet.evaluation.benign import BENIGN
from awnet.evaluation.metrics import Accuracy, accuracy, auc, noticed_at, threshold_at, worst_case
from awnet.evaluation.modulation import with_means
from awnet.folders import replace_folder
from awnet.losses import LogLikelihood
from awnet.models.model import Deciding, device_of, judge
from awnet.noise import Noise
from awnet.provenance import provenance
from awnet.threat_model import ThreatModel
from awnet.types import Hits, Images, PerExample

RATES = (0.01, 0.05)  # of false alarms
LOWERED = "lower loss"  # the benign change that knows the network: it makes its prediction surer
UNFOLLOWED = (
    "the detector has no gradient with respect to the image, so that nobody who knows it could follow one here: that no "
    "attack evades it says little"
)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a model says of one set of images, the same examples in the same order.

    Args:
        score: the higher, the cleaner; shape (n,).
        correct: whether each is classified correctly.
        changed: whether each is another image than the clean one.
    """

    score: PerExample
    correct: Hits
    changed: Hits


@dataclass(frozen=True, kw_only=True)
class Detection:
    """Scores and hits of every example; all figures are made of them.

    Args:
        threat: what the attacks may do.
        clean: the images as they are.
        benign: each benign change, by name.
        attacked: each attack at eps, by name.
        halved: each attack at eps/2.
        nearer: each attack at other shares of eps, by the share.
        evaded: for each rate of false alarms, which examples some attack misclassifies unnoticed, at eps or at eps/2.
        evaded_halved: the same at eps/2 alone.
        cleanest: of each example the score of the image that looks cleanest among those at eps or at eps/2 that fool the class,
            under any attack; shape (n,), NaN where there is none. None in records that were written without.
        cleanest_halved: the same at eps/2 alone.
        remarks: what is odd about the model, a sentence each.
    """

    threat: ThreatModel
    clean: Seen
    benign: Mapping[str, Seen]
    attacked: Mapping[str, Seen]
    halved: Mapping[str, Seen]
    nearer: Mapping[float, Mapping[str, Seen]] = field(default_factory=dict)
    evaded: Mapping[float, Hits]
    evaded_halved: Mapping[float, Hits]
    cleanest: PerExample | None = None
    cleanest_halved: PerExample | None = None
    remarks: tuple[str, ...] = ()

    def false_alarms(self, rate: float, benign: str) -> float:
        """The share of a benign change below the threshold that this share of clean images sets off."""
        return noticed_at(rate, self.clean.score, self.benign[benign].score)

    def auc(self, attack: str, *, fooled: bool = False) -> float:
        """Against an attack, on the images that it changed, or that also fool the class; NaN where there are none."""
        scores = self._scores(self.attacked[attack], fooled)
        return auc(self.clean.score, scores) if len(scores) else float("nan")

    def noticed(self, rate: float, attack: str, *, fooled: bool = False) -> float:
        """TPR at this FPR, on the same images."""
        return noticed_at(rate, self.clean.score, self._scores(self.attacked[attack], fooled))

    def with_rejection(self, rate: float, *, halved: bool = False) -> Accuracy:
        """The share that is right and let through as it is, and that no attack misclassifies unnoticed."""
        through = self.clean.correct & (self.clean.score >= threshold_at(rate, self.clean.score))
        return accuracy(through & ~(self.evaded_halved if halved else self.evaded)[rate])

    def robust(self, *, halved: bool = False) -> Accuracy:
        """The classifier's accuracy by itself, under the worst of the attacks for each example; at eps also those at eps/2."""
        seen = [*self.halved.values(), *(() if halved else self.attacked.values())]
        return accuracy(worst_case([self.clean.correct, *(one.correct for one in seen)]))

    def by_radius(self, attack: str) -> dict[float, Seen]:
        """What the model says under an attack, by the share of eps, rising."""
        found = {1.0: self.attacked, 0.5: self.halved, **self.nearer}
        return {share: found[share][attack] for share in sorted(found)}

    def figures(self) -> dict[str, Any]:
        """All of them, as plain numbers: what the record and the tables say."""
        rates = sorted(self.evaded)
        by_radius = {
            name: {
                f"{share:g}": {
                    "accuracy": accuracy(seen.correct).value,
                    **{f"noticed at {r:g}": noticed_at(r, self.clean.score, seen.score[seen.changed]) for r in rates},
                }
                for share, seen in self.by_radius(name).items()
            }
            for name in self.attacked
        }
        return {
            "images": len(self.clean.score),
            "clean accuracy": accuracy(self.clean.correct).value,
            "false alarms": {
                name: {
                    "accuracy": accuracy(seen.correct).value,
                    **{f"{r:g}": self.false_alarms(r, name) for r in rates},
                }
                for name, seen in self.benign.items()
            },
            "attacks": {
                name: {
                    "accuracy": accuracy(seen.correct).value,
                    "accuracy at eps/2": accuracy(self.halved[name].correct).value,
                    "changed": int(seen.changed.sum()),
                    "AUC": self.auc(name),
                    "AUC, fooled": self.auc(name, fooled=True),
                    **{f"noticed at {r:g}": self.noticed(r, name) for r in rates},
                    **{f"noticed at {r:g}, fooled": self.noticed(r, name, fooled=True) for r in rates},
                }
                for name, seen in self.attacked.items()
            },
            **({"by radius": by_radius} if self.nearer else {}),
            "worst of the attacks": {"eps": self.robust().value, "eps/2": self.robust(halved=True).value},
            "accuracy with rejection": {
                f"{r:g}": {"eps": self.with_rejection(r).value, "eps/2": self.with_rejection(r, halved=True).value}
                for r in rates
            },
            **({} if self.cleanest is None else {"under evasion": self._under_evasion(rates)}),
        }

    def save(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Write `detection.json`, the figures and what is said of them, and every score and hit beside it.

        Raises:
            Mistake: the folder cannot be written.
        """
        sets = {"clean": self.clean, **{f"benign/{name}": seen for name, seen in self.benign.items()}}
        sets |= {f"attacked/{name}": seen for name, seen in self.attacked.items()}
        sets |= {f"halved/{name}": seen for name, seen in self.halved.items()}
        sets |= {f"nearer/{share:g}/{name}": seen for share, of in self.nearer.items() for name, seen in of.items()}
        arrays = {f"{name}/{what}": t for name, seen in sets.items() for what, t in vars(seen).items()}
        arrays |= {f"evaded/{rate:g}": hits for rate, hits in self.evaded.items()}
        arrays |= {f"evaded halved/{rate:g}": hits for rate, hits in self.evaded_halved.items()}
        cleanest = {"cleanest": self.cleanest, "cleanest halved": self.cleanest_halved}
        arrays |= {name: t for name, t in cleanest.items() if t is not None}
        threat = {**to_json(self.threat), "text": str(self.threat)}
        remarks = {"remarks": list(self.remarks)} if self.remarks else {}
        said = {"threat": threat, **about, **remarks, "figures": self.figures()}

        def write(place: Path) -> None:
            save_file({name: t.contiguous() for name, t in arrays.items()}, place / "detection.safetensors")
            (place / "detection.json").write_text(json.dumps({**said, "provenance": provenance()}, indent=1) + "\n")

        replace_folder(folder, write)

    def _scores(self, seen: Seen, fooled: bool) -> Tensor:
        return seen.score[seen.changed & self.clean.correct & ~seen.correct if fooled else seen.changed]

    def _under_evasion(self, rates: Iterable[float]) -> dict[str, dict[str, float]]:
        """Of the examples whose class is fooled, each by the image that looks cleanest."""
        found = {}
        for radius, cleanest in (("eps", self.cleanest), ("eps/2", self.cleanest_halved)):
            assert cleanest is not None
            left = cleanest[self.clean.correct & ~cleanest.isnan()]
            found[radius] = {
                "fooled": len(left),
                "AUC, at most": auc(self.clean.score, left) if len(left) else float("nan"),
                **{f"noticed at {r:g}": noticed_at(r, self.clean.score, left) for r in rates},
            }
        return found


def detection(
    model: nn.Module,
    dataset: Dataset,
    attacks: Callable[[ThreatModel], Mapping[str, Attack | Suite]],
    *,
    threat: ThreatModel,
    engine: Engine | None = None,
    seed: int = 0,
    limit: int | None = None,
    rates: tuple[float, ...] = RATES,
    shares: tuple[float, ...] = (),
    watch: Callable[[str], None] = lambda what: None,
) -> Detection:
    """Judge a detector.

    Args:
        model: tells attacked images from clean ones; left as it was. Where it offers no decision to steer (`Deciding`), what
            its `detect` says is steered, as log-odds.
        dataset: the examples.
        attacks: for a threat model; asked for eps and for eps/2.
        threat: of the attacks.
        engine: how they are run.
        seed: of their random numbers, and of the subset.
        limit: at most so many examples, chosen by the seed.
        rates: of false alarms.
        shares: of eps, at which the attacks are seen too, beside 1 and 1/2; such images count in no worst case.
        watch: told what begins.

    Raises:
        Mistake: the model does not tell attacked images from clean ones, there are no images, or a share is none.
    """
    if not all(0 < share < 1 for share in shares):
        raise Mistake(f"expected shares of eps between 0 and 1, got {', '.join(f'{share:g}' for share in shares)}")
    engine, split = engine or Engine(), dataset
    dataset = dataset if limit is None or limit >= len(dataset) else dataset.sample(limit, seed=seed)
    if len(dataset) == 0:
        raise Mistake(f"there are no {dataset.split} images of {dataset.name} to judge a detector on")
    x, y = dataset.batch(torch.arange(len(dataset)))
    model = with_means(deciding(model, x), split)
    noise, half = Noise(seed, dataset.ids), replace(threat, eps=threat.eps / 2)
    examples = TensorExamples(x, y, dataset.ids)

    def see(images: Images) -> Seen:
        score, prediction = scores(model, images, engine.batch_size)
        return Seen(score=score, correct=prediction == y, changed=(images != x).flatten(1).any(1))

    watch("clean images")
    clean = see(x)
    watch("benign changes")
    changed = {name: change(x, threat, noise) for name, change in BENIGN.items()}
    benign = {name: see(images) for name, images in changed.items()}
    # on clean images alone a detector may be so sure that float32 knows no slope
    followed = any(has_slope(model, images, engine.batch_size) for images in (x, *changed.values()))
    lower = PGD(threat=threat, loss=LogLikelihood(), initial="zero")
    benign[LOWERED] = see(engine.run(lower, model, examples, seed=seed).x_adv)

    def under(ball: ThreatModel) -> dict[str, Seen]:
        found = {}
        for name, attack in attacks(ball).items():
            watch(f"{name} at {ball}")
            found[name] = see(engine.run(attack, model, examples, seed=seed).x_adv)
        return found

    alarms = {rate: threshold_at(rate, clean.score) for rate in rates}

    def evade(ball: ThreatModel, by: Iterable[Seen], known: PerExample) -> PerExample:
        """The scores of the images that fool the class and look cleanest, `known` ones among them; NaN where none fools it."""
        cleanest = known
        for seen in by:
            cleanest = cleanest.fmax(torch.where(seen.correct, nan, seen.score))
        for rate in sorted(rates, reverse=True):  # the strictest alarm first
            for name, attack in evasions(ball, alarms[rate]).items():
                rest = (clean.correct & ~(cleanest >= alarms[rate])).nonzero()[:, 0]
                watch(f"{name} at {ball}, {rate:.0%} false alarms, {len(rest)} images left")
                if len(rest):
                    part = TensorExamples(x[rest], y[rest], dataset.ids[rest])
                    x_adv = engine.run(attack, model, part, seed=seed).x_adv
                    score, prediction = scores(model, x_adv, engine.batch_size)
                    found = torch.where(prediction == y[rest], nan, score)
                    cleanest = cleanest.index_copy(0, rest, cleanest[rest].fmax(found))
        return cleanest

    attacked, halved = under(threat), under(half)
    cleanest_halved = evade(half, halved.values(), torch.full_like(clean.score, nan))
    cleanest = evade(threat, attacked.values(), cleanest_halved)
    return Detection(
        threat=threat,
        clean=clean,
        benign=benign,
        attacked=attacked,
        halved=halved,
        nearer={share: under(replace(threat, eps=share * threat.eps)) for share in shares if share != 0.5},
        evaded={rate: cleanest >= alarm for rate, alarm in alarms.items()},
        evaded_halved={rate: cleanest_halved >= alarm for rate, alarm in alarms.items()},
        cleanest=cleanest,
        cleanest_halved=cleanest_halved,
        remarks=() if followed else (UNFOLLOWED,),
    )


def has_slope(model: nn.Module, x: Images, batch_size: int) -> bool:
    """Whether the log-odds of clean of a model that decides depend on some of these images by more than a step."""
    assert isinstance(model, Deciding)
    device = device_of(model, x.device)
    with frozen_for_attack(model), torch.enable_grad():
        for part in x.to(device).split(batch_size):
            at = _no_batch_of_one(part).clone().requires_grad_()
            odds = model.decide(
                at.clone(), at.clone(), "", torch.zeros(len(at), dtype=torch.bool, device=device)
            ).log_odds
            if not odds.requires_grad:
                return False
            (gradient,) = torch.autograd.grad(odds.sum(), at, allow_unused=True)
            if gradient is not None and bool((gradient.isfinite() & (gradient != 0)).any()):
                return True
    return False


@torch.no_grad()
def scores(model: nn.Module, x: Images, batch_size: int) -> tuple[PerExample, Tensor]:
    """How clean a model takes each image for, the higher the cleaner, and its class; in float32, on the CPU.

    Log-odds where it offers them (`Deciding`), else P(clean), or NaN.
    """
    device = device_of(model, x.device)
    found = []
    with frozen_for_attack(model):
        for part in x.to(device).split(batch_size):
            asked = _no_batch_of_one(part).clone()  # a model may normalise in place
            if isinstance(model, Deciding):
                nobody = torch.zeros(len(asked), dtype=torch.bool, device=device)
                logits, score = model.decide(asked, asked, "", nobody)
            else:
                logits, score = judge(model, asked)
            found.append((score[: len(part)].cpu(), logits[: len(part)].argmax(1).cpu()))
    return torch.cat([score for score, _ in found]), torch.cat([prediction for _, prediction in found])


def _no_batch_of_one(x: Tensor) -> Tensor:
    """A single image twice, as the engine asks it: many a model fails on one."""
    return x.expand(2, -1, -1, -1) if len(x) == 1 else x
