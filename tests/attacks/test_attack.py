"""The query that steers: what it asks of a model that decides, of one that does not, and what it costs."""

from __future__ import annotations

import pytest
import torch

from attacks.nets import small_net
from awnet.attacks import Engine, Forward, Gradient, Steer, Steering, TensorExamples
from awnet.attacks.attack import backwards, evaluate
from awnet.conformance.planted import BALL, Planted, planted_sample
from awnet.losses import Margin
from awnet.models.model import Decision

margin = Margin()


def steering(x: torch.Tensor, form: str, forced: torch.Tensor, origin: torch.Tensor) -> Steering:
    y = torch.zeros(len(x), dtype=torch.int64)
    return Steering(x, lambda logits: margin(logits, y), form, forced, origin)


def test_each_gradient_is_its_own():
    model, x = Planted("honest"), torch.rand(4, 1, 6, 6)
    forced = torch.tensor([True, False, True, False])
    answer = evaluate(model, steering(x, "clean", forced, torch.rand_like(x)))

    x.requires_grad_()
    logits, log_odds = model.decide(x, x, "clean", forced)
    (of_class,) = torch.autograd.grad(margin(logits, torch.zeros(4, dtype=torch.int64)).sum(), x, retain_graph=True)
    (of_decision,) = torch.autograd.grad(log_odds.sum(), x)
    assert torch.equal(answer.logits, logits) and answer.gradient is not None and answer.towards_clean is not None
    torch.testing.assert_close(answer.gradient, of_class)
    torch.testing.assert_close(answer.towards_clean, of_decision)
    assert answer.real is not None and answer.real.tolist() == [False, True, False, True]


def test_still_looks_at_the_image_before_the_attack():
    model, x, origin = Planted("honest"), torch.rand(4, 1, 6, 6), torch.rand(4, 1, 6, 6)
    forced = torch.tensor([True, True, False, False])
    answer = evaluate(model, steering(x, "still", forced, origin))
    nobody = torch.zeros(4, dtype=torch.bool)
    assert torch.equal(answer.logits[:2], model.decide(x, origin, "", nobody).logits[:2])
    assert torch.equal(answer.logits[2:], model(x)[2:])
    assert answer.towards_clean is not None and answer.real is not None
    assert not answer.towards_clean[:2].any() and answer.towards_clean[2:].any()
    assert answer.real.tolist() == [False, False, True, True]


def test_a_form_that_the_model_lacks_is_the_model_as_it_is():
    model, x = Planted("honest"), torch.rand(4, 1, 6, 6)
    answer = evaluate(model, steering(x, "unmodulated", torch.ones(4, dtype=torch.bool), x))
    assert torch.equal(answer.logits, model(x)) and answer.real is not None and answer.real.all()


class AsDocumented(Planted):
    """Decides as the example of `Deciding` does, which does not look at the form to know whom it forces."""

    def decide(self, x, seen, form, forced):
        log_odds = self.router(seen.flatten(1))
        p = torch.where(forced, float(form == "clean"), self.weight(log_odds))[:, None]
        margins = p * self.fragile(x.flatten(1)) + (1 - p) * self.robust(x.flatten(1))
        return Decision(torch.cat([torch.zeros_like(margins[:, :1]), margins], dim=1), log_odds)


@pytest.mark.parametrize("form", ["", "still", "unmodulated", "clean"])
def test_nobody_is_forced_without_a_form(form):
    """Otherwise such a model would be attacked in the form of its robust part, and what holds there would pass for robust."""
    x, origin, everybody = torch.rand(4, 1, 6, 6), torch.rand(4, 1, 6, 6), torch.ones(4, dtype=torch.bool)
    answers = [evaluate(make("honest"), steering(x, form, everybody, origin)) for make in (AsDocumented, Planted)]
    torch.testing.assert_close(*(answer._asdict() for answer in answers), rtol=0, atol=0)


def test_a_model_that_does_not_decide_answers_as_to_a_gradient():
    model, x = small_net(classes=3), torch.rand(4, 3, 8, 8)
    query = steering(x, "clean", torch.ones(4, dtype=torch.bool), x)
    answer, plain = evaluate(model, query), evaluate(model, Gradient(x, query.loss))
    assert answer.gradient is not None and plain.gradient is not None
    assert torch.equal(answer.gradient, plain.gradient) and answer.log_odds is None
    assert [backwards(query, m) for m in (model, Planted("honest"))] == [1, 2]
    assert backwards(Forward(x), model) == 0


def test_a_router_without_any_gradient_is_no_failure():
    class Deaf(Planted):
        def decide(self, x, seen, form, forced):
            return super().decide(x, seen.detach(), form, forced)

    answer = evaluate(
        Deaf("honest"), steering(torch.rand(2, 1, 6, 6), "", torch.zeros(2, dtype=torch.bool), torch.rand(2))
    )
    assert answer.towards_clean is not None and not answer.towards_clean.any()


def test_passes_are_counted():
    given = planted_sample(Planted("hard"), 8)
    outcome = Engine(batch_size=8).run(
        Steer(threat=BALL, steps=2, then=2, targets=1, stop_on_success=False),
        Planted("hard"),
        TensorExamples(given.x, given.y, torch.arange(8)),
    )
    assert outcome.forwards.tolist() == [8] * 8, "a look, two legs of three, and the verdict"
    assert outcome.backwards.tolist() == [14] * 8


@pytest.mark.parametrize("gate", ["honest", "hard"])
def test_success_in_a_frozen_form_is_none(gate):
    """The robust expert holds; in the form of the fragile one every image falls at once."""
    model = Planted(gate)
    model.router = model.router._replace(w=0 * model.router.w, b=-30.0)  # always the robust one
    x = torch.full((4, 1, 6, 6), 0.5)
    y = torch.zeros(4, dtype=torch.int64)
    attack = Steer(threat=BALL, form="clean", steps=5, then=1, targets=1)
    outcome = Engine(batch_size=4).run(attack, model, TensorExamples(x, y, torch.arange(4)))
    assert outcome.correct.all() and (outcome.forwards == attack.queries + 1).all()
    assert BALL.contains(x, outcome.x_adv).all()
