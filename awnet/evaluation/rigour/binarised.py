"""C8: the attacks find adversarial images where there are some by construction.

The binarised-model test (Zimmermann et al., 2022, https://arxiv.org/abs/2206.13991): the features of the model are kept, and
for each image a linear readout is fitted that tells many points inside the ball from one on its edge. That one is adversarial,
so an attack that works finds it, or another. Where it does not, the features mislead it, and its failures on the model itself
say nothing. The paper takes 999 points inside and a logistic regression; here 128 and the discriminant of Fisher, between
whose two sides the threshold lies midway. Images whose readout cannot tell the two apart are left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from awnet.attacks.apgd import APGD
from awnet.attacks.attack import Attack
from awnet.attacks.fab import FAB
from awnet.attacks.pgd import PGD
from awnet.attacks.square import Square
from awnet.evaluation.metrics import accuracy
from awnet.evaluation.rigour.check import Part, Trial, check, percent
from awnet.evaluation.rigour.recorded import attacks_of, named
from awnet.losses import CrossEntropy, Margin, Unsure
from awnet.noise import Noise
from awnet.types import Images, Logits

MOST = 32  # images
INSIDE = 128  # points in the ball of each
INNER = 0.9  # of its radius
RIDGE = (
    0.3  # of the features' mean variance; far below, readouts follow the luck of the points and stop attacks that work
)
REACHED = 95.0  # %, as in the paper
CHEAP = 1000  # windows of Square, which in the record has five times as many


class Features(nn.Module):
    """What goes into the last linear layer of a network; its logits where there is none, or where that is not the last."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        self.readouts = linear

    def forward(self, x: Images) -> Tensor:
        seen: list[tuple[Tensor, Tensor]] = []

        def note(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            seen.append((args[0], out))

        hooks = [module.register_forward_hook(note) for module in self.readouts]
        try:
            logits = self.model(x)
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

    def __init__(self, features: nn.Module, w: Tensor, threshold: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.features, self.w, self.threshold, self.scale = features, w, threshold, scale

    def forward(self, x: Images) -> Logits:
        score = ((self.features(x) * self.w).sum(1) - self.threshold) / self.scale
        return torch.stack([-score, score], dim=1)


@check("C8", "attacks find what exists")
def finds(trial: Trial) -> Iterator[Part]:
    """Each attack on the images' readouts, beside random points in the ball."""
    x = trial.x[:MOST].to(trial.device)
    if trial.threat.eps == 0:
        yield Part("skipped", "At eps 0 there is nothing to find.")
        return
    noise = Noise(trial.seed, trial.examples.ids[:MOST].to(trial.device)).stream(8)
    fitted, told = _fitted(trial, x, noise)
    figures = {"images": float(told.sum()), "images left out": float((~told).sum())}
    if told.double().mean() < 0.5:
        text = "The features hardly tell a point inside the ball from one on its edge: the test cannot be made."
        yield Part(
            "warn",
            text,
            "A model that rounds or snaps its input does this: see C2, and attack it without that part.",
            figures,
        )
        return
    y = torch.zeros(len(x), dtype=torch.int64, device=x.device)

    def success(x_adv: Images) -> Tensor:
        with torch.no_grad():
            return (fitted(x_adv).argmax(1).bool() & trial.threat.contains(x, x_adv))[told].cpu()

    drawn = trial.threat.project(x + trial.threat.uniform(noise, 999, tuple(x.shape[1:])), x)
    figures["random points that succeed, %"] = percent(success(drawn))
    attacks, left_out = _attacks(trial)
    found = {name: success(attack(fitted, x, y, seed=trial.seed)) for name, attack in attacks.items()}
    figures |= {f"{name} succeeds, %": percent(hits) for name, hits in found.items()}
    failing = {name: hits for name, hits in found.items() if percent(hits) < REACHED}
    tried = ", ".join(found) + (f"; not tried: {', '.join(left_out)}" if left_out else "")
    if not failing:
        yield Part("pass", f"Adversarial images that exist by construction are found (by {tried}).", "", figures)
        return
    said = ", ".join(f"{name} {percent(hits):.0f} %" for name, hits in failing.items())
    text = f"Adversarial images exist by construction, and are not found ({said} of {int(told.sum())} images)."
    surely = all(100 * accuracy(hits).high < REACHED for hits in found.values())  # and no attack by bad luck
    yield Part("fail" if surely else "warn", text, BLIND, figures)


BLIND = "Do not believe these attacks here; find one that passes this test (other losses, more steps, no gradient)."


def _fitted(trial: Trial, x: Images, noise: Noise) -> tuple[Readout, Tensor]:
    """The readouts, and which of them tell the edge from the inside."""
    threat, shape, features = trial.threat, tuple(x.shape[1:]), Features(trial.model)
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
    return Readout(features, w.float(), ((highest + beyond) / 2).float(), (size / 4).float()), told


def _attacks(trial: Trial) -> tuple[dict[str, Attack], list[str]]:
    """Attacks of the record, those of a suite by themselves, and the names of those that are not tried.

    Not tried is what aims at no class (DeepSloth), at another network, or at a decision, which a readout has not; and one step
    alone. Square has no more than CHEAP windows. Where nothing is left, our own two are tried.
    """
    found: dict[str, Attack] = {}
    left_out: list[str] = []
    recorded = ((named(result, member), attack) for result, of in attacks_of(trial) for member, attack in of.items())
    for name, attack in recorded:
        climbs = isinstance(attack, APGD | FAB | Square) or (
            isinstance(attack, PGD) and not isinstance(attack.loss, Unsure)
        )
        if not climbs or attack.queries == 1 or attack.threat != trial.threat:
            left_out.append(name)
        elif attack not in found.values():
            found[name] = replace(attack, steps=min(attack.steps, CHEAP)) if isinstance(attack, Square) else attack
    own: dict[str, Attack] = {
        "apgd-margin": APGD(threat=trial.threat, loss=Margin(), steps=trial.steps),
        "apgd-ce": APGD(threat=trial.threat, loss=CrossEntropy(), steps=trial.steps),
    }
    return found or own, left_out
