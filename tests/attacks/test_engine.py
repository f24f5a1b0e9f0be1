"""What the engine owns: full batches, refilled slots, padding, modes, precision, progress, costs and the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from attacks.nets import Blurred, Linear, lively, small_net
from awnet.attacks import (
    APGD,
    FAB,
    PGD,
    Answer,
    Attack,
    Engine,
    Forward,
    Gradient,
    Square,
    Suite,
    Sweep,
    TensorExamples,
    perturb,
)
from awnet.attacks.attack import evaluate
from awnet.errors import Mistake
from awnet.losses import CrossEntropy, Margin
from awnet.noise import Noise
from awnet.threat_model import L1, L2, Linf, ThreatModel


class WalkState(NamedTuple):
    x: Tensor
    target: Tensor
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class Walk(Attack):
    """Asks for each example as often as its label says, plus one, and answers x + away: not an attack, a probe."""

    threat: ThreatModel
    away: float = 0.0
    queries: int = 10
    stop_on_success: bool = False
    gradients: bool = False
    ends: bool = True

    def start(self, x: Tensor, target: Tensor, noise: Noise) -> WalkState:
        return WalkState(x, target, torch.zeros_like(target))

    def query(self, state: WalkState) -> Forward | Gradient:
        x = state.x + self.away if self.away else state.x  # its own tensor, so that a model can spoil it
        return Gradient(x, lambda logits: logits[:, 0]) if self.gradients else Forward(x)

    def update(self, state: WalkState, answer: Answer, noise: Noise) -> WalkState:
        assert (answer.gradient is None) is not self.gradients
        return state._replace(step=state.step + 1)

    def done(self, state: WalkState) -> Tensor:
        return (state.step > state.target) & torch.tensor(self.ends)

    def adversarial(self, state: WalkState) -> Tensor:
        return state.x + self.away


class Recorder(nn.Module):
    """Class 0 always, with a note of what every call looked like."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []
        self.strides: list[tuple[int, ...]] = []
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        assert len(self.shapes) < 100, "without end"
        self.shapes.append(tuple(x.shape))
        self.strides.append(x.stride())
        self.seen.append(x[:, 0, 0, 0].detach().clone())
        return torch.eye(12)[0] + 0 * x.flatten(1).sum(1)[:, None]


def examples(labels: list[int]) -> TensorExamples:
    n = len(labels)
    x = torch.rand(n, 3, 4, 4)
    x[:, 0, 0, 0] = torch.arange(n) / 100  # so that a call can be read
    return TensorExamples(x, torch.tensor(labels), torch.arange(n))


@pytest.mark.parametrize("gradients", [False, True])
def test_slots_are_refilled_as_examples_finish(gradients: bool):
    model = Recorder()
    given = examples([0, 8, 0, 1, 0, 0, 2, 0, 0])
    outcome = Engine(batch_size=2).run(Walk(threat=Linf(0.1), gradients=gradients), model, given)
    # slot 0 holds example 0, then 2 to 7 in turn, while slot 1 holds example 1 for its nine queries
    search, verdict = model.seen[1:-5], model.seen[-5:]  # after a look at whether model and images fit
    assert [round(float(call[0]) * 100) for call in search] == [0, 2, 3, 3, 4, 5, 6, 6, 6, 7]
    assert [round(float(call[1]) * 100) for call in search] == [1] * 9 + [8]
    assert [round(float(v) * 100) for call in verdict for v in call] == [*range(9), 8]
    assert outcome.forwards.tolist() == [label + 2 for label in given.y.tolist()]
    assert outcome.backwards.tolist() == [(label + 1) * gradients for label in given.y.tolist()]
    assert torch.equal(outcome.x_adv, given.x), "in the order of the examples"


@pytest.mark.parametrize("n", [1, 3, 4, 5, 8, 11])
@pytest.mark.parametrize("channels_last", [False, True])
def test_every_evaluation_has_one_shape_and_layout(n: int, channels_last: bool):
    model = OfItsBatch(4)  # so no smaller batch will do
    given = examples(list(range(n)))
    searched: list[tuple[int, ...]] = []
    outcome = Engine(batch_size=4, channels_last=channels_last).run(
        Walk(threat=Linf(0.1), queries=12), model, given, watch=lambda sweep: searched.append(model.shapes[-1])
    )
    assert {*searched, model.shapes[-1]} == {(4, 3, 4, 4)}
    assert set(model.strides) == {(48, 1, 12, 3) if channels_last else (48, 16, 4, 1)}
    assert torch.equal(outcome.x_adv, given.x)
    assert outcome.prediction.tolist() == [0] * n
    assert outcome.correct.tolist() == [True] + [False] * (n - 1)
    assert outcome.p_clean.isnan().all()
    assert {len(field) for field in outcome} == {n}


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_state_may_have_any_layout(channels_last: bool):
    """An attack's own tensors may come out in another layout than x; the kernels that the model runs must not change."""

    @dataclass(frozen=True, kw_only=True)
    class Drifting(Walk):
        def query(self, state: WalkState) -> Forward:
            some_at_odd_steps = bool(state.step[0] % 2)
            layout = torch.channels_last if some_at_odd_steps else torch.contiguous_format
            return Forward(state.x.contiguous(memory_format=layout))

    model = Recorder()
    Engine(batch_size=2, channels_last=channels_last).run(Drifting(threat=Linf(0.1)), model, examples([3, 1, 2, 0]))
    assert set(model.strides) == {(48, 1, 12, 3) if channels_last else (48, 16, 4, 1)}


