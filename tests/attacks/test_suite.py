"""A suite: its members take turns on who still stands, it goes on where it was, and AutoAttack is one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attacks.conftest import Trained
from attacks.nets import Blurred, lively, small_net
from awnet.attacks import APGD, ATTACKS, FAB, PGD, Engine, Outcome, Square, Suite, Sweep, TensorExamples, auto_attack
from awnet.errors import Mistake
from awnet.evaluation.journal import Journal
from awnet.losses import DLR, CrossEntropy, TargetedDLR
from awnet.noise import fold
from awnet.threat_model import L1, L2, Linf

EPS = Linf(0.12)
SUITE = Suite(
    members=(
        ("pgd", PGD(threat=EPS, steps=3, stop_on_success=True)),
        ("apgd-t", APGD(threat=EPS, loss=TargetedDLR(), targets=2, steps=6)),
        ("fab-t", FAB(threat=EPS, targets=2, steps=4)),
        ("square", Square(threat=EPS, steps=15)),
    )
)


def some(digits: Trained, n: int, wrong: int = 0) -> TensorExamples:
    """Images, the first of them with a label that is not theirs."""
    y = digits.y[:n].clone()
    y[:wrong] = (y[:wrong] + 1) % 10
    return TensorExamples(digits.x[:n], y, torch.arange(n) + 100)


def test_members_meet_who_still_stands(digits: Trained):
    """Each with the seed fold(seed, place), and nobody twice who is broken."""
    examples, engine = some(digits, 40, wrong=3), Engine(batch_size=8)
    outcome = engine.run(SUITE, digits.model, examples, seed=5)
    stands = torch.arange(40) >= 3
    assert (outcome.forwards[:3] == 1).all() and not outcome.backwards[:3].any()
    assert torch.equal(outcome.x_adv[:3], examples.x[:3]) and not outcome.correct[:3].any()
    forwards, backwards = (~stands).long() + stands, torch.zeros(40, dtype=torch.int64)
    for place, (name, attack) in enumerate(SUITE.members):
        assert stands.any(), "nothing left to show"
        met = stands.nonzero()[:, 0]
        alone = engine.run(
            attack,
            digits.model,
            TensorExamples(examples.x[met], examples.y[met], examples.ids[met]),
            seed=fold(5, place),
        )
        assert torch.equal(outcome.spent[met, place, 0], alone.forwards), name
        assert torch.equal(outcome.spent[met, place, 1], alone.backwards)
        assert not outcome.spent[~stands, place].any()
        forwards[met] += alone.forwards
        backwards[met] += alone.backwards
        broken = met[~alone.correct]
        assert (outcome.broken_by[broken] == place).all()
        assert torch.equal(outcome.x_adv[broken], alone.x_adv[~alone.correct])
        stands = stands.clone()
        stands[broken] = False
    assert torch.equal(outcome.correct, stands) and (outcome.broken_by[stands] == -1).all()
    assert torch.equal(outcome.x_adv[stands], alone.x_adv[alone.correct]), "as the last one left it"
    assert torch.equal(outcome.forwards, forwards) and torch.equal(outcome.backwards, backwards)
    assert outcome.broken_by.unique().numel() > 2, "one member did everything"


@pytest.mark.parametrize("n", [0, 1, 5])
def test_nothing_to_do(n: int, digits: Trained):
    """No examples, and examples that are all misclassified as they are."""
    examples = some(digits, n, wrong=n)
    outcome = Engine(batch_size=4).run(SUITE, digits.model, examples)
    assert not outcome.correct.any() and (outcome.forwards == 1).all() and not outcome.backwards.any()
    assert (outcome.broken_by == -1).all() and outcome.spent.shape == (n, 4, 2) and not outcome.spent.any()
    assert torch.equal(outcome.x_adv, examples.x)


def test_the_search_of_a_member_may_be_exact(digits: Trained):
    """In one suite some members search in bfloat16, FAB in float32."""
    seen: list[torch.dtype] = []
    handle = digits.model[0].register_forward_hook(lambda _module, _args, out: seen.append(out.dtype))
    try:
        suite = Suite(members=(("pgd", PGD(threat=Linf(0.01), steps=3)), ("fab-t", FAB(threat=Linf(0.01), steps=2))))
        Engine(batch_size=4, precision="bfloat16").run(suite, digits.model, some(digits, 4))
    finally:
        handle.remove()
    float32, bfloat16 = torch.float32, torch.bfloat16
    seen = seen[4:]  # it has been looked at four times
    assert seen[:5] == [float32, bfloat16, bfloat16, bfloat16, float32] and set(seen[5:]) == {float32}


@pytest.mark.parametrize("name", SUITE.names)
def test_slots_are_refilled_as_examples_finish(name: str, digits: Trained):
    """Attacks of every kind, by themselves: no slot waits while there are examples."""
    attack, n, b = dict(SUITE.within(Linf(0.15)).members)[name], 40, 8
    sizes: list[int] = []
    turns: list[tuple[int, int]] = []  # how many had begun, and the batch
    handle = digits.model[0].register_forward_hook(lambda _module, args, _out: sizes.append(len(args[0])))
    try:
        outcome = Engine(batch_size=b).run(
            attack, digits.model, some(digits, n), watch=lambda sweep: turns.append((int(sweep.begun), sizes[-1]))
        )
    finally:
        handle.remove()
    searched = outcome.forwards - 1  # the verdict is the last
    assert {size for begun, size in turns if begun < n} == {b} and max(sizes) == b
    assert 0 < outcome.correct.sum() < n
    if name != "fab-t":  # which asks less where it never crosses
        assert (searched[outcome.correct] == attack.queries).all(), "who is not hit has spent all queries"
    assert torch.equal(outcome.broken_by, outcome.correct.long() * -1), "an attack by itself is the first of one"
    assert torch.equal(outcome.spent[:, 0, 0], outcome.forwards)
    assert torch.equal(outcome.spent[:, 0, 1], outcome.backwards)
    # so that the search lasts no longer than this; waves of 8 in lockstep would
    waves = [int(wave.amax()) for wave in searched.split(b)]
    assert len(turns) <= min(int(searched.sum()) / b + attack.queries, sum(waves))


def agree(ours: Outcome, theirs: Outcome) -> None:
    torch.testing.assert_close(ours._asdict(), theirs._asdict(), rtol=0, atol=0, equal_nan=True)


class Stop(Exception):
    """What a test interrupts a run with."""


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_it_goes_on_where_it_was(share: float, digits: Trained, tmp_path: Path):
    """From the journal's file, in the middle of whichever member: the very same images, costs and breakers."""
    suite = SUITE.within(Linf(0.09))
    engine, given = Engine(batch_size=8), some(digits, 20, wrong=2)
    turns: list[int] = []
    whole = engine.run(suite, digits.model, given, watch=lambda sweep: turns.append(int(sweep.member)))
    assert set(turns) == {0, 1, 2, 3}
    journal = Journal(tmp_path / "journal", "a suite", 60.0)
    seen: list[int] = []

    def stop(sweep: Sweep) -> None:
        seen.append(int(sweep.member))
        if len(seen) == max(int(share * len(turns)), 1):
            journal.write(sweep)
            raise Stop

    with pytest.raises(Stop):
        engine.run(suite, digits.model, given, watch=stop)
    sweep = journal.recall(lambda member: engine.begin(suite, digits.model, given, member=member))
    assert int(sweep.member) == seen[-1]
    asked: list[int] = []
    resumed = engine.run(suite, digits.model, given, sweep=sweep, watch=lambda sweep: asked.append(int(sweep.member)))
    agree(resumed, whole)
    assert len(asked) == len(turns) - len(seen), "nothing is done twice"


