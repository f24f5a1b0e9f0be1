"""The adaptive suite against models whose robust accuracy is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from awnet.attacks import APGD, Diversified, Engine, Steer, Suite, TensorExamples, adaptive_suite
from awnet.attacks.adaptive.suite import adaptive_twice, insisting
from awnet.conformance.planted import BALL, GATES, Gate, Planted, planted_sample

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