def test_refilling_waits_for_a_sixteenth_of_the_slots():
    model = Recorder()
    labels = [0] + [2] * 63 + [0] * 10
    outcome = Engine(batch_size=64).run(Walk(threat=Linf(0.1)), model, examples(labels))
    # one free slot of 64 waits, with example 0 still in it; after the third call all are free
    assert [round(float(call[0]) * 100) for call in model.seen[:5]] == [0, 0, 0, 0, 64]  # the first is a look
    # ten examples left: the model is asked whether a batch of 12 gives the same bits as the usual one
    assert [len(call) for call in model.seen[4:]] == [64, 12, 12] + [64] * 2
    assert outcome.forwards.tolist() == [label + 2 for label in labels]


def test_no_examples_have_no_outcome():
    given = examples([0, 1])
    none = TensorExamples(given.x[:0], given.y[:0], given.ids[:0])
    for outcome in (Engine().run(Walk(threat=Linf(0.1)), Recorder(), none), Engine().predict(Recorder(), none)):
        assert {len(field) for field in outcome} == {0}
        assert outcome.x_adv.shape == (0, 3, 4, 4) and outcome.correct.dtype == torch.bool


def test_an_attack_gets_no_more_queries_than_it_announced():
    endless = Walk(threat=Linf(0.1), ends=False, queries=5)
    outcome = Engine(batch_size=2).run(endless, Recorder(), examples([0, 0, 0]))
    assert outcome.forwards.tolist() == [6, 6, 6]


def test_progress_counts_to_the_end():
    calls: list[int] = []
    given = examples([0, 3, 1, 0, 2])
    Engine(batch_size=2).run(
        Walk(threat=Linf(0.1)), Recorder(), given, watch=lambda sweep: calls.append(sweep.finished)
    )
    assert calls == sorted(calls) and calls[-1] == 5 and len(set(calls)) >= 3