def test_it_goes_on_where_an_attack_is_made_again(tmp_path: Path):
    """In float32, on those who stand by a hair after bfloat16."""
    suite = Blurred.suite(0.1)
    model, engine = Blurred(0.1), Engine(batch_size=4, precision="bfloat16")
    given = Blurred.images(grey=6, spotted=2)
    whole = engine.run(suite, model, given)
    assert whole.correct.tolist() == [False] * 6 + [True] * 2
    journal = Journal(tmp_path / "journal", "a suite", 60.0)

    def stop(sweep: Sweep) -> None:
        if sweep.again and sweep.passes[:, 0].max() > 42:
            journal.write(sweep)
            raise Stop

    with pytest.raises(Stop):
        engine.run(suite, model, given, watch=stop)
    sweep = journal.recall(lambda member: engine.begin(suite, model, given, member=member))
    assert sweep.again and not sweep.left.all()
    agree(engine.run(suite, model, given, sweep=sweep), whole)


def test_a_failure_leaves_the_modes_as_they_were():
    x = torch.rand(4, 3, 8, 8)
    model = lively(small_net(), x).train()
    with torch.no_grad():
        examples = TensorExamples(x, model(x).argmax(1), torch.arange(4))

    def watch(sweep: Sweep) -> None:
        raise Stop

    with pytest.raises(Stop):
        Engine(batch_size=2).run(replace(SUITE), model, examples, watch=watch)
    Engine(batch_size=2).run(SUITE, model, examples)
    assert all(module.training for module in model.modules()) and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("classes", [2, 3])
