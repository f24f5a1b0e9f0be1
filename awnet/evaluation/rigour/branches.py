"""C7: what each frozen branch of a model that decides is worth by itself, and that the whole is not better than its parts.

An attacker who steers the decision reaches the weakest branch. If the whole withstands more than its most robust branch, or
falls to images made for a frozen form that the attack on the whole does not find, then the attack is held up by the decision
(Croce et al., 2022, https://arxiv.org/abs/2202.13711, on defences that change at test time).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from awnet.attacks.adaptive.joint import joint
from awnet.attacks.adaptive.steer import Side
from awnet.attacks.attack import Attack
from awnet.evaluation.kinds import knows_the_router
from awnet.evaluation.metrics import paired_difference, worst_case
from awnet.evaluation.rigour.check import Part, Trial, check, percent
from awnet.models.model import Deciding
from awnet.types import Images, Logits

SIDES: tuple[Side, ...] = ("clean", "adversarial")


def steering(trial: Trial) -> dict[str, Attack]:
    """Short attacks that raise the class margin and push the decision, to one side and to the other."""
    short = {"steps": trial.steps, "then": trial.steps, "targets": 1}
    return {f"joint-{side}": replace(joint(trial.threat, side), **short) for side in SIDES}


def _knows(trial: Trial) -> bool:
    """Whether the record has attacks that know the router."""
    attacks = trial.record.attacks if trial.record else {}
    return any(knows_the_router(name, result.settings) for name, result in attacks.items())


class Form(nn.Module):
    """A model that decides, with every image in one of its frozen forms."""

    def __init__(self, model: nn.Module, form: str) -> None:
        super().__init__()
        self.model, self.form = model, form

    def forward(self, x: Images) -> Logits:
        assert isinstance(self.model, Deciding)
        return self.model.decide(x, x, self.form, torch.ones(len(x), dtype=torch.bool, device=x.device)).logits


@check("C7", "branch table")
def tabled(trial: Trial) -> Iterator[Part]:
    """Clean and robust accuracy of every frozen form, each under an attack of its own."""
    if not isinstance(trial.model, Deciding):
        yield Part("skipped", "The model decides nothing image by image: it has no branches.")
        return
    if not trial.model.forms:
        yield Part("skipped", "The model has no frozen forms: there is nothing to compare it with.")
        return
    whole = trial.run(trial.attack).correct & trial.clean.correct
    figures = {"the whole, clean, %": percent(trial.clean.correct), "the whole, attacked, %": percent(whole)}
    robust, transferred = {}, {}
    for name in trial.model.forms:
        form = Form(trial.model, name)
        clean = trial.engine.predict(form, trial.examples).correct
        attacked = trial.run(trial.attack, form)
        robust[name] = attacked.correct & clean
        transferred[name] = whole & trial.right(attacked.x_adv)
        figures[f"{name}, clean, %"], figures[f"{name}, attacked, %"] = percent(clean), percent(robust[name])
    floor = min(robust, key=lambda name: int(robust[name].sum()))
    figures["images of frozen forms that break the whole, %"] = percent(
        whole & ~torch.stack([*transferred.values()]).all(0)
    )
    branches = [name for name in robust if name != "detached"]  # that one is the whole, whose gradient is cut
    best = max(branches, key=lambda name: int(robust[name].sum()), default="")
    found = []
    if best and paired_difference(whole, robust[best]).low > 0:
        found.append(f"The whole withstands more than its most robust branch ({best}, {percent(robust[best]):.0f} %)")
    for name, stands in transferred.items():
        if paired_difference(whole, stands).low > 0:
            found.append(
                f"images made for the form {name} break {percent(whole & ~stands):.0f} points more of the whole"
            )
    steered = worst_case([trial.run(attack).correct & trial.clean.correct for attack in steering(trial).values()])
    figures["steered, attacked, %"] = percent(steered)
    if paired_difference(whole, whole & steered).low > 0 and not _knows(trial):
        found.append(f"who steers the decision breaks {percent(whole & ~steered):.0f} points more than who does not")
    if found:
        text = "; ".join(found) + ": an attack on the whole is held up by the decision."
        yield Part(
            "fail",
            text[:1].upper() + text[1:],
            "Run --attacks adaptive, which starts from the frozen forms.",
            figures,
        )
    else:
        least = f"whoever steers the decision to {floor} leaves {percent(robust[floor]):.0f} %"
        text = f"The whole is no better than its branches; {least}."
        yield Part("pass", text, "", figures)
