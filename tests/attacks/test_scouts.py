"""What scouts do changes how many batches a search takes, and no bit of what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from attacks.nets import lively, small_net
from awnet.attacks import APGD, FAB, Answer, Attack, Diversified, Engine, Forward, Outcome, Sweep, TensorExamples
from awnet.attacks.scouts import NEVER, Scouts
from awnet.losses import CrossEntropy, TargetedDLR
from awnet.noise import Noise
from awnet.threat_model import L1, L2, Linf


@dataclass(frozen=True, kw_only=True)
class OneByOne(APGD):
    """Without scouts."""

    scouted = False


@dataclass(frozen=True, kw_only=True)
class OneByOneFAB(FAB):
    """Without scouts."""

    scouted = False


@dataclass(frozen=True, kw_only=True)
class OneByOneDiversified(Diversified):
    """Without scouts."""

    scouted = False


def agree(ours: Outcome, theirs: Outcome) -> None:
    torch.testing.assert_close(ours._asdict(), theirs._asdict(), rtol=0, atol=0, equal_nan=True)


def images() -> tuple[nn.Module, TensorExamples]:
    torch.manual_seed(0)
    x = torch.rand(12, 3, 8, 8)
    model = lively(small_net(), x)
    return model, TensorExamples(x, model(x).argmax(1), torch.arange(12))


TARGETED = {"loss": TargetedDLR(), "targets": 4, "steps": 12}


@pytest.mark.parametrize(
    ("kinds", "threat", "settings"),
    [
        ((APGD, OneByOne), Linf(0.006), TARGETED),
        ((APGD, OneByOne), L2(0.14), TARGETED),
        ((APGD, OneByOne), L1(0.7), TARGETED),
        ((APGD, OneByOne), Linf(0.006), {"loss": CrossEntropy(), "restarts": 5, "steps": 12}),
        ((APGD, OneByOne), Linf(0.006), {**TARGETED, "stop_on_success": False}),
        ((FAB, OneByOneFAB), Linf(0.006), {"targets": 4, "steps": 12}),
        ((FAB, OneByOneFAB), L2(0.12), {"targets": 2, "restarts": 3, "steps": 12}),
        ((Diversified, OneByOneDiversified), L2(0.1), {"start_steps": 2, "steps": 8, "restarts": 5}),
    ],
    ids=["APGD-T", "APGD-T L2", "APGD-T L1", "restarts", "to the end", "FAB", "FAB L2, restarts", "diversified"],
)
@pytest.mark.parametrize(("precision", "look_every"), [("float32", 5), ("bfloat16", 1)])
def test_a_search_comes_to_the_same_in_fewer_batches(kinds, threat, settings, precision, look_every):
    model, data = images()
    outcomes, turns = [], []
    for kind in kinds:
        seen: list[Sweep] = []
        engine = Engine(batch_size=16, precision=precision, look_every=look_every)
        outcomes.append(engine.run(kind(threat=threat, **settings), model, data, watch=seen.append))
        turns.append(len(seen))
    agree(*outcomes)
    assert 0 < outcomes[0].correct.sum() < 12, "some fall, and some meet every run"
    assert turns[0] < turns[1]


def test_scouts_wait_until_it_is_known_what_to_aim_at():
    """Of FAB the first answer tells that, about the image; a scout sent before would ask about a random one near it."""
    model, data = images()
    asked: list[list[int]] = []
    for kind in (FAB, OneByOneFAB):
        attack, seen = kind(threat=L2(4.0), targets=1, restarts=5, steps=4), []
        few = TensorExamples(data.x[:6], data.y[:6], data.ids[:6])  # there is room for scouts from the beginning
        Engine(batch_size=64).run(attack, model, few, watch=seen.append)
        of = [(sweep.slot_of, sweep.slots.state) for sweep in seen]
        aims = {
            (int(i), int(state.targets[row, 0])) for slot_of, state in of for row, i in enumerate(slot_of) if i >= 0
        }
        asked.append(sorted(aims))
    assert asked[0] == asked[1], "no scout has found out by itself what to aim at"


def test_a_scout_is_never_made_alone(monkeypatch):
    """The sum over one large image alone may be split among threads, and so round otherwise."""
    model, data = images()
    rows: list[int] = []
    made = APGD.at_run

    def at_run(self, state, run, noise):
        rows.append(len(run))
        return made(self, state, run, noise)

    monkeypatch.setattr(APGD, "at_run", at_run)
    one = TensorExamples(data.x[:1], data.y[:1], data.ids[:1])
    Engine(batch_size=2).run(APGD(threat=L1(0.7), **TARGETED), model, one)
    assert rows and min(rows) == 2


@pytest.mark.parametrize("kind", [APGD, FAB])
def test_it_goes_on_from_anywhere(kind):
    """A killed search has its scouts again, and what they had found."""
    model, data = images()
    attack = APGD(threat=Linf(0.006), **TARGETED) if kind is APGD else FAB(threat=Linf(0.006), targets=4, steps=12)
    seen: list[Sweep] = []

    def keep(sweep: Sweep) -> None:  # what has left is written to in place
        seen.append(Sweep(*(t if isinstance(t, tuple) else t.clone() for t in sweep)))

    engine = Engine(batch_size=16, precision="bfloat16")
    outcome = engine.run(attack, model, data, watch=keep)
    with_scouts = [sweep for sweep in seen if sweep.scouts.ahead.any()]
    assert len(with_scouts) > len(seen) / 3
    for sweep in with_scouts[:: max(len(with_scouts) // 5, 1)]:
        agree(engine.run(attack, model, data, sweep=sweep), outcome)


class Where(NamedTuple):
    x: Tensor
    y: Tensor
    run: Tensor
    step: Tensor
    best: Tensor


@dataclass(frozen=True, kw_only=True)
class Planned(Attack):
    """Runs of ten steps, of which it is known at which step of which run an image finds something.

    Args:
        finds: of each label, the step of each run, or none.
    """

    threat: Linf
    finds: tuple[tuple[int | None, ...], ...]
    queries: int = 80
    stop_on_success: bool = True
    scouted = True

    def start(self, x: Tensor, target: Tensor, noise: Noise) -> Where:
        zero = torch.zeros_like(target)
        return Where(x, target, zero, zero, zero - 1)

    def query(self, state: Where) -> Forward:
        plan = torch.tensor([[-1 if step is None else step for step in plan] for plan in self.finds])
        found = plan[state.y].gather(1, state.run.clamp(max=plan.shape[1] - 1)[:, None])[:, 0] == state.step
        mark = 0.3 + 0.01 * state.run + 0.001 * state.step  # which query it was can be read from the image
        return Forward(torch.where(found[:, None, None, None], mark[:, None, None, None], state.x))

    def update(self, state: Where, answer: Answer, noise: Noise) -> Where:
        ended = state.step == 9
        return state._replace(
            run=state.run + ended, step=(state.step + 1) * ~ended, best=state.best.maximum(10 * state.run + state.step)
        )

    def done(self, state: Where) -> Tensor:
        return state.run >= self.runs(state)

    def runs(self, state: Where) -> Tensor:
        return torch.full_like(state.run, len(self.finds[0]))

    def at_run(self, state: Where, run: Tensor, noise: Noise) -> Where:
        return state._replace(run=run, step=0 * run, best=0 * run - 1)

    def joined(self, before: Where, after: Where) -> Where:
        return after._replace(best=before.best.maximum(after.best))

    def adversarial(self, state: Where) -> Tensor:
        first = torch.eye(4)[0].view(1, 1, 2, 2)  # the pixel that tells no label
        return state.x + 0.001 * state.best[:, None, None, None].clamp(min=0) * first


class Marked(nn.Module):
    """Says the label, which the second pixel tells, unless the first one is above 0.2."""

    def forward(self, x: Tensor) -> Tensor:
        label = (100 * x[:, 0, 0, 1]).round().long()
        return torch.eye(100)[torch.where(x[:, 0, 0, 0] > 0.2, 99, label)] + 0 * x.flatten(1).sum(1)[:, None]


def planned(*finds: tuple[int | None, ...], batch: int) -> tuple[Outcome, list[Sweep], Tensor]:
    x = torch.zeros(len(finds), 1, 2, 2)
    x[:, 0, 0, 1] = torch.arange(len(finds)) / 100
    data = TensorExamples(x, torch.arange(len(finds)), torch.arange(len(finds)))
    seen: list[Sweep] = []
    attack = Planned(threat=Linf(0.5), finds=finds)
    outcome = Engine(batch_size=batch).run(attack, Marked(), data, watch=seen.append)
    return outcome, seen, (outcome.x_adv - x)[:, 0, 0, 0]


def test_what_an_earlier_run_finds_comes_first():
    """Though a scout found something long before."""
    outcome, seen, mark = planned((None, 7, 0, 3), (None, None, None, 2), (None,) * 4, (0, 0, 0, 0), batch=16)
    assert mark.tolist() == pytest.approx([0.317, 0.332, 0.039, 0.3]), (
        "run 1, step 7; run 3, step 2; the last step; the first"
    )
    assert outcome.correct.tolist() == [False, False, True, False]
    assert outcome.forwards.tolist() == [10 + 8 + 1, 30 + 3 + 1, 40 + 1, 1 + 1], "scouts that were in vain cost nothing"
    assert len(seen) < 25, "though one after the other they were 40"


def test_runs_are_made_side_by_side():
    _, seen, _ = planned((None,) * 8, batch=16)
    assert len(seen) == 10, "all of them at once"
    _, seen, _ = planned((None,) * 8, batch=4)
    assert len(seen) == 20, "four at a time"
    _, seen, _ = planned((None,) * 8, batch=1)
    assert len(seen) == 80


def test_as_long_as_others_wait_nobody_is_sent(monkeypatch: pytest.MonkeyPatch):
    """Not even into a slot that is free, as refilling waits for a second one of 32."""
    monkeypatch.setattr("awnet.attacks.network.ROOMY", 32)  # as where a batch of any size takes as long
    _, seen, _ = planned((0, None), *[(None, None)] * 33, batch=32)
    waiting = [sweep for sweep in seen if sweep.begun < 34]
    assert any((sweep.slot_of < 0).any() for sweep in waiting)
    assert not any(sweep.scouts.ahead.any() for sweep in waiting)
    assert any(sweep.scouts.ahead.any() for sweep in seen)


def test_who_waits_for_whom():
    slot_of = torch.tensor([4, 4, 7, 4, -1, 7, 8])
    scouts = Scouts.none(7)._replace(run=torch.tensor([-1, 3, -1, 2, -1, 1, -1]))
    assert scouts.last(slot_of).tolist() == [1, 3, 0, 2, NEVER, 1, NEVER]
    assert scouts.furthest(slot_of).tolist() == [3, 3, 1, 3, -1, 1, -1]
    assert Scouts.none(7).last(slot_of).tolist() == [NEVER] * 7
    assert scouts.without(slot_of == 4).run.tolist() == [-1, -1, -1, -1, -1, 1, -1]