def test_autoattack_on_few_classes(classes: int):
    """Where DLR is not defined: everybody still does something, and finds the closed form's worst case."""
    x = 0.3 + 0.4 * torch.rand(12, 3, 4, 4)
    weights = torch.randn(classes, 48)

    class Linear(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - 0.5).flatten(1) @ weights.T

    with torch.no_grad():
        logits = Linear()(x)
        y = logits.argmax(1)
    gaps = logits.gather(1, y[:, None]) - logits  # the worst case lowers each of them by eps |w_y - w_k|_1
    reach = (weights[y][:, None] - weights).abs().sum(2)
    nearest = torch.where(reach > 0, gaps / reach, torch.inf).amin(1)
    eps = float(nearest.median())
    suite = Suite(members=tuple((n, quick(a)) for n, a in auto_attack(Linf(eps)).members))
    outcome = Engine(batch_size=4).run(suite, Linear(), TensorExamples(x, y, torch.arange(12)))
    clear = (nearest - eps).abs() > 1e-4
    assert torch.equal(outcome.correct[clear], nearest[clear] > eps)


def quick(attack):
    return replace(attack, steps=30) if isinstance(attack, (APGD, FAB, Square)) else attack


def test_the_settings_of_autoattack():
    for threat in (Linf(8 / 255), L2(0.5)):
        ce, t, fab, square = auto_attack(threat).attacks
        assert auto_attack(threat).names == ("apgd-ce", "apgd-t", "fab-t", "square")
        assert ce == APGD(threat=threat, loss=CrossEntropy(), steps=100, restarts=1, rho=0.75)
        assert t == APGD(threat=threat, loss=TargetedDLR(), targets=9, steps=100, restarts=1)
        assert fab == FAB(threat=threat, targets=9, steps=100, restarts=1, alpha=0.1, eta=1.05, beta=0.9)
        assert square == Square(threat=threat, steps=5000, p=0.8, rescale=False)
        assert all(attack.stop_on_success for attack in auto_attack(threat, "plus").attacks)
    in_l1 = dict(auto_attack(L1(12)).members)
    assert in_l1["apgd-ce"] == APGD(threat=L1(12), restarts=5)
    assert in_l1["apgd-t"] == APGD(threat=L1(12), loss=TargetedDLR(), targets=5)
    plus = dict(auto_attack(EPS, "plus").members)
    assert plus["apgd-dlr"] == APGD(threat=EPS, loss=DLR(), restarts=5) and plus["apgd-ce"] == APGD(
        threat=EPS, restarts=5
    )
    assert plus["fab-t"] == FAB(threat=EPS, restarts=5)
    assert ATTACKS["aa"](EPS) == auto_attack(EPS)
    own = auto_attack(EPS, ("square", "pgd-sat"))
    assert own.members == (("square", ATTACKS["square"](EPS)), ("pgd-sat", ATTACKS["pgd-sat"](EPS)))


def test_what_cannot_be_a_suite():
    with pytest.raises(Mistake, match="at least one attack"):
        Suite(members=())
    with pytest.raises(Mistake, match=r"got a, a in Linf 0.1$"):
        Suite(members=(("a", PGD(threat=Linf(0.1))), ("a", PGD(threat=Linf(0.1)))))
    with pytest.raises(Mistake, match=r"got a, b in L2 0.1 and Linf 0.1$"):
        Suite(members=(("a", PGD(threat=Linf(0.1))), ("b", PGD(threat=L2(0.1)))))
    with pytest.raises(Mistake, match=r"no version of AutoAttack is named 'standrad'; did you mean standard or rand\?"):
        auto_attack(EPS, "standrad")
    with pytest.raises(Mistake, match="no attack is named 'apgd-tt'"):
        auto_attack(EPS, ("apgd-tt",))
    with pytest.raises(Mistake, match="aa is a suite itself"):
        auto_attack(EPS, ("aa", "square"))
