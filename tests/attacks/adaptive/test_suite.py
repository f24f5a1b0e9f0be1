"""The adaptive suite against models whose robust accuracy is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from awnet.attacks import APGD, Diversified, Engine, Steer, Suite, TensorExamples, adaptive_suite
from awnet.attacks.adaptive.suite import adaptive_twice, insisting
from awnet.conformance.planted import BALL, GATES, Gate, Planted, planted_sample
from awnet.models.model import Decision, forms_of

HELD_UP = 0.2  # how far the plain attacks stay above the truth, at least


def shorter(suite: Suite) -> Suite:
    """With fewer steps, for models as simple as these."""
    members = []
    for name, attack in suite.members:
        if isinstance(attack, Steer):
            attack = replace(attack, steps=25, then=15, targets=2)
        if isinstance(attack, APGD):
            attack = replace(attack, steps=40, targets=min(attack.targets, 2))
        if isinstance(attack, Diversified):
            attack = replace(attack, restarts=6)
        members.append((name, attack))
    return Suite(members=tuple(members))


def lands_on_the_truth(suite: Suite, gate: Gate) -> None:
    """Within one point of it, where APGD on the cross-entropy and towards targets are held up by the router."""
    model = Planted(gate)
    given = planted_sample(model)
    examples, engine = TensorExamples(given.x, given.y, torch.arange(len(given.x))), Engine(batch_size=100)
    truth = float(given.robust.float().mean())
    assert 0.1 < truth < 0.6

    outcome = engine.run(suite, model, examples)
    assert not (~outcome.correct & given.robust).any(), "an image fell that cannot fall"
    assert abs(float(outcome.correct.float().mean()) - truth) <= 0.011  # of 100 images
    for attack in shorter(suite).attacks:
        if isinstance(attack, APGD) and gate != "honest":
            assert engine.run(attack, model, examples).correct.float().mean() > truth + HELD_UP, attack.loss


@pytest.mark.parametrize("gate", ["detached", "hard"])
def test_the_attacks_that_find_most_land_on_the_truth(gate):
    found_first = ("apgd-ce", "joint-clean", "orthogonal-clean", "apgd-t")
    members = {name: attack for name, attack in shorter(adaptive_suite(BALL)).members if name in found_first}
    lands_on_the_truth(Suite(members=tuple(members.items())), gate)


@pytest.mark.slow
@pytest.mark.parametrize("gate", GATES)
def test_the_suite_lands_on_the_truth(gate):
    lands_on_the_truth(adaptive_suite(BALL), gate)


class Experts(torch.nn.Module):
    """Three linear classifiers of two classes, the third of which is wrong where nobody leads: the largest score decides."""

    forms = ("clean", "adversarial", "third")

    def forward(self, x):
        return self.decide(x, x, "", torch.zeros(len(x), dtype=torch.bool)).logits

    def decide(self, x, seen, form, forced):
        first, _, third = (
            part.sum(1) / 1.2 for part in (x.flatten(1) - 0.5).chunk(3, 1)
        )  # each in [-1, 1] in the ball
        _, second, last = (part.sum(1) / 1.2 for part in (seen.flatten(1) - 0.5).chunk(3, 1))
        scores = torch.stack([torch.zeros_like(last), second - 0.2, 1.2 * last - 0.9], 1)
        who = scores.argmax(1)
        who = torch.where(forced, self.forms.index(form), who) if form else who
        logit = torch.stack([0.1 * first - 1, 0.1 * first - 1, third - 0.5], 1).gather(1, who[:, None])
        return Decision(torch.cat([torch.zeros_like(logit), logit], 1), scores[:, 0] - scores[:, 1:].amax(1))


def test_each_frozen_form_that_a_model_offers_is_where_an_attack_begins():
    model, x = Experts(), 0.5 + torch.linspace(0, 0.01, 6)[:, None, None, None].expand(6, 1, 6, 6)
    examples = TensorExamples(x, torch.zeros(6, dtype=torch.int64), torch.arange(6))
    usual, whole = (shorter(adaptive_suite(BALL, forms)) for forms in ((), forms_of(model)))
    assert whole.names == (*usual.names, "warm-third")
    engine, some = Engine(batch_size=6), ("apgd-ce", "joint-adversarial", "warm-clean")
    others = Suite(members=tuple(member for member in usual.members if member[0] in some))
    assert engine.run(others, model, examples).correct.all(), "it is hard to come by from elsewhere"
    assert not engine.run(dict(whole.members)["warm-third"], model, examples).correct.any()


def test_a_model_that_does_not_decide_meets_the_plain_part():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3))
    x = torch.rand(10, 1, 6, 6)
    with torch.no_grad():
        y = model(x).argmax(1)
    suite = adaptive_suite(replace(BALL, eps=0.01))
    outcome = Engine(batch_size=10).run(suite, model, TensorExamples(x, y, torch.arange(10)))
    assert outcome.correct.any()
    stood = outcome.spent[outcome.correct][0, :, 1]  # backward passes on one that withstood everything
    plain = [isinstance(attack, APGD | Diversified) for attack in suite.attacks]
    assert [int(n) > 1 for n in stood] == plain and sum(plain) == 3


def test_twice_is_the_suite_and_then_as_much_again_of_each():
    once, both = adaptive_suite(BALL), adaptive_twice(BALL)
    n = len(once.members)
    assert both.members[:n] == once.members and both.names[n:] == tuple(f"{name} twice" for name in once.names)
    for attack, more in zip(once.attacks, both.attacks[n:], strict=True):
        assert replace(more, **{name: getattr(attack, name) for name in ("steps", "restarts")}) == replace(
            attack, **({"then": 2 * attack.then} if isinstance(attack, Steer) else {})
        )
        starts = [one.restarts * one.start_steps if isinstance(one, Diversified) else 0 for one in (attack, more)]
        climbed, twice = (one.queries - start for one, start in zip((attack, more), starts, strict=True))
        assert twice >= 3.9 * climbed  # a look at the image itself is not doubled, nor the way to a start


def test_to_insist_is_more_runs_of_the_named_attacks():
    once = adaptive_suite(BALL)
    more = insisting(once, {"joint-clean", "apgd-t"}, 4)
    assert more.names == ("joint-clean x4", "apgd-t x4")
    for name, attack in zip(("joint-clean", "apgd-t"), more.attacks, strict=True):
        given = dict(once.members)[name]
        assert isinstance(given, APGD | Steer)
        assert attack == replace(given, restarts=4 * given.restarts)
