"""The protocol and the engine are enough for attacks that look nothing like PGD: APGD, Square and FAB run unchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attacks.conftest import Trained
from attacks.nets import Linear
from attacks.sketches import (
    APGD,
    FAB,
    APGDState,
    Square,
    checkpoints,
    margin,
    nearest_on_plane,
    targeted_dlr,
    targeted_margin,
)
from awnet.attacks import PGD, Attack, Engine, Outcome, Sweep, TensorExamples
from awnet.attacks.attack import evaluate
from awnet.evaluation.journal import Journal
from awnet.losses import Margin
from awnet.noise import Noise
from awnet.threat_model import L2, Linf

EPS = Linf(0.12)  # PGD-20 finds about 60 % of the digits
SKETCHES: dict[str, Attack] = {
    "apgd-ce": APGD(threat=EPS, steps=25),
    "apgd-dlr-t": APGD(threat=EPS, loss=targeted_dlr, targets=3, steps=12),
    "square": Square(threat=EPS, queries=60),
    "fab-t": FAB(threat=EPS, targets=3, steps=12),
}
each_sketch = pytest.mark.parametrize("name", SKETCHES)


def some(digits: Trained, n: int) -> TensorExamples:
    return TensorExamples(digits.x[:n], digits.y[:n], torch.arange(n))


def rows(outcome: Outcome, index: Tensor | slice) -> Outcome:
    return Outcome(*(t[index] for t in outcome))


def agree(ours: Outcome, theirs: Outcome) -> None:
    torch.testing.assert_close(ours._asdict(), theirs._asdict(), rtol=0, atol=0, equal_nan=True)


def counting(model: nn.Module) -> tuple[nn.Module, list[int]]:
    """The model, and a list that gets the size of every batch."""
    sizes: list[int] = []

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return model(x)

    return Counting(), sizes


@each_sketch
def test_slots_are_refilled_as_examples_finish(name: str, digits: Trained):
    attack, n, b = replace(SKETCHES[name], threat=Linf(0.15)), 40, 8  # pyright: ignore[reportArgumentType]
    model, sizes = counting(digits.model)
    calls: list[int] = []
    outcome = Engine(batch_size=b).run(attack, model, some(digits, n), watch=lambda sweep: calls.append(sweep.finished))
    searched = outcome.forwards - 1  # the verdict is the last
    verdicts = n // b

    assert set(sizes) == {b}
    assert 0 < outcome.correct.sum() < n
    assert (searched[outcome.correct] == attack.queries).all(), "who is not hit has spent all queries"
    assert searched[~outcome.correct].unique().numel() > 3, "who is hit finishes when hit"
    # no slot waits while there are examples, so that the search lasts no longer than this; waves of 8 in lockstep would
    at_most = int(searched.sum()) / b + attack.queries
    waves = [int(wave.amax()) for wave in searched.split(b)]
    assert len(sizes) - verdicts <= at_most
    assert len(sizes) - verdicts < 0.9 * sum(waves), "no faster than lockstep"
    assert len(calls) > 5 and calls[-1] == n


@each_sketch
def test_neighbours_and_order_change_no_bit(name: str, digits: Trained):
    attack, engine = SKETCHES[name], Engine(batch_size=4)
    x, y, ids = some(digits, 10)
    outcome = engine.run(attack, digits.model, TensorExamples(x, y, ids), seed=1)
    assert outcome.forwards.unique().numel() > 2
    kept = torch.tensor([7, 1, 9, 4, 0, 5])
    others = engine.run(attack, digits.model, TensorExamples(x[kept], y[kept], ids[kept]), seed=1)
    agree(others, rows(outcome, kept))
    other_shape = Engine(batch_size=7).run(attack, digits.model, TensorExamples(x, y, ids), seed=1)
    torch.testing.assert_close(other_shape.x_adv, outcome.x_adv, rtol=0, atol=1e-4)


@each_sketch
def test_costs_are_counted(name: str, digits: Trained):
    attack = replace(SKETCHES[name], stop_on_success=False)  # pyright: ignore[reportArgumentType]
    outcome = Engine(batch_size=8).run(attack, digits.model, some(digits, 8))
    assert (outcome.forwards == attack.queries + 1).all()
    assert (outcome.backwards == (0 if name == "square" else attack.queries)).all()


def found(digits: Trained, attack: Attack, n: int = 120, model: nn.Module | None = None) -> int:
    return int((~Engine(batch_size=40).run(attack, model or digits.model, some(digits, n)).correct).sum())


def test_they_are_strong(digits: Trained):
    noise = found(digits, PGD(threat=EPS, steps=1, step_size=1e-6))
    pgd = found(digits, PGD(threat=EPS, steps=20))
    assert noise < 10 and 50 < pgd < 100, (noise, pgd)
    assert found(digits, APGD(threat=EPS, loss=targeted_dlr, targets=3, steps=30)) >= pgd
    assert found(digits, APGD(threat=EPS, steps=40)) >= pgd - 2  # one run on one loss, against one run
    assert found(digits, FAB(threat=EPS, targets=3, steps=20)) >= pgd - 2
    assert found(digits, Square(threat=EPS, queries=100)) > 3 * noise + 20


def test_more_targets_and_more_queries_find_more(digits: Trained):
    def all_of(*attacks: Attack) -> list[int]:
        return [found(digits, attack, n=60) for attack in attacks]

    few, many = all_of(*(APGD(threat=EPS, loss=targeted_margin, targets=k, steps=10) for k in (1, 4)))
    assert few <= many
    short, long = all_of(*(Square(threat=EPS, queries=q) for q in (10, 100)))
    assert short < long


def test_dlr_sees_through_a_network_that_is_too_confident(digits: Trained):
    """At 1000 times the logits cross-entropy has no gradient left in float32; DLR does not notice the scale."""

    class Confident(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 1000 * digits.model(x)

    pgd = found(digits, PGD(threat=EPS, steps=20), n=60, model=Confident())
    dlr = APGD(threat=EPS, loss=targeted_dlr, targets=2, steps=15)
    assert found(digits, dlr, n=60, model=Confident()) >= max(2 * pgd, 20)
    assert found(digits, dlr, n=60, model=Confident()) == pytest.approx(found(digits, dlr, n=60), abs=2)


def trace(attack: APGD, model: nn.Module, x: Tensor, y: Tensor) -> list[tuple[APGDState, Tensor]]:
    """Every state of a run with the losses of its answer."""
    noise = Noise(0, torch.arange(len(x)))
    states = []
    with torch.no_grad():
        state = attack.start(x, y, noise)
        while not attack.done(state).all():
            answer = evaluate(model, attack.query(state))
            assert answer.loss is not None
            states.append((state, answer.loss))
            state = attack.update(state, answer, noise)
    return states


def test_checkpoints_of_apgd():
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)  # section 3.1: 22 %, then 3 % less each, at least 6 %
    assert checkpoints(20) == (5, 9, 12, 14, 16, 18, 19, 20)


def test_apgd_halves_its_step_example_by_example(digits: Trained):
    attack = APGD(threat=EPS, loss=targeted_margin, steps=40, stop_on_success=False)
    states = trace(attack, digits.model, digits.x[:12], digits.y[:12])[1:]
    assert len(states) == 41
    sizes = torch.stack([state.size for state, _ in states])
    losses = torch.stack([loss for _, loss in states])
    points = torch.stack([state.now for state, _ in states])
    halved = sizes[1:] < sizes[:-1]
    assert (sizes[0] == torch.tensor(2 * EPS.eps)).all() and (sizes[1:][halved] == sizes[:-1][halved] / 2).all()
    assert {int(step) for step in halved.any(1).nonzero()} <= set(checkpoints(40))
    assert sizes[-1].unique().numel() > 1, "all examples halved together"
    # conditions 1 and 2 of section 3.1, in plain loops
    for i in range(12):
        last, halved_last, best_last = 0, False, float(losses[0, i])
        for w in checkpoints(40)[:-1]:
            rises = sum(float(losses[k, i]) > float(losses[k - 1, i]) for k in range(last + 1, w + 1))
            best = float(losses[: w + 1, i].max())
            expected = rises < 0.75 * (w - last) or (not halved_last and best == best_last and last > 0)
            assert bool(halved[w, i]) == expected, (i, w)
            if expected:  # the next point is one half step, without momentum, from the best point so far
                away = (points[w + 1, i] - points[int(losses[: w + 1, i].argmax()), i]).abs().max()
                assert away <= 0.75 * float(sizes[w + 1, i]) + 1e-6
            last, halved_last, best_last = w, expected, best


def test_apgd_answers_with_its_best_point(digits: Trained):
    attack = APGD(threat=EPS, loss=targeted_margin, targets=2, steps=10, stop_on_success=False)
    x, y = digits.x[:12], digits.y[:12]
    states = trace(attack, digits.model, x, y)
    with torch.no_grad():
        margins = torch.stack([margin(digits.model(state.now), y) for state, _ in states])
        answer = attack(digits.model, x, y)
        torch.testing.assert_close(margin(digits.model(answer), y), margins.amax(0), rtol=1e-4, atol=1e-4)
    # targets come one after another, the two runners-up of the clean image
    order = digits.model(x).detach().sort(dim=1, descending=True).indices
    assert torch.equal(states[0][0].now, x)
    for state, _ in states[1:]:
        assert torch.equal(state.targets, order[:, 1:3])
    assert [int(state.run[0]) for state, _ in states] == [0] * 12 + [1] * 11
    assert [int(state.step[0]) for state, _ in states] == [-1, *range(11), *range(11)]


@pytest.mark.parametrize("threat", [Linf(0.05), L2(0.5)], ids=str)
def test_apgd_reaches_the_worst_case_on_a_linear_network(threat: Linf | L2):
    model = Linear(torch.randn(2, 3, 8, 8))
    x, y = 0.3 + 0.4 * torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])
    w = (model.w[1 - y] - model.w[y]).detach()
    attack = APGD(threat=threat, loss=targeted_margin, steps=60, stop_on_success=False)
    expected = x + threat.eps * threat.ascend(w)
    torch.testing.assert_close(attack(model, x, y), expected, rtol=0, atol=1e-4)


def test_square_asks_for_squares():
    """Each candidate differs from the best point by +-2 eps in one square, as far as the ball and the box allow."""
    attack = Square(threat=Linf(0.1), queries=100)
    steps = torch.tensor([0, 1, 5, 20, 50, 99])
    halvings = torch.tensor([0, 2, 4, 6, 7, 9])  # of p, at 0.1, 0.5, 2, 5, 10, 20, 40, 60 and 80 of the 100 queries
    assert attack.side(steps, 32).tolist() == [max(round((0.8 * 0.5**k) ** 0.5 * 32), 1) for k in halvings.tolist()]
    noise = Noise(0, torch.arange(6))
    change = attack._square(steps, torch.Size([6, 3, 32, 32]), noise)
    for i, side in enumerate(attack.side(steps, 32).tolist()):
        rows, columns = change[i, 0].any(1).nonzero(), change[i, 0].any(0).nonzero()
        assert len(rows) == len(columns) == side
        assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == side
        for channel in change[i]:
            assert channel.unique().numel() <= 2 and channel.abs().max().item() == pytest.approx(0.2)
    corners = attack._square(torch.full((500,), 99), torch.Size([500, 1, 8, 8]), Noise(0, torch.arange(500)))
    assert (corners != 0).sum((0, 1)).min() > 0, "every pixel can be reached"


def test_square_only_ever_improves(digits: Trained):
    attack = Square(threat=EPS, queries=40, stop_on_success=False)
    x, y, noise = digits.x[:8], digits.y[:8], Noise(0, torch.arange(8))
    with torch.no_grad():
        state = attack.start(x, y, noise)
        stripes = attack.start(0.5 + 0 * x, y, noise).candidate - 0.5
        torch.testing.assert_close(stripes, 0.12 * stripes[:, :, :1].sign().expand_as(x))
        before = state.best_margin
        for _ in range(40):
            answer = evaluate(digits.model, attack.query(state))
            state = attack.update(state, answer, noise)
            assert (state.best_margin >= before).all()
            before = state.best_margin
        assert torch.equal(Margin()(digits.model(state.best), y), state.best_margin)


def test_fab_walks_outside_the_ball_and_answers_from_within(digits: Trained):
    """Its queries are further than eps from x; only an answer within eps counts, and x is the answer otherwise."""
    tight = FAB(threat=Linf(0.05), targets=2, steps=15)
    distances: list[Tensor] = []

    def asked(attack: FAB, x: Tensor, y: Tensor) -> None:
        noise = Noise(0, torch.arange(len(x)))
        state = attack.start(x, y, noise)
        for _ in range(attack.queries):
            distances.append(attack.threat.distance(x, state.now))
            state = attack.update(state, evaluate(digits.model, attack.query(state)), noise)

    examples = some(digits, 24)
    with torch.no_grad():
        asked(tight, examples.x, examples.y)
    assert torch.stack(distances).amax(0).median() > 0.1
    outcome = Engine(batch_size=8).run(tight, digits.model, examples)
    moved = tight.threat.distance(examples.x, outcome.x_adv)
    assert (moved <= 0.05 + 1e-6).all() and torch.equal(moved == 0, outcome.correct)
    assert 0 < outcome.correct.sum() < 24


def test_fab_finds_the_boundary_of_a_linear_network():
    """The nearest misclassified image in Linf is |w · x + b| / |w|_1 away."""
    model = Linear(0.1 * torch.randn(2, 3, 8, 8))
    x = 0.4 + 0.2 * torch.rand(6, 3, 8, 8)
    with torch.no_grad():
        logits = model(x)
        y = logits.argmax(1)
        w = model.w[1] - model.w[0]
        nearest = (logits[:, 1] - logits[:, 0]).abs() / w.abs().sum()
        attack = FAB(threat=Linf(0.5), targets=1, steps=30, stop_on_success=False)
        distance = attack.threat.distance(x, attack(model, x, y))
    torch.testing.assert_close(distance, nearest, rtol=0.01, atol=1e-4)
    assert (distance >= nearest - 1e-5).all()


def test_the_nearest_point_on_a_plane():
    point, normal = torch.rand(20, 3, 4, 4), torch.randn(20, 3, 4, 4)
    level = 2 * torch.randn(20)
    z = nearest_on_plane(point, normal, level)
    assert z.min() >= 0 and z.max() <= 1
    height = (normal * z).flatten(1).sum(1) + level
    reached = height.abs() < 1e-3
    assert reached.sum() > 10
    # no point of the plane and the box is nearer: moving every pixel by less towards it does not get there
    s = (z - point).abs().flatten(1).amax(1)
    before = (normal * point).flatten(1).sum(1) + level
    shorter = point - (s - 1e-3).clamp(min=0)[:, None, None, None] * normal.sign() * before.sign()[:, None, None, None]
    still = ((normal * shorter.clamp(0, 1)).flatten(1).sum(1) + level) * before
    assert (still[reached] > 0).all()


def test_randomness_is_counted_by_image_and_run(digits: Trained):
    attack: Callable[[int], Attack] = lambda queries: Square(threat=EPS, queries=queries)  # noqa: E731
    x, y = digits.x[:1].repeat(2, 1, 1, 1), digits.y[:1].repeat(2)
    one = attack(3)(digits.model, x, y, ids=torch.tensor([7, 7]))
    assert torch.equal(one[0], one[1])
    two = attack(3)(digits.model, x, y, ids=torch.tensor([7, 8]))
    assert torch.equal(one[0], two[0]) and not torch.equal(two[0], two[1])
    restarts = APGD(threat=EPS, loss=targeted_margin, targets=2, steps=1, stop_on_success=False)
    starts = [state.now for state, _ in trace(restarts, digits.model, x, y) if int(state.step[0]) == 0]
    assert len(starts) == 2 and not torch.equal(starts[0], starts[1]), "each run has its own random start"


@each_sketch
def test_a_sweep_goes_on_where_it_was(name: str, digits: Trained, tmp_path: Path):
    """From the journal's file, in the middle of every attack: the very same images and costs."""
    attack, b = replace(SKETCHES[name], threat=Linf(0.15)), 8  # pyright: ignore[reportArgumentType]
    engine, given = Engine(batch_size=b), some(digits, 20)
    turns: list[int] = []
    whole = engine.run(attack, digits.model, given, watch=lambda sweep: turns.append(sweep.finished))
    journal = Journal(tmp_path / "journal", name, 60.0)

    class Stop(Exception):
        pass

    def stop(sweep: Sweep) -> None:
        seen.append(sweep.finished)
        if len(seen) == len(turns) // 2:
            journal.write(sweep)
            raise Stop

    seen: list[int] = []
    with pytest.raises(Stop):
        engine.run(attack, digits.model, given, watch=stop)
    sweep = journal.recall(engine.begin(attack, digits.model, given))
    assert sweep.finished == seen[-1]
    resumed = engine.run(attack, digits.model, given, sweep=sweep)
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True) if not a.isnan().any())