class Counted(NamedTuple):
    """Examples with a note of how many were asked for at once."""

    within: TensorExamples
    asked: list[int]

    @property
    def ids(self) -> Tensor:
        return self.within.ids

    @property
    def labels(self) -> Tensor:
        return self.within.y

    def __len__(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        return len(self.within)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        self.asked.append(len(indices))
        return self.within.batch(indices)


def test_a_suite_never_holds_all_images_twice():
    """Beside the adversarial images no more than a batch at a time is asked for, so memory grows by one image for each."""
    given = Counted(examples([0] * 40), [])
    suite = Suite(members=(("a", Walk(threat=Linf(0.1))), ("b", Walk(threat=Linf(0.1)))))
    outcome = Engine(batch_size=8).run(suite, Recorder(), given)
    assert torch.equal(outcome.x_adv, given.within.x)
    assert max(given.asked) == 8


@pytest.mark.parametrize("scale", [255.0, -1.0, float("nan")])
def test_images_outside_the_range_are_refused(scale: float):
    """They have no neighbour inside [0, 1], so whatever an attack finds would count as robust."""
    given = examples([0] * 20)
    x = given.x.clone()
    x[-1] *= scale  # the last to enter
    with pytest.raises(Mistake, match=r"in \[0, 1\]|finite"):
        Engine(batch_size=4).run(Walk(threat=Linf(0.1)), Recorder(), TensorExamples(x, given.y, given.ids))


def test_the_verdict_trusts_no_attack():
    """Whatever an attack claims, an image outside the ball or the box is no success; inside it is."""
    given = TensorExamples(torch.full((4, 3, 4, 4), 0.5), torch.tensor([1, 1, 1, 0]), torch.arange(4))
    for threat, away, allowed in [
        (Linf(0.1), 0.1, True),
        (Linf(0.1), 0.101, False),
        (L2(0.5), 0.07, True),  # 0.07 * sqrt(48) = 0.485
        (L2(0.5), 0.073, False),  # 0.506
        (Linf(1), 0.5, True),
        (Linf(1), 0.51, False),  # out of the box
        (Linf(1), float("nan"), False),
    ]:
        for stop_on_success in (False, True):
            attack = Walk(threat=threat, away=away, stop_on_success=stop_on_success)
            told: list[str] = []
            outcome = Engine(batch_size=3).run(attack, Recorder(), given, warn=told.append)
            assert told == (
                ["the attack made 4 of 4 images with pixels that are no numbers: they count as not broken"]
                * (away != away)
            )
            assert outcome.prediction.tolist() == [0] * 4
            assert outcome.correct.tolist() == [not allowed] * 3 + [True], (threat, away)
            stopped = stop_on_success and allowed
            assert outcome.forwards.tolist() == [2 if stopped else 3] * 3 + [2], "success out of bounds stops nothing"


def test_bfloat16_is_for_the_search_only():
    """The images come from a search in bfloat16, the verdict on them from float32."""
    x, model = torch.rand(40, 3, 8, 8), small_net()
    lively(model, x)
    seen: list[tuple[int, torch.dtype]] = []
    model[0].register_forward_hook(lambda _module, _args, out: seen.append((len(out), out.dtype)))
    with torch.no_grad():
        y = model(x).argmax(1)
    attack = PGD(threat=Linf(2 / 255), steps=5)
    given = TensorExamples(x, y, torch.arange(40))
    outcome = Engine(batch_size=16, precision="bfloat16").run(attack, model, given)
    calls = seen[1 + 4 :]  # it has been looked at four times
    # and for the last eight, which is the smallest batch that gives the same bits as the whole one; two of eight are sixteen
    sizes, last = [size for size, _ in calls], calls[-4][0]
    probes = sizes[10:-8]
    assert sizes == [16] * 10 + probes + [last] * 5 + [16] * 3
    assert probes[0] == 16 and probes[1:] == sorted(probes[1:]) and probes.count(8) in (1, 2)
    assert set(probes) == {16, *range(8, last + 1)} or last == 16
    assert [dtype for _, dtype in calls] == [torch.bfloat16] * (len(calls) - 3) + [torch.float32] * 3
    assert outcome.x_adv.dtype == torch.float32
    with torch.no_grad():
        prediction = torch.cat([model(part).argmax(1) for part in outcome.x_adv.split(8)])
    assert torch.equal(outcome.prediction, prediction)
    assert torch.equal(outcome.correct, prediction == y)
    assert 0 < outcome.correct.sum() < 40
    exact = Engine(batch_size=16).run(attack, model, given)
    assert not torch.equal(exact.x_adv, outcome.x_adv), "nothing was searched in bfloat16"


@pytest.mark.parametrize("threat", [Linf(1 / 255), L2(0.05)], ids=str)
def test_a_success_in_bfloat16_alone_stops_nothing(threat: ThreatModel):
    """Stopped at an image that float32 gets right, an example would count as robust without having been attacked."""
    x = torch.rand(60, 3, 8, 8)
    model = lively(small_net(), x)
    with torch.no_grad():
        y = model(x).argmax(1)
    attack = PGD(threat=threat, steps=12, step_size=1 / 8, stop_on_success=True)
    given = TensorExamples(x, y, torch.arange(60))
    outcome = Engine(batch_size=16, precision="bfloat16").run(attack, model, given)
    assert (outcome.backwards[outcome.correct] == 12).all(), "who is not hit has spent all queries"
    exact = Engine(batch_size=16).run(attack, model, given)
    assert 10 < exact.correct.sum() < 50
    assert abs(int(outcome.correct.sum()) - int(exact.correct.sum())) <= 2
    # a success costs a float32 pass before it counts; so does one that it refutes
    asked = outcome.forwards - outcome.backwards - 1
    early = ~outcome.correct & (outcome.backwards < 12)
    assert (asked[early] >= 1).all() and int(asked.sum()) > int((asked[early] > 0).sum()), "none was refuted"
    assert torch.equal(exact.forwards, exact.backwards + 1)


@pytest.mark.parametrize("gradients", [False, True])
def test_a_model_may_work_in_place(gradients: bool):
    """What it writes into its input reaches neither the attack nor the verdict."""

    class InPlace(Recorder):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mul_(2).sub_(1))

    given = examples([2, 0, 1])
    engine, attack = Engine(batch_size=2), Walk(threat=Linf(0.1), gradients=gradients)
    for outcome in (engine.run(attack, InPlace(), given), engine.predict(InPlace(), given)):
        assert torch.equal(outcome.x_adv, given.x)
        assert outcome.correct.tolist() == [False, True, False]


