"""The class in the reference's clothes: its interface, our engine's results, and the reference beside it where there is one.

The last needs a checkout of https://github.com/fra31/auto-attack, whose folder AWNET_REFERENCE_AUTOATTACK names.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import awnet
from attacks.nets import lively, small_net
from awnet.attacks import APGD, EOT, FAB, Engine, Square, TensorExamples, auto_attack
from awnet.checkpoint import read_state, save_state
from awnet.errors import Mistake
from awnet.evaluation.drop_in import AutoAttack
from awnet.losses import DLR, TargetedDLR
from awnet.models import AWNet, Knob, create
from awnet.models.model import device_of
from awnet.models.resnet import ResNetConfig
from awnet.threat_model import L1, L2, Linf, ThreatModel
from models.randomised import unsettle
from training.tiny import DYNAMIC

N, EPS = 16, 0.008


@pytest.fixture
def x() -> Tensor:
    return torch.rand(N, 3, 8, 8)


@pytest.fixture
def model(x: Tensor) -> nn.Module:
    return lively(small_net(), x)


@pytest.fixture
def y(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = model(x).argmax(1)
    y[:2] = (y[:2] + 1) % 10  # two are wrong from the start
    return y


def short(adversary: Any, attacks: list[str] | None = None) -> Any:
    """With few steps, whosever class it is."""
    adversary.attacks_to_run = attacks or adversary.attacks_to_run
    adversary.apgd.n_iter = adversary.apgd_targeted.n_iter = 4
    adversary.fab.n_iter, adversary.square.n_queries = 4, 15
    adversary.apgd_targeted.n_target_classes = adversary.fab.n_target_classes = 2
    return adversary


def ours(model: Any, **given: Any) -> AutoAttack:
    return short(AutoAttack(model, **{"eps": EPS, "device": "cpu", "verbose": False, **given}))


def test_it_is_at_the_top():
    assert awnet.AutoAttack is AutoAttack


def test_the_interface_is_that_of_the_reference():
    names = ", ".join(inspect.signature(AutoAttack).parameters)
    assert names == "model, norm, eps, seed, verbose, attacks_to_run, version, is_tf_model, device, log_path"
    run = inspect.signature(AutoAttack.run_standard_evaluation).parameters
    assert {name: p.default for name, p in run.items() if p.default is not inspect.Parameter.empty} == {
        "bs": 250, "return_labels": False, "state_path": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("version", "threat"),
    [
        ("standard", Linf(EPS)),
        ("standard", L2(0.3)),
        ("standard", L1(3.0)),
        ("plus", Linf(EPS)),
        ("plus", L2(0.3)),
        ("plus", L1(3.0)),
        ("rand", Linf(EPS)),
    ],
    ids=str,
)
def test_a_version_is_our_suite(version: str, threat: ThreatModel, model: nn.Module):
    adversary = AutoAttack(model, norm=type(threat).__name__, eps=threat.eps, version=version, verbose=False)
    suite, mine = auto_attack(threat, version), adversary._suite(adversary.attacks_to_run)
    members = {name.replace("fab-t", "fab") if version == "plus" else name: attack for name, attack in suite.members}
    assert dict(mine.members) == members


def test_a_function_lies_where_its_images_do(model: nn.Module):
    """What weights it has cannot be seen, and images elsewhere would not meet them."""
    adversary = AutoAttack(model.forward, norm="Linf", eps=EPS, verbose=False)
    away = torch.empty(2, 3, 8, 8, device="meta")
    assert device_of(adversary._module(away)) == away.device
    assert device_of(adversary._module(torch.empty(2, 3, 8, 8))) == torch.device("cpu")
    buffers = nn.Module()
    buffers.register_buffer("weight", torch.empty(1, device="meta"))
    assert device_of(buffers) == away.device and device_of(nn.Module(), "meta") == away.device


def test_the_result_is_the_engine_s(model: nn.Module, x: Tensor, y: Tensor):
    adversary = ours(model, seed=3)
    outcome = Engine(batch_size=8).run(
        adversary._suite(adversary.attacks_to_run), model, TensorExamples(x, y, torch.arange(N)), seed=3
    )
    x_adv, y_adv = adversary.run_standard_evaluation(x, y, bs=8, return_labels=True)
    broken = ~outcome.correct
    assert 2 < broken.sum() < N
    assert torch.equal(x_adv[broken], outcome.x_adv[broken]) and torch.equal(x_adv[~broken], x[~broken])
    with torch.no_grad():
        assert torch.equal(y_adv, model(x_adv).argmax(1)) and torch.equal(y_adv != y, broken)
    assert torch.equal(adversary.run_standard_evaluation(x, y, bs=8), x_adv)
    assert adversary.clean_accuracy(x, y) == pytest.approx((N - 2) / N)
    assert adversary.clean_accuracy(x_adv, y, bs=5) == pytest.approx(1 - float(broken.float().mean()))


def test_no_seed_is_seed_0_and_labels_keep_their_type(model: nn.Module, x: Tensor, y: Tensor):
    x_adv, y_adv = ours(model).run_standard_evaluation(x, y.int(), bs=8, return_labels=True)
    assert torch.equal(x_adv, ours(model, seed=0).run_standard_evaluation(x, y, bs=8)) and y_adv.dtype == torch.int32
    assert not torch.equal(x_adv, ours(model, seed=1).run_standard_evaluation(x, y, bs=8))


def test_what_is_set_arrives(model: nn.Module):
    adversary = AutoAttack(model, eps=EPS, version="custom", attacks_to_run=["apgd-dlr", "fab", "fab-t"], verbose=False)
    adversary.apgd.n_restarts, adversary.apgd.rho, adversary.apgd.eot_iter = 2, 0.5, 3
    adversary.fab.n_restarts, adversary.fab.alpha_max = 4, 0.2
    ball = Linf(EPS)
    assert dict(adversary._suite(adversary.attacks_to_run).members) == {
        "apgd-dlr": EOT(attack=APGD(threat=ball, loss=DLR(), restarts=2, rho=0.5), samples=3),
        "fab": FAB(threat=ball, restarts=4, alpha=0.2),
        "fab-t": FAB(threat=ball, restarts=1, alpha=0.2),
    }
    adversary.attacks_to_run = ["apgd-t", "square"]
    adversary.apgd_targeted.n_target_classes, adversary.square.p_init, adversary.square.resc_schedule = 3, 0.1, True
    assert dict(adversary._suite(adversary.attacks_to_run).members) == {
        "apgd-t": APGD(threat=ball, loss=TargetedDLR(), targets=3),
        "square": Square(threat=ball, p=0.1, rescale=True),
    }
    with pytest.raises(AttributeError):
        adversary.apgd.n_restart = 1  # pyright: ignore[reportAttributeAccessIssue] - a misspelt one is no silence


def test_each_by_itself(model: nn.Module, x: Tensor, y: Tensor, capsys: pytest.CaptureFixture[str]):
    adversary = ours(model, verbose=True)
    found = adversary.run_standard_evaluation_individual(x, y, bs=8, return_labels=True)
    assert list(found) == adversary.attacks_to_run == ["apgd-ce", "apgd-t", "fab-t", "square"] and adversary.verbose
    for name, (x_adv, y_adv) in found.items():
        alone = ours(model, version="custom", attacks_to_run=[name])
        alone.apgd.n_restarts = 1
        assert torch.equal(alone.run_standard_evaluation(x, y, bs=8), x_adv) and (y_adv != y)[:2].all()
    said = capsys.readouterr().out
    for name in found:
        assert f"robust accuracy by {name.upper()}" in said


def test_what_it_prints(model: nn.Module, x: Tensor, y: Tensor, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    adversary = ours(model, verbose=True, log_path=tmp_path / "log.txt")
    _, y_adv = adversary.run_standard_evaluation(x, y, bs=8, return_labels=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "setting parameters for standard version",
        "using standard version including apgd-ce, apgd-t, fab-t, square.",
        f"initial accuracy: {(N - 2) / N:.2%}",
    ]
    after = [line for line in lines if line.startswith("robust accuracy after")]
    assert [line.split()[3] for line in after] == ["APGD-CE:", "APGD-T:", "FAB-T:", "SQUARE:"]
    shares = [float(line.split()[4].rstrip("%")) for line in after]
    assert shares == sorted(shares, reverse=True)
    robust = float((y_adv == y).float().mean())
    assert f"{shares[-1]:.2f}" == f"{100 * robust:.2f}" and lines[-1] == f"robust accuracy: {robust:.2%}"
    told = [line for line in lines if line.startswith("apgd-ce - ")]
    assert len(told) >= 2 and told[-1] == "apgd-ce - 14 of 14 images done"
    assert lines[-2].startswith(f"max Linf perturbation: {EPS:.5f}, nan in tensor: 0")
    assert (tmp_path / "log.txt").read_text().splitlines() == lines
    ours(model).run_standard_evaluation(x, y)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("turn", [3, 8])
def test_a_killed_run_goes_on_to_the_same_result(
    turn: int, model: nn.Module, x: Tensor, y: Tensor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    class Killed(BaseException):
        pass

    whole = ours(model).run_standard_evaluation(x, y, bs=8)
    monkeypatch.setattr("awnet.evaluation.journal.Journal.due", True)
    turns = 0
    run = Engine.run

    def counted(self: Engine, *args: Any, watch: Any, **kwargs: Any):
        def counting(sweep: Any) -> None:
            nonlocal turns
            turns += 1
            watch(sweep)
            if turns == turn:
                raise Killed

        return run(self, *args, watch=counting, **kwargs)

    monkeypatch.setattr(Engine, "run", counted)
    state = tmp_path / "state"
    with pytest.raises(Killed):
        ours(model).run_standard_evaluation(x, y, bs=8, state_path=state)
    assert torch.equal(ours(model).run_standard_evaluation(x, y, bs=8, state_path=state), whole)
    took = turns
    assert torch.equal(ours(model).run_standard_evaluation(x, y, bs=8, state_path=str(state)), whole)
    assert turns == took, "what is finished is not run again"


def test_a_state_of_another_run_is_told(model: nn.Module, x: Tensor, y: Tensor, tmp_path: Path):
    ours(model).run_standard_evaluation(x, y, bs=8, state_path=tmp_path / "state")
    for other in ({"seed": 1}, {"eps": 0.04}):
        with pytest.raises(Mistake, match="the state of another run"):
            ours(model, **other).run_standard_evaluation(x, y, bs=8, state_path=tmp_path / "state")
    with pytest.raises(Mistake, match="the state of another run"):
        ours(model).run_standard_evaluation(x.flip(0), y, bs=8, state_path=tmp_path / "state")
    (tmp_path / "file").write_text("{}")
    with pytest.raises(Mistake, match="is a file"):
        ours(model).run_standard_evaluation(x, y, state_path=tmp_path / "file")


class Sharpened(nn.Module):
    """A network with a setting that is no tensor."""

    def __init__(self, net: nn.Module, by: float) -> None:
        super().__init__()
        self.net, self.by = net, by

    def forward(self, x: Tensor) -> Tensor:
        return self.by * self.net(x)


class Asked:
    """A function that counts how many images it is asked about; what it answers is sharpened, and drawn at random."""

    def __init__(self, net: nn.Module, by: float = 1.0, noise: float = 0.0) -> None:
        self.net, self.by, self.noise, self.count = net, by, noise, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.count += len(x)
        logits = self.by * self.net(x)
        return logits + self.noise * torch.randn_like(logits)


def squared(model: Any, x: Tensor, y: Tensor, state: Path) -> Tensor:
    """By Square alone, which is quick."""
    adversary = ours(model, version="custom", attacks_to_run=["square"])
    adversary.square.n_queries = 60
    return adversary.run_standard_evaluation(x, y, 8, False, state)


@pytest.mark.parametrize("make", [Asked, Sharpened], ids=["function", "module"])
def test_a_model_without_tensors_of_its_own_is_known_by_its_logits(
    make: Callable[..., Any], model: nn.Module, x: Tensor, y: Tensor, tmp_path: Path
):
    found = squared(make(model, 1.0), x, y, tmp_path)
    for other in (make(model, -1.0), make(model, 1.02)):
        with pytest.raises(Mistake, match="the state of another run"):
            squared(other, x, y, tmp_path)
    assert torch.equal(squared(make(model, 1.0), x, y, tmp_path), found)


def test_a_model_with_a_knob_is_known_by_it(x: Tensor, y: Tensor, tmp_path: Path):
    model = unsettle(create(DYNAMIC, classes=10), x)
    assert isinstance(model, AWNet)
    squared(model, x, y, tmp_path)
    nearly = model.turned(replace(model.knob, p_max=1 - 1e-5))
    assert nearly.knob != model.knob == Knob()
    with pytest.raises(Mistake, match="the state of another run"):
        squared(nearly, x, y, tmp_path)
    squared(model.turned(Knob()), x, y, tmp_path)


def test_a_run_goes_on_where_logits_are_rounded_otherwise(model: nn.Module, x: Tensor, y: Tensor, tmp_path: Path):
    once, again = Asked(model), Asked(model, 1 + 1e-3)
    found = squared(once, x, y, tmp_path)
    assert torch.equal(squared(again, x, y, tmp_path), found)
    assert again.count < once.count / 2, "the attack is not run again"


def test_a_run_on_a_model_that_draws_random_numbers_goes_on(model: nn.Module, x: Tensor, y: Tensor, tmp_path: Path):
    once, again = Asked(model, noise=0.1), Asked(model, noise=0.1)
    for asked in (once, again):
        with pytest.warns(RuntimeWarning, match="draws random numbers"):
            squared(asked, x, y, tmp_path)
    assert again.count < once.count / 2
    with pytest.raises(Mistake, match="the state of another run"), pytest.warns(RuntimeWarning, match="draws random"):
        squared(Asked(model, -1.0, noise=0.1), x, y, tmp_path)


def test_a_state_of_before_logits_were_kept_goes_by_the_weights(model: nn.Module, x: Tensor, y: Tensor, tmp_path: Path):
    def earlier(state: Path) -> Path:
        content = read_state(state)
        del content["of"]["logits"], content["of"]["knob"]
        save_state(state, content)
        return state

    found = squared(model, x, y, tmp_path / "module")
    asked = Asked(model)
    squared(asked, x, y, tmp_path / "function")
    assert torch.equal(squared(model, x, y, earlier(tmp_path / "module")), found)
    with pytest.raises(Mistake, match="the state of another run"):
        squared(asked, x, y, earlier(tmp_path / "function"))


def test_a_function_is_a_model_too(model: nn.Module, x: Tensor, y: Tensor):
    by_function = ours(lambda images: model(images)).run_standard_evaluation(x, y, bs=8)
    assert torch.equal(by_function, ours(model).run_standard_evaluation(x, y, bs=8))


def one_warning(adversary: AutoAttack, x: Tensor, y: Tensor) -> str:
    """The one that a run gives, which a second one does not repeat."""
    with pytest.warns(RuntimeWarning) as told:
        first = adversary.run_standard_evaluation(x, y, bs=8)
    again = adversary.run_standard_evaluation(x, y, bs=8)  # a warning would be an error
    assert len(told) == 1 and again.shape == first.shape
    return str(told[0].message)


def test_a_model_of_another_range_is_told_and_attacked(
    model: nn.Module, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    x = torch.rand(64, 3, 8, 8)
    lively(model, 255 * x)
    with torch.no_grad():
        y = model(255 * x).argmax(1)
        assert (model(x).argmax(1) == y).float().mean() < 0.5
    given = {"version": "custom", "attacks_to_run": ["square"], "verbose": True, "log_path": tmp_path / "log.txt"}
    said = one_warning(ours(model, **given), x, y)
    assert "100 % when they are multiplied by 255: it expects these pixels; let the model" in said
    for lines in (capsys.readouterr().out, (tmp_path / "log.txt").read_text()):
        assert lines.count(f"Warning: {said}\n") == 1


def test_a_model_of_probabilities_is_told_and_attacked_as_it_is(model: nn.Module, x: Tensor, y: Tensor):
    probabilities = nn.Sequential(model, nn.Softmax(1))
    adversary = ours(probabilities, version="custom", attacks_to_run=["apgd-ce", "square"])
    assert "the model returns probabilities" in one_warning(adversary, x, y)
    suite = adversary._suite(adversary.attacks_to_run)
    outcome = Engine(batch_size=8).run(suite, probabilities, TensorExamples(x, y, torch.arange(N)))
    x_adv = adversary.run_standard_evaluation(x, y, bs=8)
    assert torch.equal(x_adv[~outcome.correct], outcome.x_adv[~outcome.correct])


def test_a_model_that_draws_is_told_of_version_rand(model: nn.Module, x: Tensor, y: Tensor):
    asked = Asked(model, noise=0.1)
    assert "use version='rand'" in one_warning(ours(asked, version="custom", attacks_to_run=["square"]), x, y)
    adversary = ours(asked)
    task = adversary._task(x, y, 8)
    before = torch.get_rng_state()
    with pytest.warns(RuntimeWarning, match="draws random numbers"):
        adversary._look(task)
    assert torch.equal(torch.get_rng_state(), before), "a look changes no run that has been seeded"
    rand = ours(asked, version="rand")
    rand.apgd.n_iter, rand.apgd.eot_iter = 1, 2
    rand.run_standard_evaluation(x, y, bs=8)  # a warning would be an error
    found = ours(asked, version="custom", attacks_to_run=["square", "apgd-ce"])
    with pytest.warns(RuntimeWarning) as told:
        found.run_standard_evaluation_individual(x, y, bs=8)
    assert len(told) == 1, "once, not for each attack"


class NotOne(nn.Module):
    """A network that has trouble with one image by itself."""

    def __init__(self, net: nn.Module, error: type[Exception] | None) -> None:
        super().__init__()
        self.net, self.error = net, error

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 1 and self.error:
            raise self.error("one image is no batch")
        return self.net(x).squeeze()


@pytest.mark.parametrize(("n", "bs"), [(1, 250), (3, 1), (3, 2)])
@pytest.mark.parametrize(("error", "function"), [(None, False), (RuntimeError, True), (ValueError, False)])
def test_a_batch_of_one_is_filled_up(
    error: type[Exception] | None, function: bool, n: int, bs: int, x: Tensor, model: nn.Module, tmp_path: Path
):
    x = x[2 : 2 + n]
    with torch.no_grad():
        y = model(x).argmax(1)
    awkward = NotOne(model, error)
    found = []
    for net in (model, awkward.forward if function else awkward):
        adversary = ours(net, eps=0.03, version="custom", attacks_to_run=["apgd-ce", "square"])
        state = tmp_path / type(net).__name__
        x_adv, y_adv = adversary.run_standard_evaluation(x, y, bs=bs, return_labels=True, state_path=state)
        assert adversary.clean_accuracy(x, y, bs=bs) == 1
        found.append((x_adv, y_adv, adversary.run_standard_evaluation_individual(x, y, bs=bs)["square"]))
        assert adversary.square.perturb(x[:1], y[:1]).shape == x[:1].shape
    for healthy, filled in zip(*found, strict=True):
        assert torch.allclose(healthy, filled, atol=1e-5)
    assert (found[0][1] != y).any()


def test_a_device_where_the_model_is_not_is_told(
    model: nn.Module, x: Tensor, y: Tensor, monkeypatch: pytest.MonkeyPatch
):
    square: dict[str, Any] = {"eps": EPS, "version": "custom", "attacks_to_run": ["square"], "verbose": False}
    untouched = short(AutoAttack(model, **square))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    untouched.run_standard_evaluation(x, y, bs=8)  # a warning would be an error
    asked = short(AutoAttack(model, **square, device="cuda"))
    assert "model.to('cuda')" in one_warning(asked, x, y)
    assert "images.to('cuda')" in one_warning(short(AutoAttack(model.forward, **square, device="cuda:1")), x, y)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "say device='cpu'" in one_warning(untouched, x, y) and untouched.device == "cuda"
    for quiet in (torch.device("cpu"), None):
        short(AutoAttack(model, **square, device=quiet)).run_standard_evaluation(x, y, bs=8)
    with pytest.raises(Mistake, match="a device such as 'cpu' or 'cuda', got 'gpu'"):
        ours(model, device="gpu").run_standard_evaluation(x, y)


def test_what_scripts_for_the_reference_set_is_taken(model: nn.Module, x: Tensor, y: Tensor):
    """What an evaluation overwrites in the reference too, or what only prints, changes nothing."""
    adversary: Any = ours(model)
    for own in (adversary.apgd, adversary.apgd_targeted, adversary.fab, adversary.square):
        own.verbose, own.seed = True, 7
    adversary.apgd.loss, adversary.fab.targeted = "dlr", True
    adversary.apgd.use_largereps = adversary.apgd_targeted.use_largereps = False
    adversary.square.n_restarts = adversary.apgd.eot_iter = adversary.fab.n_restarts = 1
    assert torch.equal(adversary.run_standard_evaluation(x, y, bs=8), ours(model).run_standard_evaluation(x, y, bs=8))
    adversary.set_version("plus")
    assert (adversary.square.n_queries, adversary.fab.n_target_classes, adversary.apgd_targeted.n_restarts) == (
        5000,
        9,
        1,
    )


def test_restarts_of_square_meet_who_still_stands(model: nn.Module, x: Tensor, y: Tensor):
    broken = []
    for restarts in (1, 4):
        adversary = ours(model, version="custom", attacks_to_run=["square"])
        adversary.square.n_restarts, adversary.square.n_queries = restarts, 2
        _, y_adv = adversary.run_standard_evaluation(x, y, bs=8, return_labels=True)
        broken.append(y_adv != y)
    assert (broken[0] <= broken[1]).all() and broken[0].sum() < broken[1].sum()
    assert adversary._suite(["square"]).names == ("square", *(f"square-{again}" for again in range(2, 5)))


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "apgd-t", "fab", "square"])
def test_an_attack_perturbs_by_itself(name: str, model: nn.Module, x: Tensor, y: Tensor):
    alone = ours(model, version="custom", attacks_to_run=[name], seed=3)
    adversary: Any = ours(model, version="custom", seed=3)
    own = {"apgd-t": adversary.apgd_targeted, "fab": adversary.fab, "square": adversary.square}.get(
        name, adversary.apgd
    )
    alone.fab.n_restarts = adversary.fab.n_restarts = 2
    if name == "apgd-dlr":
        own.loss = "dlr"
    found = own.perturb(x, y)
    assert torch.equal(found, alone.run_standard_evaluation(x, y)) and not torch.equal(found, x)
    alone.seed = own.seed = 4
    other = own.perturb(x, y)
    assert torch.equal(other, alone.run_standard_evaluation(x, y))
    assert name == "fab" or not torch.equal(other, found), "FAB breaks all of them before anything is random"


@pytest.mark.parametrize(
    ("norm", "of", "field", "value", "sentence"),
    [
        ("Linf", "apgd", "use_largereps", True, "expected use_largereps=False in Linf"),
        ("L1", "apgd_targeted", "use_largereps", False, "expected use_largereps=True in L1"),
        ("Linf", "apgd_targeted", "loss", "ce-targeted", "expected the loss 'dlr-targeted'"),
        ("Linf", "apgd", "loss", "dlr-targeted", "no loss of APGD is named 'dlr-targeted'; known: ce, dlr"),
        ("Linf", "square", "n_restarts", 0, "n_restarts of at least 1"),
    ],
)
def test_what_an_attack_cannot_do_is_told_when_it_runs(
    norm: str, of: str, field: str, value: Any, sentence: str, model: nn.Module, x: Tensor, y: Tensor
):
    adversary = ours(model, norm=norm)
    own = getattr(adversary, of)
    setattr(own, field, value)
    with pytest.raises(Mistake, match=sentence):
        own.perturb(x, y)
    if (of, field) != ("apgd", "loss"):  # which an evaluation sets itself
        with pytest.raises(Mistake, match=sentence):
            adversary.run_standard_evaluation(x, y)


def test_all_wrong_and_none_at_all(model: nn.Module, x: Tensor, y: Tensor):
    assert torch.equal(ours(model).run_standard_evaluation(x[:2], y[:2]), x[:2])
    assert len(ours(model).run_standard_evaluation(x[:0], y[:0])) == 0


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"norm": "l2"}, "no norm is named 'l2'; did you mean L2"),
        ({"version": "standart"}, "did you mean standard"),
        ({"attacks_to_run": ["square"]}, "for version 'custom'"),
        ({"is_tf_model": True}, "PyTorch"),
        ({"eps": -1.0}, "eps"),
    ],
)
def test_what_cannot_be_is_told(given: dict[str, Any], sentence: str, model: nn.Module):
    with pytest.raises(Mistake, match=sentence):
        AutoAttack(model, verbose=False, **given)


@pytest.mark.parametrize(("attacks", "sentence"), [([], "no attacks to run"), (["apgd"], "did you mean apgd-")])
def test_attacks_that_do_not_exist(attacks: list[str], sentence: str, model: nn.Module, x: Tensor, y: Tensor):
    adversary = AutoAttack(model, version="custom", attacks_to_run=attacks, verbose=False)
    with pytest.raises(Mistake, match=sentence):
        adversary.run_standard_evaluation(x, y)
    with pytest.raises(Mistake, match="normalisation into the model"):
        ours(model).run_standard_evaluation(x * 255, y)


@pytest.fixture
def reference() -> Iterator[Any]:
    folder = os.environ.get("AWNET_REFERENCE_AUTOATTACK")
    if not folder:
        pytest.skip("AWNET_REFERENCE_AUTOATTACK names no checkout of the reference")
    assert (Path(folder) / "autoattack").is_dir(), f"{folder} is no checkout of auto-attack"
    sys.path.insert(0, folder)
    from autoattack import AutoAttack as Reference  # pyright: ignore[reportMissingImports]

    yield Reference
    sys.path.remove(folder)


@pytest.mark.filterwarnings("ignore")
def test_beside_the_reference(reference: Any, x: Tensor, tmp_path: Path):
    """The same script twice, but for the class: the same kinds of results, the same verdicts up to random starts."""
    x = torch.rand(40, 3, 16, 16)
    model = lively(create(ResNetConfig(width=4), classes=10), x)
    with torch.no_grad():
        y = model(x).argmax(1)
    found = {}
    for name, make in (("theirs", reference), ("ours", AutoAttack)):
        adversary = make(model, norm="Linf", eps=0.004, seed=0, verbose=False, device="cpu")
        short(adversary)
        x_adv, y_adv = adversary.run_standard_evaluation(x, y, bs=20, return_labels=True)
        each = short(adversary, ["apgd-ce", "square"]).run_standard_evaluation_individual(x, y, bs=20)
        accuracy = adversary.clean_accuracy(x_adv, y, bs=20)
        assert (x_adv.shape, x_adv.dtype, y_adv.dtype) == (x.shape, x.dtype, y.dtype)
        assert list(each) == ["apgd-ce", "square"] and all(t.shape == x.shape for t in each.values())
        assert isinstance(accuracy, float)
        found[name] = y_adv != y
    assert 0 < found["theirs"].sum() < 40, "an attack that always or never succeeds shows nothing"
    assert (found["theirs"] == found["ours"]).float().mean() >= 0.9
