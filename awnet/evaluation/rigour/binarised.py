"""C8: the attacks find adversarial images where there are some by construction.

The binarised-model test (Zimmermann et al., 2022, https://arxiv.org/abs/2206.13991): the features of the model are kept, and
for each image a linear readout is fitted that tells many points inside the ball from one on its edge. That one is adversarial,
so an attack that works finds it, or another. Where it does not, the features mislead it, and its failures on the model itself
say nothing. The paper takes 999 points inside and a logistic regression; here 128 and the discriminant of Fisher, between
whose two sides the threshold lies midway. Images whose readout cannot tell the two apart are left out and counted.

Tried is every attack of the record of which it can be asked; Square and RayS, whose queries are many and cheap, with fewer. A
suite is judged by what its members find together, as its number is; which of them find too little by themselves is told.
Those that steer the decision of a model meet that very decision, with the readouts on what it leads to: what exists is no image
of a frozen form, and each of them ends in the model as it is. Not tried, and named as such, are:

- one step alone, of which nobody expects that it finds what exists;
- what aims at no class, such as DeepSloth, for which it would be no success;
- what asks a second network: transferred images, and the paper's adaptive attack with a teacher, which know no readout;
- what steers, where the model decides nothing: it ends after one look;
- what must not be caught (evasion): that an image exists does not say that one exists that passes for clean;
- attacks in another ball than the trial's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf

import torch
from torch import Tensor, nn

from awnet.attacks.adaptive.steer import Steer
from awnet.attacks.apgd import APGD
from awnet.attacks.attack import Attack, advance, fresh
from awnet.attacks.eot import EOT
from awnet.attacks.pgd import PGD
from awnet.attacks.rays import RayS
from awnet.attacks.square import Square
from awnet.evaluation.metrics import accuracy
from awnet.evaluation.rigour.check import Part, Trial, check, filled, percent
from awnet.evaluation.rigour.recorded import attacks_of, named
from awnet.losses import CrossEntropy, LogLikelihood, Margin, Unsure
from awnet.models.model import Deciding, Decision
from awnet.noise import Noise
from awnet.types import Hits, Images, Logits

MOST = 32  # images
INSIDE = 128  # points in the ball of each
INNER = 0.9  # of its radius
RIDGE = 0.3  # of the features' mean variance; far below, readouts follow the luck of the points and stop good attacks
REACHED = 95.0  # %, as in the paper
CHEAP = 1000  # queries of Square and RayS, which in a record have five and ten times as many
NAMED = 5  # attacks in a sentence; the figures have all


class Features(nn.Module):
    """What goes into the last linear layer of a network; its logits where there is none, or where that is not the last."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.readouts = [module for module in model.modules() if isinstance(module, nn.Linear)]

    def forward(self, x: Images) -> Tensor:
        return self._before(lambda: self.model(x))

    def decide(self, x: Images, seen: Images, form: str, forced: Hits) -> Decision:
        """What a model that decides says, with the features in place of the logits; see `Deciding`."""
        model, said = self.model, list[Decision]()
        assert isinstance(model, Deciding)

        def logits() -> Logits:
            said.append(model.decide(x, seen, form, forced))
            return said[0].logits

        return Decision(self._before(logits), said[0].log_odds)

    def settle(self, x: Images) -> None:
        """Take the logits for features where a model that decides has others in some of its forms, or in `decide`.

        Two networks, say, each with a last layer of its own, of which a form takes one and the whole a mixture.
        """
        model = self.model
        if not isinstance(model, Deciding) or not self.readouts:
            return
        everybody = torch.ones(len(x), dtype=torch.bool, device=x.device)
        with torch.no_grad():
            own, same = self(x), self.decide(x, x, "", ~everybody).logits
            shapes = {self.decide(x, x, form, everybody).logits.shape for form in model.forms}
        if own.shape != same.shape or shapes - {own.shape} or not torch.allclose(own, same, rtol=1e-3, atol=1e-3):
            self.readouts = []

    def _before(self, answer: Callable[[], Logits]) -> Tensor:
        """What went into the last layer on the way to some logits."""
        seen: list[tuple[Tensor, Tensor]] = []

        def note(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            seen.append((args[0], out))

        hooks = [module.register_forward_hook(note) for module in self.readouts]
        try:
            logits = answer()
        finally:
            for hook in hooks:
                hook.remove()
        last = [features for features, out in seen if out is logits and features.ndim == 2]
        return last[-1] if last else logits


class Readout(nn.Module):
    """Two classes for each image of one batch, by readouts of their own; class 0 is the image's.

    Args:
        features: of the model.
        w: of each image, shape (b, features).
        threshold: of each image, shape (b,).
        scale: what makes the logits of ordinary size, shape (b,).
    """

    def __init__(self, features: Features, w: Tensor, threshold: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.features, self.w, self.threshold, self.scale = features, w, threshold, scale

    def forward(self, x: Images) -> Logits:
        return self.read(self.features(x))

    def read(self, features: Tensor) -> Logits:
        """Logits of images with these features."""
        score = ((features * self.w).sum(1) - self.threshold) / self.scale
        return torch.stack([-score, score], dim=1)


class DecidingReadout(Readout):
    """The same on a model that decides, whose decision is as ever; see `Deciding`."""

    @property
    def forms(self) -> tuple[str, ...]:
        """The model's."""
        assert isinstance(self.features.model, Deciding)
        return tuple(self.features.model.forms)

    def decide(self, x: Images, seen: Images, form: str, forced: Hits) -> Decision:
        """By the readouts in place of the model's last layer."""
        features, log_odds = self.features.decide(x, seen, form, forced)
        return Decision(self.read(features), log_odds)


@check("C8", "attacks find what exists")
def finds(trial: Trial) -> Iterator[Part]:
    """Each attack on the images' readouts, beside random points in the ball."""
    if trial.threat.eps == 0:
        yield Part("skipped", "At eps 0 there is nothing to find.")
        return
    n = min(len(trial.x), MOST)
    (rows,) = filled(n, max(n, 2))
    x, ids = trial.x[rows].to(trial.device), trial.examples.ids[rows].to(trial.device)
    noise = Noise(trial.seed, ids).stream(8)
    fitted, told = _fitted(trial, x, noise)
    told[n:] = False
    figures = {"images": float(told.sum()), "images left out": float(n - told.sum())}
    if told[:n].double().mean() < 0.5:
        text = "The features hardly tell a point inside the ball from one on its edge: the test cannot be made."
        yield Part(
            "warn",
            text,
            "A model that rounds or snaps its input does this: see C2, and attack it without that part.",
            figures,
        )
        return

    def success(x_adv: Images) -> Tensor:
        with torch.no_grad():
            return (fitted(x_adv).argmax(1).bool() & trial.threat.contains(x, x_adv))[told].cpu()

    drawn = trial.threat.project(x + trial.threat.uniform(noise, 999, tuple(x.shape[1:])), x)
    figures["random points that succeed, %"] = percent(success(drawn))
    attacks, suites, left_out = _attacks(trial)
    alone = {name: success(_tried(attack, fitted, x, told, trial.seed)) for name, attack in attacks.items()}
    together = {name: torch.stack([alone[member] for member in of]).any(0) for name, of in suites.items()}
    figures |= {f"{name} succeeds, %": percent(hits) for name, hits in (alone | together).items()}
    reasons = [f"{_few(names)} ({reason})" for reason, names in left_out.items()]
    tried = _few([*alone]) + (f"; not tried: {', '.join(reasons)}" if reasons else "")
    failing = _short(together)
    if not failing:
        weak = _few(_short(alone))
        short = f"; by themselves these find less than they should: {weak}" if weak else ""
        yield Part("pass", f"Adversarial images that exist by construction are found (by {tried}){short}.", "", figures)
        return
    text = (
        f"Adversarial images exist by construction, and are not found ({_few(failing)} of {int(told.sum())} images; by "
        f"{tried})."
    )
    surely = all(100 * accuracy(hits).high < REACHED for hits in together.values())  # and no attack by bad luck
    yield Part("fail" if surely else "warn", text, BLIND, figures)


BLIND = "Do not believe these attacks here; find one that passes this test (other losses, more steps, no gradient)."


def _short(found: dict[str, Hits]) -> list[str]:
    """Those that find less than they should, with what they find."""
    shares = {name: percent(hits) for name, hits in found.items()}
    return [f"{name} {share:.0f} %" for name, share in shares.items() if share < REACHED]


def _few(names: list[str]) -> str:
    """The first of them, and how many more there are."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _tried(attack: Attack, fitted: Readout, x: Images, told: Hits, seed: int) -> Images:
    """What an attack makes of the images whose readouts tell: as by `perturb`, and no longer than one of them still stands."""
    noise = Noise(seed, torch.arange(len(x), device=x.device))
    with torch.no_grad():
        slots = fresh(attack, x, torch.zeros(len(x), dtype=torch.int64, device=x.device), noise)
        slots = slots._replace(finished=slots.finished | ~told)
        for _ in range(attack.queries):
            if slots.finished.all():
                break
            slots = advance(attack, fitted, slots, noise)
    return slots.x_adv


def _fitted(trial: Trial, x: Images, noise: Noise) -> tuple[Readout, Tensor]:
    """The readouts, and which of them tell the edge from the inside."""
    threat, shape, features = trial.threat, tuple(x.shape[1:]), Features(trial.model)
    features.settle(x)
    edge = threat.project(x + threat.eps * threat.ascend(noise.uniform(0, shape) - 0.5), x)
    with torch.no_grad():
        inside = torch.stack(
            [
                features(threat.project(x + INNER * threat.uniform(noise, 1 + k, shape) * (k > 0), x)).double()
                for k in range(INSIDE)
            ],
            dim=1,
        )  # (b, points, features); the first is the image itself
        outer = features(edge).double()
    centre = inside.mean(1)
    spread = inside - centre[:, None]
    step = outer - centre
    # (S'S / n + r I)^-1 step by Woodbury's identity, as the points are fewer than most networks' features
    gram = spread @ spread.transpose(1, 2) / INSIDE
    r = (RIDGE * gram.diagonal(dim1=1, dim2=2).sum(1) / step.shape[1] + 1e-12)[:, None, None]
    identity = torch.eye(INSIDE, dtype=step.dtype, device=step.device)
    inner = torch.linalg.solve(gram + r * identity, spread @ step[:, :, None] / INSIDE)
    w = step - (spread.transpose(1, 2) @ inner)[:, :, 0]
    w = w / w.norm(dim=1, keepdim=True).clamp(min=1e-300)
    within, beyond = (inside * w[:, None]).sum(2), (outer * w).sum(1)
    highest = within.amax(1)
    size = (beyond - within.mean(1)).abs().clamp(min=1e-12)
    told = (beyond - highest > 1e-3 * size) & (step.norm(dim=1) > 1e-6 * (1e-12 + centre.norm(dim=1)))
    readout = DecidingReadout if isinstance(trial.model, Deciding) else Readout
    return readout(features, w.float(), ((highest + beyond) / 2).float(), (size / 4).float()), told


def _attacks(trial: Trial) -> tuple[dict[str, Attack], dict[str, list[str]], dict[str, list[str]]]:
    """Attacks of the record, those of a suite by themselves.

    Where nothing is left, our own two are tried.

    Returns:
        The attacks by their names, equal ones once; the names of those that count as one, by that of their suite or their
        own; and the names of those that are not tried, by the reason.
    """
    found: dict[str, Attack] = {}
    suites: dict[str, list[str]] = {}
    left_out: dict[str, list[str]] = {}
    recorded = ((result, member, attack) for result, of in attacks_of(trial) for member, attack in of.items())
    for result, member, attack in recorded:
        name = named(result, member)
        if reason := _why_not(trial, attack):
            left_out.setdefault(reason, []).append(name)
            continue
        capped = isinstance(attack, Square | RayS)
        tried = replace(attack, steps=min(attack.steps, CHEAP)) if capped else attack
        equal = next((known for known, other in found.items() if other == tried), name)
        found.setdefault(equal, tried)
        suites.setdefault(result, []).append(equal)
    own: dict[str, Attack] = {
        "apgd-margin": APGD(threat=trial.threat, loss=Margin(), steps=trial.steps),
        "apgd-ce": APGD(threat=trial.threat, loss=CrossEntropy(), steps=trial.steps),
    }
    return (found, suites, left_out) if found else (own, {name: [name] for name in own}, left_out)


def _why_not(trial: Trial, attack: Attack) -> str:
    """The reason for which an attack is not tried; "" where it is."""
    within = attack.attack if isinstance(attack, EOT) else attack
    if attack.threat != trial.threat:
        return "another ball"
    if attack.asks_another:
        return "asks a second network"
    if isinstance(within, APGD | PGD) and isinstance(within.loss, Unsure | LogLikelihood):
        return "aims at no class"
    if within.queries == 1:
        return "single step"
    if isinstance(attack, Steer) and not isinstance(trial.model, Deciding):
        return "steers a decision, of which there is none"
    if isinstance(attack, Steer) and attack.caught > -inf:
        return "must not be caught"
    return ""