class Rooted(nn.Module):
    """A network whose backward pass divides 0 by 0, at some images or at all; forward it changes no bit."""

    def __init__(self, net: nn.Module, above: float) -> None:
        super().__init__()
        self.net, self.above = net, above

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        zero = (x.flatten(1) - self.above).relu().sum(1) * 0 if self.above else 0 * x.flatten(1).sum(1)
        return logits + torch.where(x.flatten(1).amax(1) > self.above, zero.sqrt(), zero)[:, None]


@pytest.mark.parametrize("threat", [Linf(0.1), L2(1.0), L1(8.0)])
def test_a_gradient_that_is_no_number_is_told(threat: ThreatModel):
    """It would make images of NaN, or hold them still, and the network would pass for robust."""
    x, net = torch.rand(12, 3, 8, 8), small_net()
    lively(net, x)
    x[:4] *= 0.5
    with torch.no_grad():
        given = TensorExamples(x, net(x).argmax(1), torch.arange(12))
    attack, told = PGD(threat=threat, steps=3, step_size=threat.eps / 2), []
    everywhere = Engine(batch_size=5).run(attack, Rooted(net, 0.0), given, warn=told.append)
    assert len(told) == 1 and told[0].startswith("the gradient of 12 of 12 images was NaN or infinite")
    assert everywhere.x_adv.isfinite().all() and threat.contains(x, everywhere.x_adv).all()
    if isinstance(threat, L1):
        return  # one pixel may go as far as white
    somewhere = Engine(batch_size=5).run(attack, Rooted(net, 0.75), given, warn=told.append)
    nowhere = Engine(batch_size=5).run(attack, net, given)
    assert len(told) == 2 and told[1].startswith("the gradient of 8 of 12 images was")
    assert torch.equal(somewhere.x_adv[:4], nowhere.x_adv[:4]), "the others are attacked as ever"


class Surroundings(Recorder):
    """Notes in which precision it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.said: set[tuple[object, ...]] = set()

    def forward(self, x: Tensor) -> Tensor:
        switches = torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul
        self.said.add((torch.is_autocast_enabled("cpu"), *(switch.fp32_precision for switch in switches)))
        return super().forward(x)


@pytest.fixture
def tf32() -> Iterator[None]:
    """Convolutions in TensorFloat-32, as PyTorch has them anyway, whatever was set before."""
    switch: Any = torch.backends.cudnn.conv  # pyright: ignore[reportAttributeAccessIssue]
    before, switch.fp32_precision = switch.fp32_precision, "tf32"
    yield
    switch.fp32_precision = before


def test_float32_is_float32_whatever_surrounds_it(tf32: None):
    x, net = torch.rand(40, 3, 8, 8), small_net()
    lively(net, x)
    with torch.no_grad():
        given = TensorExamples(x, net(x).argmax(1), torch.arange(40))
    engine, attack = Engine(batch_size=16), PGD(threat=Linf(0.05), steps=4, step_size=0.02)
    plain = engine.run(attack, net, given)
    asked = Surroundings()
    with torch.autocast("cpu", torch.bfloat16):
        within = engine.run(attack, net, given)
        engine.run(Walk(threat=Linf(0.1), gradients=True), asked, examples([1, 0]))
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(within.x_adv, plain.x_adv) and torch.equal(within.correct, plain.correct)
    assert asked.said == {(False, "ieee", "ieee", "ieee")}
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"
    with torch.inference_mode():
        within = engine.run(attack, net, given)
    assert torch.equal(within.x_adv, plain.x_adv)


class Overflows(nn.Module):
    """Class 0 up to a brightness, beyond it no number, and further beyond class 1."""

    def __init__(self, number: float = torch.nan) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        z = x[:, 0, 0, 0] - 0.5
        return torch.stack([-z, torch.where((z > 0) & (z < 0.1), self.number, z)], dim=1)


class Brighter(Walk):
    """Asks about brighter images step by step."""

    def query(self, state: WalkState) -> Forward:
        return Forward(state.x + self.away * (state.step[:, None, None, None] + 1))

    def adversarial(self, state: WalkState) -> Tensor:
        return state.x + self.away * state.step[:, None, None, None]


def grey(*levels: float) -> TensorExamples:
    x = torch.tensor(levels)[:, None, None, None].repeat(1, 3, 4, 4)
    return TensorExamples(x, torch.zeros(len(levels), dtype=torch.int64), torch.arange(len(levels)))


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("batch_size", [2, 8])
def test_no_attack_profits_from_an_overflow(number: float, batch_size: int):
    """An answer that is no number is no success; it is counted and told, and an attack that goes on goes on."""
    engine, model, told = Engine(batch_size=batch_size), Overflows(number), []
    walk = Walk(threat=Linf(0.5), away=0.25)
    outcome = engine.run(walk, model, grey(0.1, 0.3, 0.3, 0.4, 0.1), warn=told.append)
    assert outcome.correct.tolist() == [True, True, True, False, True]
    assert outcome.broken_by.tolist() == [-1, -1, -1, 0, -1]
    assert told == ["the model answers 2 of 5 attacked images with NaN or infinity: they count as not broken"]
    # from 0.48 the first step, by 0.08, meets the overflow, and the second one what lies beyond
    steps = Brighter(threat=Linf(0.5), away=0.08, stop_on_success=True, queries=3, ends=False)
    outcome = engine.run(steps, model, grey(0.48, 0.1), warn=told.append)
    assert outcome.correct.tolist() == [False, True] and len(told) == 1
    torch.testing.assert_close(outcome.x_adv[0], torch.full((3, 4, 4), 0.64))


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_images_without_an_answer_are_refused(number: float):
    engine, model, given = Engine(batch_size=2), Overflows(number), grey(0.1, 0.2, 0.9, 0.55, 0.52)
    said = "the model answers 2 of 5 images with NaN or infinity; look for a division or a logarithm"
    with pytest.raises(Mistake, match=said):
        engine.predict(model, given)
    with pytest.raises(Mistake, match=said):
        engine.run(Suite(members=(("walk", Walk(threat=Linf(0.5))),)), model, given)
    with pytest.warns(RuntimeWarning, match="2 of 5 attacked images"):
        engine.run(Walk(threat=Linf(0.5)), model, given)
    damaged = TensorExamples(torch.full_like(given.x, torch.nan), given.y, given.ids)
    assert engine.predict(model, damaged).prediction.tolist() == [0] * 5, "no fault of the model"


class Fails(nn.Module):
    """Raises at its third call."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.calls = small_net(), 0
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 3:
            raise RuntimeError("out of memory")
        return self.net(self.norm(x))


