"""What every attack must do, whatever it is: all that are registered, the expensive ones with few steps.

An attack that is registered gets these tests for free; `pytest -k name` runs those of one attack.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attacks.nets import lively, small_net
from awnet.attacks import (
    APGD,
    ATTACKS,
    EOT,
    FAB,
    PGD,
    Attack,
    Diversified,
    Engine,
    Outcome,
    RayS,
    Square,
    Steer,
    Suite,
    TensorExamples,
    frozen_for_attack,
)
from awnet.attacks.attack import evaluate
from awnet.config import from_json, to_json
from awnet.conformance.traces import traces
from awnet.models.awnet import AWNetConfig
from awnet.models.model import Decision, create
from awnet.models.resnet import ResNetConfig
from awnet.noise import Noise
from awnet.threat_model import L1, L2, Linf, ThreatModel

SUITES = {"aa", "aa-plus", "aa-rand", "adaptive"}
WITHOUT_CHANCE = {"fgsm", "fab-t", "rays"}  # the same with every seed

SMALL = [Linf(8 / 255), L2(0.5), L1(3.0)]
BUDGETS = [*SMALL, Linf(0.28), Linf(0), L2(0), L1(0)]


def shortened(attack: Attack | Suite) -> Attack | Suite:
    """The same attack with few steps, where it would take long."""
    if isinstance(attack, Suite):
        return Suite(members=tuple((name, of(member)) for name, member in attack.members))
    if isinstance(attack, APGD):
        return replace(attack, steps=6, targets=min(attack.targets, 2), restarts=1)
    if isinstance(attack, Diversified):
        return replace(attack, start_steps=2, steps=4, restarts=2)
    if isinstance(attack, Steer):
        return replace(attack, steps=2, then=2, targets=1, restarts=1)
    if isinstance(attack, EOT):
        return replace(attack, attack=replace(attack.attack, steps=3), samples=2)
    if isinstance(attack, FAB):
        return replace(attack, steps=5, targets=2, restarts=1)
    return replace(attack, steps=8) if isinstance(attack, (Square, RayS)) else attack


def of(attack: Attack | Suite) -> Attack:
    short = shortened(attack)
    assert isinstance(short, Attack)
    return short


def made(name: str, threat: ThreatModel) -> Attack | Suite:
    return shortened(ATTACKS[name](threat))


LONGER = {"adaptive-twice"}  # shortened, attacks that are here under another name
each_attack = pytest.mark.parametrize("name", [name for name in ATTACKS if name not in LONGER])
each_by_itself = pytest.mark.parametrize("name", sorted(set(ATTACKS) - SUITES - LONGER))
each_threat = pytest.mark.parametrize("threat", SMALL, ids=str)
each_budget = pytest.mark.parametrize("threat", BUDGETS, ids=str)


class Mixed(nn.Module):
    """A network in the middle of somebody's fine-tuning: two parts in eval, one frozen, gradients here and there."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8 * 16, 5)
        self.register_buffer("temperature", torch.tensor(0.7))
        self.offset = torch.zeros(5, requires_grad=True)  # somebody forgot to make it a parameter

    forms = ("clean",)

    def forward(self, x: Tensor) -> Tensor:
        return self.decide(x, x, "", torch.zeros(len(x), dtype=torch.bool)).logits

    def decide(self, x: Tensor, seen: Tensor, form: str, forced: Tensor) -> Decision:
        """With a sort of router, which those attacks meet that look for one."""
        log_odds = self.stem(seen).mean((1, 2, 3))
        p = torch.where(forced, 1.0, log_odds.sigmoid())[:, None]
        features = self.body(self.stem(x)).flatten(1)
        return Decision(self.head(p * features) / self.get_buffer("temperature") + self.offset, log_odds)


@pytest.fixture
def mixed() -> Mixed:
    model = Mixed().train()
    model.body.eval()
    model.stem[3].eval()
    model.body[0].requires_grad_(False)
    model.head.bias.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    model.stem[0].register_forward_hook(lambda *_: None)
    return model


@pytest.fixture
def x() -> Tensor:
    """Six images; of the first four some pixels are black or white."""
    x = torch.rand(6, 3, 8, 8)
    x[:4] = (2 * x[:4] - 0.5).clamp(0, 1)
    return x


