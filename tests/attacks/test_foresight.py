"""What is foreseen changes how many batches a search takes, and no bit of what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from attacks.nets import lively, small_net
from awnet.attacks import Answer, Attack, Engine, Forward, Outcome, Square, TensorExamples
from awnet.attacks.attack import Slots, put, take
from awnet.attacks.foresight import came_true, chains
from awnet.noise import Noise
from awnet.threat_model import L1, L2, Linf, ThreatModel


class Counted(nn.Module):
    """A network that counts its batches."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.batches = 0

    def forward(self, x: Tensor) -> Tensor:
        self.batches += 1
        return self.net(x)


@dataclass(frozen=True, kw_only=True)
class Blind(Square):
    """Foresees nothing."""

    foresees = False


@dataclass(frozen=True, kw_only=True)
class Mistaken(Square):
    """Foresees what never happens."""

    def ahead(self, state, steps, noise):
        return super().ahead(state, steps + 7 * (steps > 0), noise)


def searched(kind: type[Square], threat: ThreatModel, steps: int, **engine) -> tuple[Outcome, int]:
    torch.manual_seed(0)
    x = torch.rand(12, 3, 8, 8)
    model = Counted(lively(small_net(), x))
    data = TensorExamples(x, model(x).argmax(1), torch.arange(12))
    return Engine(**engine).run(kind(threat=threat, steps=steps), model, data), model.batches


@pytest.mark.parametrize(
    ("threat", "precision", "look_every"),
    [(Linf(0.03), "float32", 1), (Linf(0.03), "bfloat16", 5), (L2(0.2), "bfloat16", 1), (L1(0.6), "float32", 5)],
    ids=str,
)
def test_a_search_comes_to_the_same_in_fewer_batches(threat, precision, look_every):
    (ours, few), (blind, many), (mistaken, some) = (
        searched(kind, threat, 150, batch_size=16, precision=precision, look_every=look_every)
        for kind in (Square, Blind, Mistaken)
    )
    assert 0 < ours.correct.sum() < 7 and ours.forwards.max() == 153, "some fall, and those that stand are few"
    for field, expected, other in zip(ours, blind, mistaken, strict=True):
        assert torch.equal(field.nan_to_num(), expected.nan_to_num())
        assert torch.equal(field.nan_to_num(), other.nan_to_num()), "and a wrong guess costs time alone"
    assert few < many / 1.5 and few < some / 1.5


class Step(NamedTuple):
    x: Tensor
    step: Tensor
    knocks: Tensor


@dataclass(frozen=True, kw_only=True)
class Knocking(Attack):
    """Asks so many times, and foresees all but what the answers at some steps change."""

    threat: ThreatModel
    queries: int = 20
    ends: int = 20
    at: tuple[int, ...] = ()
    stop_on_success: bool = False
    foresees = True

    def start(self, x: Tensor, target: Tensor, noise: Noise) -> Step:
        return Step(x, torch.zeros_like(target), torch.zeros_like(target))

    def query(self, state: Step) -> Forward:
        return Forward((state.x + 0.01 * state.knocks[:, None, None, None]).clamp(0, 1))

    def update(self, state: Step, answer: Answer, noise: Noise) -> Step:
        knock = torch.isin(state.step, torch.tensor(self.at, dtype=torch.int64))
        return Step(state.x, state.step + 1, state.knocks + knock)

    def ahead(self, state: Step, steps: Tensor, noise: Noise) -> Step:
        return state._replace(step=state.step + steps)

    def done(self, state: Step) -> Tensor:
        return state.step >= self.ends

    def adversarial(self, state: Step) -> Tensor:
        return self.query(state).x


@pytest.mark.parametrize(
    ("attack", "batches"),
    [
        (Knocking(threat=Linf(0.1)), 3),  # 8 + 8 + 4 steps
        (Knocking(threat=Linf(0.1), at=(3,)), 3),  # 4 + 8 + 8: what came after the knock was in vain
        (Knocking(threat=Linf(0.1), at=(7, 8)), 4),  # 8 + 1 + 8 + 3
        (Knocking(threat=Linf(0.1), at=tuple(range(20))), 20),
        (Knocking(threat=Linf(0.1), queries=11), 2),  # 8 + 3: it has no more
        (Knocking(threat=Linf(0.1), ends=9), 2),
    ],
    ids=["nothing", "one", "two in a row", "all", "queries", "ends"],
)
def test_each_batch_goes_as_far_as_it_was_foreseen(attack: Knocking, batches: int):
    x = torch.rand(2, 3, 8, 8) / 2
    turns: list[int] = []
    outcome = Engine(batch_size=16).run(
        attack,
        small_net(),
        TensorExamples(x, torch.zeros(2, dtype=torch.int64), torch.arange(2)),
        watch=lambda sweep: turns.append(int(sweep.passes.sum())),
    )
    asked = min(attack.queries, attack.ends)
    assert outcome.forwards.tolist() == [asked + 1] * 2, "with the verdict"
    assert turns[-1] == 2 * asked and len(turns) == batches
    knocks = len([step for step in attack.at if step < asked])
    assert torch.equal(outcome.x_adv, x + 0.01 * torch.tensor(knocks))


def test_chains_fill_a_batch():
    row, steps = chains(3, 8)
    assert row.tolist() == [0, 0, 1, 1, 2, 2, 0, 0]
    assert steps.tolist() == [0, 1, 0, 1, 0, 1, 0, 0]
    assert [t.tolist() for t in chains(1, 4)] == [[0] * 4, [0, 1, 2, 3]]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_rows_keep_their_layout(layout: torch.memory_format):
    """A sum over an image runs through it as it lies in memory, so its last bit would tell who else is in a batch."""
    slots = torch.rand(4, 3, 8, 8).contiguous(memory_format=layout)
    rows = take(torch.tensor([2, 0]), slots)
    back = put(torch.tensor([2, 0]), rows.contiguous(), slots)
    assert torch.equal(back, slots) and rows.stride() == back.stride() == slots.stride()


def test_a_chain_ends_where_another_begins():
    """Even where the other example happens to be just where this one would go on."""
    x, zero = torch.zeros(6, 3, 2, 2), torch.zeros(6, dtype=torch.int64)
    alike = Slots(zero, x, zero, zero > 0, x, zero > 0, zero > 0)
    _, steps = came_true(alike, alike, 2)
    assert steps.tolist() == [3, 3]