@pytest.mark.parametrize("by", ["engine", "call", "progress"])
def test_a_failure_leaves_the_modes_as_they_were(by: str):
    model = Fails()
    model.norm.eval()
    model.net[2].requires_grad_(False)
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    x, y = torch.rand(4, 3, 8, 8), torch.arange(4)
    with pytest.raises(RuntimeError, match=r"out of memory|enough"):
        if by == "call":
            PGD(threat=Linf(0.1))(model, x, y)
        elif by == "engine":
            Engine(batch_size=2).run(PGD(threat=Linf(0.1)), model, TensorExamples(x, y, y))
        else:

            def watch(sweep: Sweep) -> None:
                raise RuntimeError("enough")

            attack = PGD(threat=Linf(0.1), steps=1)
            Engine(batch_size=2).run(attack, model, TensorExamples(x, y, y), watch=watch)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert torch.is_grad_enabled()


def test_a_model_in_training_mode_is_attacked_in_eval_mode():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(48, 5)).train()
    norm = model[0]
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
    norm.running_mean.fill_(0.5)
    seen: list[tuple[bool, bool]] = []  # no call is in training mode, or makes a graph of the weights
    norm.register_forward_hook(lambda *_: seen.append((norm.training, norm.weight.requires_grad)))
    x, y = torch.rand(6, 3, 4, 4), torch.arange(6) % 5
    outcome = Engine(batch_size=4).run(PGD(threat=Linf(0.02), steps=3), model, TensorExamples(x, y, torch.arange(6)))
    assert set(seen) == {(False, False)}
    assert all(module.training and p.requires_grad for module in model.modules() for p in module.parameters())
    assert norm.running_mean.tolist() == [0.5] * 3 and norm.num_batches_tracked == 0
    model.eval()
    with torch.no_grad():
        assert torch.equal(outcome.prediction, model(outcome.x_adv).argmax(1))
    again = Engine(batch_size=4).run(PGD(threat=Linf(0.02), steps=3), model, TensorExamples(x, y, torch.arange(6)))
    assert torch.equal(again.x_adv, outcome.x_adv)
    assert not any(module.training for module in model.modules())


def test_no_attack_at_all():
    x = torch.rand(7, 3, 8, 8)
    model = lively(small_net(), x).train()
    with torch.no_grad():
        prediction = model(x).argmax(1)
    y = torch.where(torch.arange(7) < 3, prediction, (prediction + 1) % 10)
    outcome = Engine(batch_size=4).predict(model, TensorExamples(x, y, torch.arange(7)))
    assert torch.equal(outcome.x_adv, x) and torch.equal(outcome.prediction, prediction)
    assert outcome.correct.tolist() == [True] * 3 + [False] * 4
    assert outcome.forwards.tolist() == [1] * 7 and outcome.backwards.tolist() == [0] * 7
    assert all(module.training for module in model.modules())