@pytest.fixture
def y() -> Tensor:
    return torch.tensor([0, 1, 2, 3, 4, 0])


@each_attack
@each_budget
def test_stays_in_the_threat_model(name: str, threat: ThreatModel, mixed: Mixed, x: Tensor, y: Tensor):
    attack = made(name, threat)
    x_adv = attack(mixed, x, y)
    assert x_adv.shape == x.shape and x_adv.dtype == x.dtype
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    delta = (x_adv - x).double().flatten(1)
    distance = delta.norm(dim=1, p={Linf: torch.inf, L2: 2, L1: 1}[type(threat)])
    assert (distance <= threat.eps * (1 + 1e-6) + 1e-6).all()
    if threat.eps == 0:
        assert torch.equal(x_adv, x)
    elif isinstance(attack, PGD) and not (isinstance(threat, L1) and (attack.steps == 1 or attack.initial == "step")):
        # the others leave an image alone that is misclassified, and one step in L1 moves one pixel
        assert (distance > threat.eps / 4).all()


@each_attack
@pytest.mark.parametrize("by", ["call", "engine", "engine in bfloat16"])
def test_leaves_no_trace(name: str, by: str, mixed: Mixed, x: Tensor, y: Tensor):
    attack = made(name, Linf(8 / 255))
    ids = torch.arange(6)
    x_was, y_was, versions = x.clone(), y.clone(), (x._version, y._version)
    before = traces(mixed)
    if by == "call":
        result = [attack(mixed, x, y)]
    else:
        engine = Engine(batch_size=8, precision="bfloat16" if "bfloat16" in by else "float32")
        result = list(engine.run(attack, mixed, TensorExamples(x, y, ids)))
    after = traces(mixed)
    for what, value in before.items():
        assert after[what] == value, what
    assert after.keys() == before.keys()
    assert torch.equal(x, x_was) and torch.equal(y, y_was) and torch.equal(ids, torch.arange(6))
    assert (x._version, y._version) == versions, "edited in place and put back"
    assert not x.requires_grad and x.grad is None
    assert all(not t.requires_grad and t.grad_fn is None for t in result)
    assert all(t.data_ptr() != x.data_ptr() for t in result), "a result shares memory with the images"


def test_leaves_an_input_that_requires_gradients_alone(mixed: Mixed, x: Tensor, y: Tensor):
    x.requires_grad_()
    x_adv = PGD(threat=Linf(0.1), steps=2)(mixed, x, y)
    assert x.requires_grad and x.grad is None and not x_adv.requires_grad


@each_attack
def test_the_seed_and_nothing_else_decides(name: str, mixed: Mixed, x: Tensor):
    attack = made(name, Linf(8 / 255))
    with frozen_for_attack(mixed), torch.no_grad():
        y = mixed(x).argmax(1)  # something to do for everybody
    first = attack(mixed, x, y, seed=7)
    torch.manual_seed(123)
    torch.rand(10)
    assert torch.equal(attack(mixed, x, y, seed=7), first)
    assert torch.equal(attack(mixed, x, y, seed=8), first) == (name in WITHOUT_CHANCE)
    assert torch.equal(attack(mixed, x, y, seed=7, ids=torch.arange(6) + 1), first) == (name in WITHOUT_CHANCE)


def digest_of_some_attacks() -> str:
    """A name for the results of attacks on a fixed network, to compare between processes."""
    torch.manual_seed(0)
    model, x = small_net(classes=5), torch.rand(6, 3, 8, 8)
    y = torch.tensor([0, 1, 2, 3, 4, 0])
    some = [made(name, Linf(8 / 255)) for name in ("pgd-sat", "aa")] + [
        made("pgd-trades", L2(0.5)),
        made("aa", L1(3.0)),
    ]
    return hashlib.sha256(b"".join(attack(model, x, y, seed=3).numpy().tobytes() for attack in some)).hexdigest()