def test_p_clean_of_a_model_that_offers_it():
    class Suspicious(Linear):
        def detect(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self(x), x.flatten(1).mean(1)

    model = Suspicious(torch.randn(2, 3, 4, 4))
    x, y = torch.rand(5, 3, 4, 4), torch.tensor([0, 1, 0, 1, 0])
    outcome = Engine(batch_size=2).run(PGD(threat=Linf(0.1)), model, TensorExamples(x, y, y))
    torch.testing.assert_close(outcome.p_clean, outcome.x_adv.flatten(1).mean(1))


def test_noise_follows_the_ids():
    """The same image twice under one id meets the same numbers; under another id others."""
    x = torch.rand(1, 3, 8, 8).repeat(3, 1, 1, 1)
    model = lively(small_net(), torch.rand(8, 3, 8, 8))
    attack = PGD(threat=Linf(0.1), steps=1)
    given = TensorExamples(x, torch.tensor([1, 1, 1]), torch.tensor([4, 9, 4]))
    outcome = Engine(batch_size=2).run(attack, model, given)
    assert torch.equal(outcome.x_adv[0], outcome.x_adv[2]) and not torch.equal(outcome.x_adv[0], outcome.x_adv[1])
    noise = Noise(0, torch.tensor([4, 9]))
    with torch.no_grad():
        start = attack.start(x[:2], torch.tensor([1, 1]), noise).x_adv
        assert torch.equal(start, attack.threat.project(x[:2] + attack.threat.uniform(noise, 0, (3, 8, 8)), x[:2]))


def test_lockstep_runs_finished_examples_no_further():
    """In `perturb` all examples share the number of steps; one that is done keeps its answer."""

    @dataclass(frozen=True, kw_only=True)
    class Drift(Walk):
        def adversarial(self, state: WalkState) -> Tensor:
            return (state.x + 0.01 * state.step[:, None, None, None]).clamp(0, 1)

    given = examples([0, 3, 1])
    x_adv = perturb(Drift(threat=Linf(0.1)), Recorder(), given.x, given.y, Noise(0, given.ids))
    steps = (given.y + 1)[:, None, None, None]
    torch.testing.assert_close(x_adv, (given.x + 0.01 * steps).clamp(0, 1))


def test_an_example_s_gradient_is_its_own():
    """The losses are summed: neither the size of the batch nor the neighbours scale a gradient."""
    x, y = torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 2])
    model = lively(small_net(), x)
    whole = evaluate(model, Gradient(x, lambda logits: CrossEntropy()(logits, y)))
    assert whole.gradient is not None and whole.loss is not None
    for i in range(3):
        one = x[i : i + 1].clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(one), y[i : i + 1])
        (gradient,) = torch.autograd.grad(loss, one)
        torch.testing.assert_close(whole.gradient[i : i + 1], gradient)
        torch.testing.assert_close(whole.loss[i], loss.detach())
    forward = evaluate(model, Forward(x))
    assert torch.equal(forward.logits, whole.logits) and forward.loss is forward.gradient is None
    assert not whole.logits.requires_grad and not whole.loss.requires_grad


def test_an_engine_without_slots_is_a_mistake():
    with pytest.raises(Mistake, match="batch size must be at least 1, got 0"):
        Engine(batch_size=0)
    with pytest.raises(Mistake, match="0 or more evaluations, got look_every=-1"):
        Engine(look_every=-1)


class OfItsBatch(Recorder):
    """Rounds differently in a small batch."""

    def __init__(self, small: int) -> None:
        super().__init__()
        self.small = small

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 + 1e-6 * (len(x) < self.small))


@pytest.mark.parametrize(
    ("model", "many", "last"),
    [(Recorder(), 5, 8), (Recorder(), 1, 2), (OfItsBatch(64), 5, 64), (OfItsBatch(10), 5, 12), (OfItsBatch(3), 1, 3)],
    ids=["same bits", "same bits in two", "other bits", "other bits in eight", "other bits in two"],
)
def test_the_last_examples_share_a_smaller_batch_where_that_changes_no_bit(model: Recorder, many: int, last: int):
    given = examples([9] * many + [0] * 60)
    slots: list[int] = []
    outcome = Engine(batch_size=64).run(
        Walk(threat=Linf(0.1)), model, given, watch=lambda sweep: slots.append(len(sweep.slot_of))
    )
    assert torch.equal(outcome.x_adv, given.x)
    assert outcome.forwards.tolist() == [11] * many + [2] * 60, "to ask about bits is no pass of an example"
    assert slots[0] == 64 and slots[-1] == last, "slots that nobody will need are dropped"
    assert {len(call) for call in model.seen[-7:-2]} == {last}


class Cramped(nn.Module):
    """Has memory for so many images only."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.net, self.most = small_net(), most
        self.calls: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("as a GPU says it")
        return self.net(x)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_out_of_memory_halves_the_batch(precision: str):
    x = torch.rand(40, 3, 8, 8)
    model = Cramped(9)
    lively(model.net, x)
    with torch.no_grad():
        y = model.net(x).argmax(1)
    attack = APGD(threat=Linf(1 / 255), steps=4)
    given = TensorExamples(x, y, torch.arange(40))
    with pytest.warns(RuntimeWarning, match="out of memory with batches of (32|16); going on with (16|8)"):
        outcome = Engine(batch_size=32, precision=precision).run(attack, model, given)
    assert max(model.calls[-20:]) == 32, "the verdict begins anew"
    model.most = 40
    plenty = Engine(batch_size=8, precision=precision).run(attack, model, given)
    assert 0 < plenty.correct.sum() < 40
    assert torch.equal(outcome.correct, plenty.correct) and torch.equal(outcome.backwards, plenty.backwards)
    torch.testing.assert_close(outcome.x_adv, plenty.x_adv, rtol=0, atol=1e-4 if precision == "float32" else 1)
    model.most = 0
    with pytest.warns(RuntimeWarning), pytest.raises(Mistake, match="a batch of one image"):
        Engine(batch_size=2).run(attack, model, given)


SEARCHES = {
    "pgd": PGD(threat=Linf(1 / 255), steps=6, step_size=1 / 4),
    "pgd, stopping": PGD(threat=L2(0.05), steps=6, step_size=1 / 4, stop_on_success=True),
    "apgd": APGD(threat=Linf(1 / 255), steps=9, restarts=2),
    "apgd in L1": APGD(threat=L1(1.0), steps=9),
    "fab": FAB(threat=Linf(1 / 255), steps=3, targets=2),
    "square": Square(threat=Linf(2 / 255), steps=20),
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", SEARCHES)
def test_to_look_seldom_changes_no_bit(name: str, precision: str):
    """Nor do neighbours, where a step in one precision waits for steps in the other."""
    x = torch.rand(30, 3, 8, 8)
    model = lively(small_net(), x)
    with torch.no_grad():
        y = model(x).argmax(1)
    given, attack = TensorExamples(x, y, torch.arange(30)), SEARCHES[name]
    often = Engine(batch_size=8, precision=precision).run(attack, model, given)
    assert 0 < often.correct.sum() < 30
    seldom = Engine(batch_size=8, precision=precision, look_every=5).run(attack, model, given)
    torch.testing.assert_close(seldom._asdict(), often._asdict(), rtol=0, atol=0, equal_nan=True)
    kept = torch.tensor([28, 3, 4, 17, 9])
    few = TensorExamples(x[kept], y[kept], kept)
    alone = Engine(batch_size=8, precision=precision).run(attack, model, few)
    expected = {name: value[kept] for name, value in often._asdict().items()}
    torch.testing.assert_close(alone._asdict(), expected, rtol=0, atol=0, equal_nan=True)


def test_the_last_quarter_of_apgd_is_exact():
    """Whoever stands has met float32 in it, and bfloat16 before."""
    x = torch.rand(8, 3, 8, 8)
    model = lively(small_net(), x)
    dtypes: list[torch.dtype] = []
    model[0].register_forward_hook(lambda _module, _args, out: dtypes.append(out.dtype))
    with torch.no_grad():
        y = model(x).argmax(1)
    dtypes.clear()
    attack = APGD(threat=Linf(1e-4), steps=20)
    outcome = Engine(batch_size=8, precision="bfloat16").run(attack, model, TensorExamples(x, y, torch.arange(8)))
    assert outcome.correct.all()
    searched = dtypes[4:-1]
    assert searched == [torch.bfloat16] * (1 + 16) + [torch.float32] * 5  # the image itself, steps 0 to 15, 16 to 20
    assert (outcome.forwards == 1 + 21 + 1).all()


def test_who_stands_by_a_hair_after_bfloat16_is_attacked_again_in_float32(monkeypatch: pytest.MonkeyPatch):
    """With the same random numbers, so to the same image; and nobody else is."""
    eps = 0.1
    model, given = Blurred(eps), Blurred.images(grey=6, spotted=2)
    suite = Blurred.suite(eps)
    grey_fall = torch.tensor([False] * 6 + [True] * 2)
    exact = Engine(batch_size=4).run(suite, model, given)
    assert torch.equal(exact.correct, grey_fall)

    sweeps: list[Sweep] = []
    outcome = Engine(batch_size=4, precision="bfloat16").run(suite, model, given, watch=sweeps.append)
    assert torch.equal(outcome.correct, grey_fall)
    assert torch.equal(outcome.x_adv[:6], exact.x_adv[:6])
    assert (outcome.broken_by == torch.tensor([0] * 6 + [-1] * 2)).all()
    again = [(int(sweep.member), bool(sweep.again)) for sweep in sweeps]
    assert again == sorted(again, key=lambda at: at[::-1]) and set(again) == {(0, False), (1, False), (0, True)}
    apgd, square = outcome.spent.unbind(1)
    once = torch.tensor([42 + 1, 42])  # with a verdict
    assert torch.equal(apgd[:6], once + exact.spent[:6, 0]) and (apgd[6:] == once).all()
    assert (square[:, 0] == suite.attacks[1].queries + 1).all(), "Square knows no last steps"

    monkeypatch.setattr("awnet.attacks.sweep.NEAR", 0.0)
    assert Engine(batch_size=4, precision="bfloat16").run(suite, model, given).correct.all(), "nothing was missed"


def test_who_is_furthest_from_the_boundary_begins_first():
    """In a suite, where margins are known: what takes longest is not left for the end."""
    x = torch.rand(24, 3, 8, 8)
    model = lively(small_net(), x)
    with torch.no_grad():
        logits = model(x)
    y = logits.argmax(1)
    seen: list[Tensor] = []
    suite = Suite(members=(("walk", Square(threat=Linf(1e-4), steps=3)),))
    handle = model.register_forward_pre_hook(lambda _module, args: seen.append(args[0].detach().clone()))
    Engine(batch_size=8).run(suite, model, TensorExamples(x, y, torch.arange(24)))
    handle.remove()
    hardest = (Margin()(logits, y) / logits.abs().amax(1)).argsort()[:8]
    assert torch.equal(seen[4], x[hardest])  # after a look at the first images, and one at all


class OfConvolutions(torch.nn.Module):
    """A network whose logits are what a convolution says, in whatever precision that is."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(x).relu()).mean((2, 3))