def test_another_process_comes_to_the_same_result():
    tests = Path(__file__).parents[1]
    program = "import sys, torch; sys.path[:0] = sys.argv[1:]; torch.set_num_threads(int(sys.argv.pop()))\n"
    program += "from attacks.test_contracts import digest_of_some_attacks\nprint(digest_of_some_attacks())"
    other = subprocess.run(
        [sys.executable, "-c", program, str(tests), str(tests.parent), str(torch.get_num_threads())],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert other.returncode == 0, other.stderr
    assert other.stdout.strip() == digest_of_some_attacks()


@each_attack
@each_threat
def test_is_a_frozen_value(name: str, threat: ThreatModel):
    attack = made(name, threat)
    assert attack == made(name, threat) and hash(attack) == hash(made(name, threat))
    assert attack != made(name, type(threat)(0.01))
    for field in fields(attack):  # pyright: ignore[reportArgumentType]
        with pytest.raises(FrozenInstanceError):
            setattr(attack, field.name, None)
    assert isinstance(attack, Suite) or attack.queries >= 1


@pytest.mark.parametrize("name", ATTACKS)
@each_threat
def test_survives_json(name: str, threat: ThreatModel):
    attack = ATTACKS[name](threat)
    text = json.dumps(to_json(attack), allow_nan=False)
    assert from_json(json.loads(text), type(attack)) == attack == attack.within(threat)
    assert from_json(json.loads(text)) != ATTACKS[name](type(threat)(0.01))


@each_attack
def test_attacks_a_module_without_parameters(name: str, x: Tensor, y: Tensor):
    class Plain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3)) @ torch.eye(3, 5)

    attack = made(name, Linf(8 / 255))
    outcome = Engine(batch_size=8).run(attack, Plain(), TensorExamples(x, y, torch.arange(6)))
    assert attack.threat.contains(x, outcome.x_adv).all()
    assert torch.equal(outcome.prediction, Plain()(outcome.x_adv).argmax(1))


@each_by_itself
@each_threat
def test_is_done_when_it_has_had_its_queries(name: str, threat: ThreatModel, x: Tensor, y: Tensor):
    """And not before, unless it stops on success: it then gets as many at most. FAB asks less where it never crosses."""
    attack, noise = of(made(name, threat)), Noise(0, torch.arange(6))
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    with torch.no_grad():
        state = attack.start(x, y, noise)
        for _ in range(attack.queries):
            assert not attack.done(state).any() or name == "fab-t"
            assert attack.threat.contains(x, attack.adversarial(state)).all(), "its answer is allowed at any time"
            state = attack.update(state, evaluate(model, attack.query(state)), noise)
        assert attack.done(state).all()


@each_attack
@each_threat
def test_the_engine_equals_the_definition(name: str, threat: ThreatModel, x: Tensor, y: Tensor):
    """At one shape and memory layout bit for bit; at another batch size the first images still agree to rounding."""
    attack = made(name, threat)
    model = lively(small_net(classes=5), x)
    ids = torch.arange(6) + 40
    lockstep = attack(model, x, y, seed=2, ids=ids)
    outcome = Engine(batch_size=6, channels_last=False).run(attack, model, TensorExamples(x, y, ids), seed=2)
    assert torch.equal(outcome.x_adv, lockstep)
    with torch.no_grad():
        assert torch.equal(outcome.prediction, model(lockstep).argmax(1))
    if isinstance(attack, Attack):
        assert (outcome.forwards <= attack.queries + 1).all()
        assert attack.stop_on_success or (outcome.forwards == attack.queries + 1).all()


def agree(ours: Outcome, theirs: Outcome) -> None:
    torch.testing.assert_close(ours._asdict(), theirs._asdict(), rtol=0, atol=0, equal_nan=True)


def rows(outcome: Outcome, index: Tensor | slice) -> Outcome:
    return Outcome(*(t[index] for t in outcome))


@each_attack
def test_neighbours_change_no_bit(name: str, x: Tensor, y: Tensor):
    """Some examples dropped, the others in another order, and strangers before them, all at once."""
    attack = made(name, Linf(8 / 255))
    model = lively(small_net(classes=5), x)
    engine = Engine(batch_size=4)
    outcome = engine.run(attack, model, TensorExamples(x, y, torch.arange(6)), seed=1)
    kept = torch.tensor([5, 2, 3, 0])
    strangers = torch.rand(3, 3, 8, 8), y[:3], torch.arange(900, 903)
    mixed = (torch.cat([a, b[kept]]) for a, b in zip(strangers, (x, y, torch.arange(6)), strict=True))
    agree(rows(engine.run(attack, model, TensorExamples(*mixed), seed=1), slice(3, None)), rows(outcome, kept))