@pytest.mark.parametrize(
    "attack",
    [APGD(threat=Linf(0.002), steps=12), PGD(threat=Linf(0.002), steps=4), Square(threat=Linf(0.002), steps=8)],
    ids=["apgd", "pgd", "square"],
)
def test_a_search_in_bfloat16_takes_answers_as_exactly_as_images(attack):
    """Part of a batch of APGD is asked in float32; losses in two precisions could not stand side by side."""
    torch.manual_seed(0)
    model, x = OfConvolutions().eval(), torch.rand(12, 3, 12, 12)
    with torch.no_grad():
        y = model(x).argmax(1)
    outcome = Engine(batch_size=5, precision="bfloat16").run(attack, model, TensorExamples(x, y, torch.arange(12)))
    assert attack.threat.contains(x, outcome.x_adv).all()
    query = Gradient(x, lambda logits: logits.sum(1))
    with torch.autocast("cpu", torch.bfloat16):
        assert model(x).dtype == torch.bfloat16
        answer, seen = evaluate(model, query), evaluate(model, Forward(x))
    assert answer.logits.dtype == answer.loss.dtype == seen.logits.dtype == torch.float32


class Views(nn.Module):
    """Flattens as many networks do, which only the usual layout allows."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.view(len(x), -1).view(x.shape))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_network_that_uses_view_is_attacked_in_the_usual_layout(precision: str):
    x, model = torch.rand(20, 3, 8, 8), Views()
    lively(model.net, x)
    with torch.no_grad():
        given = TensorExamples(x, model(x).argmax(1), torch.arange(20))
    attack, told = APGD(threat=Linf(1 / 255), steps=4), list[str]()
    outcome = Engine(batch_size=8, precision=precision).run(attack, model, given, warn=told.append)
    usual = Engine(batch_size=8, precision=precision, channels_last=False).run(attack, model, given)
    assert all(torch.equal(a, b) for a, b in zip(outcome[:3], usual[:3], strict=True))
    assert told == [
        "the network cannot read images with channels last in memory (does it use .view?): they have the usual layout"
    ]
    assert Engine(batch_size=8).predict(model, given).correct.all()
    with Engine(batch_size=8).asking(attack, model, given) as ask:
        ask()