NETWORKS = {
    "resnet": lambda: create(ResNetConfig(width=8), classes=10),
    "awnet": lambda: create(AWNetConfig().narrow(), classes=10),
}


@pytest.mark.parametrize(("threat", "stop_on_success"), [(Linf(1 / 255), True), (L2(0.05), False)], ids=str)
@pytest.mark.parametrize("network", NETWORKS)
def test_neighbours_of_a_residual_network_change_no_bit(network: str, threat: ThreatModel, stop_on_success: bool):
    x = torch.rand(9, 3, 8, 8)
    model = lively(NETWORKS[network](), x)
    with torch.no_grad():
        y = model(x).argmax(1)
    attack = PGD(threat=threat, steps=3, step_size=1 / 2, stop_on_success=stop_on_success)
    engine, ids = Engine(batch_size=4), torch.arange(9)
    outcome = engine.run(attack, model, TensorExamples(x, y, ids), seed=1)
    assert 0 < outcome.correct.sum() < 9, "an attack that always or never succeeds shows nothing"

    order = torch.randperm(9)
    permuted = engine.run(attack, model, TensorExamples(x[order], y[order], ids[order]), seed=1)
    agree(permuted, rows(outcome, order))

    half = order[::2]
    agree(engine.run(attack, model, TensorExamples(x[half], y[half], ids[half]), seed=1), rows(outcome, half))

    strangers = torch.rand(3, 3, 8, 8), y[:3], torch.arange(900, 903)
    more = (torch.cat([a, b]) for a, b in zip(strangers, (x, y, ids), strict=True))
    agree(rows(engine.run(attack, model, TensorExamples(*more), seed=1), slice(3, None)), outcome)


@pytest.mark.parametrize("threat", [Linf(1 / 255), L2(0.05)], ids=str)
@pytest.mark.parametrize("network", NETWORKS)
def test_another_batch_size_changes_rounding_only(
    network: str, threat: ThreatModel, record_property: Callable[[str, object], None]
):
    """Kernels may differ between shapes, so x_adv agrees to 1e-4 and verdicts may differ where classes nearly tie.

    A pixel whose gradient is nearly 0 may get another sign and so be a step or two away: at most 1 % of them.
    """
    x = torch.rand(10, 3, 8, 8)
    model = lively(NETWORKS[network](), x)
    with torch.no_grad():
        y = model(x).argmax(1)
    attack = PGD(threat=threat, steps=3, step_size=1 / 2)
    examples = TensorExamples(x, y, torch.arange(10))
    reference = Engine(batch_size=16).run(attack, model, examples)
    assert 0 < reference.correct.sum() < 10, "an attack that always or never succeeds shows nothing"
    differing = 0
    for batch_size in (1, 3, 7):
        outcome = Engine(batch_size=batch_size).run(attack, model, examples)
        far = ((outcome.x_adv - reference.x_adv).abs() > 1e-4).float().mean()
        assert far <= 0.01, f"batches of {batch_size}: {far:.2%} of the pixels differ"
        differ = outcome.correct != reference.correct
        differing += int(differ.sum())
        with torch.no_grad():
            top = model(reference.x_adv[differ]).topk(2, dim=1).values
        assert ((top[:, 0] - top[:, 1]) < 1e-2).all(), f"batches of {batch_size}: a clear verdict differs"
    record_property("verdicts that differ between batch sizes", differing)


@pytest.mark.parametrize(
    "leave",
    [
        lambda model: model.eval(),
        lambda model: model.body.train(),
        lambda model: model.requires_grad_(True),
        lambda model: model.stem[1](torch.rand(2, 8, 4, 4)),  # its running statistics move
        lambda model: model.zero_grad(),
        lambda model: model.offset.sum().backward(),
        lambda model: model.head.weight.grad.zero_(),
        lambda model: model(torch.rand(2, 3, 8, 8)).sum().backward(),
        lambda model: model.get_buffer("temperature").mul_(1),
        lambda model: model.head.register_forward_hook(lambda *_: None),
        lambda model: setattr(model, "last_x", torch.rand(2)),
        lambda model: torch.rand(1),
    ],
)
def test_every_trace_is_seen(leave: Callable[[Mixed], object], mixed: Mixed):
    before = traces(mixed)
    assert traces(mixed) == before
    leave(mixed)
    assert traces(mixed) != before
