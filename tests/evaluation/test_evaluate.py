"""From a model to a record: what it says is what a plain loop over the examples finds."""

from __future__ import annotations

import copy
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from awnet.attacks import APGD, ATTACKS, PGD, Attack, Engine, Suite, fgsm
from awnet.config import from_json, to_json
from awnet.data import Dataset
from awnet.errors import Mistake
from awnet.evaluation import Record
from awnet.evaluation.evaluate import evaluate
from awnet.evaluation.keeping import batch_size_in
from awnet.evaluation.likeness import likeness
from awnet.evaluation.preflight import Cleared
from awnet.interrupt import Interrupt
from awnet.models import AWNet, create
from awnet.models.model import fingerprint
from awnet.threat_model import L2, Linf
from models.randomised import unsettle
from training.tiny import CLASSES, DYNAMIC, dataset, own

THREAT = Linf(0.15)
ENGINE = Engine(batch_size=8)
DATA = dataset(21, split="test", seed=4)
PGD_3 = PGD(threat=THREAT, steps=3)
BREAKS = PGD(threat=THREAT, steps=8, stop_on_success=True)
BOTH: Mapping[str, Attack] = {"fgsm": fgsm(THREAT), "pgd": PGD_3}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A network that gets most images right, and fewer when attacked; in training mode, as its owner left it."""
    model = own(2)
    x, y = dataset(60).batch(torch.arange(60))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def judged(model: nn.Module, attacks: Mapping[str, Attack | Suite] = BOTH, data: Dataset = DATA, **more: Any) -> Record:
    return evaluate(model, data, attacks, **{"threat": THREAT, "engine": ENGINE, **more})


def directly(model: nn.Module, attack: Attack | None, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes and images, one example after the other."""
    model = copy.deepcopy(model).eval()
    classes, images = [], []
    for i in range(len(DATA)):
        x, y = DATA.batch(torch.tensor([i]))
        if attack:
            x = attack(model, x, y, seed=seed, ids=DATA.ids[i : i + 1])
        with torch.no_grad():
            classes.append(model(x).argmax(1))
        images.append(x)
    return torch.cat(classes), torch.cat(images)


def test_hits_are_those_of_a_plain_loop(model):
    record = judged(model, seed=3)
    clean, _ = directly(model, None)
    assert torch.equal(record.clean.prediction, clean)
    assert torch.equal(record.clean.correct, clean == DATA.labels)
    for name, attack in BOTH.items():
        classes, _ = directly(model, attack, seed=3)
        assert torch.equal(record.attacks[name].prediction, classes)
        assert torch.equal(record.attacks[name].correct, classes == DATA.labels)
    assert 0.2 < record.robust_accuracy("pgd").value < record.clean_accuracy.value
    found = judged(model, {"pgd": PGD_3}, seed=3).samples
    _, images = directly(model, PGD_3, seed=3)  # the seed shows in the pixels
    assert found is not None
    torch.testing.assert_close(found.x_adv, images[found.positions])
    assert torch.equal(record.ids, DATA.ids) and torch.equal(record.labels, DATA.labels)
    assert all(0 < row.seconds < 60 for row in record.attacks.values())


def test_costs(model):
    record = judged(model, {**BOTH, "breaks": BREAKS})
    for result, forwards, backwards in (
        (record.clean, 1, 0),
        (record.attacks["fgsm"], 2, 1),
        (record.attacks["pgd"], 4, 3),
    ):
        assert result.forwards.tolist() == [forwards] * 21 and result.backwards.tolist() == [backwards] * 21
    spent = record.attacks["breaks"].backwards
    wrong = ~record.attacks["breaks"].correct
    assert (spent[~wrong] == 8).all() and spent[wrong].min() < 8


def test_what_the_record_says_of_itself(model):
    attacks = {name: ATTACKS[name](THREAT) for name in ("fgsm", "cw-inf")}
    record = judged(model, attacks, label="mine", front="family", about={"checkpoint": "runs/x", "knob": None}, seed=5)
    assert (record.label, record.front) == ("mine", "family")
    assert record.model == {
        "parameters": sum(p.numel() for p in model.parameters()),
        "class": "Own",
        "fingerprint": fingerprint(model),
        "margins": likeness(model, DATA),
        "checkpoint": "runs/x",
        "knob": None,
    }
    assert record.data == {
        "name": "bands", "split": "test", "n": 21, "limit": None, "shape": [1, 8, 8], "fingerprint": DATA.fingerprint
    }  # fmt: skip
    assert record.classes == ("a", "b", "c")
    threat = dict(record.threat)
    assert threat.pop("text") == "Linf 0.15" and from_json(threat) == THREAT
    assert record.planned == ("fgsm", "cw-inf")
    assert record.run["seed"] == 5 and from_json(record.run["engine"]) == ENGINE
    for name, attack in attacks.items():
        assert from_json(record.attacks[name].settings) == attack
    assert record.clean.settings is None
    said = record.provenance
    assert set(said) == {
        "time", "commit", "command", "python", "versions", "platform", "cpu", "cores", "threads", "gpu"
    }  # fmt: skip
    assert said["versions"]["torch"] == torch.__version__ and said["threads"] == torch.get_num_threads()
    assert judged(model, {}).label == "Own"


def test_comes_back_from_disk(model, tmp_path):
    record = judged(model)
    record.save(tmp_path)
    again = Record.load(tmp_path)
    assert torch.equal(again.worst, record.worst) and again.run == record.run and again.data == record.data
    assert again.samples is not None and record.samples is not None
    assert torch.equal(again.samples.x_adv, record.samples.x_adv)


def test_a_limit_is_a_seeded_subset_and_stated(model):
    record = judged(model, limit=9, seed=5)
    assert torch.equal(record.ids, DATA.sample(9, seed=5).ids) and len(record) == 9
    assert record.data["n"] == record.data["limit"] == 9
    assert not torch.equal(record.ids, judged(model, {}, limit=9, seed=6).ids)
    whole = judged(model, seed=5)
    rows = torch.isin(whole.ids, record.ids)
    for name in BOTH:  # an image meets the same numbers in whatever subset it is
        assert torch.equal(whole.attacks[name].prediction[rows], record.attacks[name].prediction)
    for large in (21, 1000):
        assert judged(model, {}, limit=large).data["limit"] is None
    with pytest.raises(Mistake, match="at least 1 image"):
        judged(model, limit=0)


def test_the_model_is_left_as_it_was(model):
    model.bn.eval()
    model.head.weight.requires_grad_(False)
    model.conv.weight.grad = torch.ones_like(model.conv.weight)

    def traces():
        return (
            [m.training for m in model.modules()],
            [(p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in model.parameters()],
            {n: (id(t), t.tolist()) for n, t in model.state_dict(keep_vars=True).items()},
            torch.get_rng_state().tolist(),
        )

    before = traces()
    judged(model)
    assert traces() == before
    model.train().requires_grad_(True)
    model.conv.weight.grad = None


@pytest.mark.parametrize("order", [("weak", "strong"), ("strong", "weak")], ids=str)
@pytest.mark.parametrize("threat", [THREAT, L2(1.5)], ids=str)
def test_samples_can_be_believed(threat, order, model):
    weak = PGD(threat=threat, steps=1, step_size=0.1, initial="zero")
    attacks = {name: {"weak": weak, "strong": PGD(threat=threat, steps=5)}[name] for name in order}
    record = judged(model, attacks, threat=threat, samples=8)
    found = record.samples
    assert found is not None and found.attack == "strong"
    x, y = DATA.batch(found.positions)
    assert torch.equal(found.x, x)
    assert threat.contains(found.x, found.x_adv).all() and (found.x_adv != found.x).any()
    frozen = copy.deepcopy(model).eval()
    assert torch.equal(frozen(found.x_adv).argmax(1), record.attacks["strong"].prediction[found.positions])
    assert len(y.unique()) == len(y), "of as many classes as can be"
    assert record.clean.correct[found.positions].all(), "what was wrong before shows nothing"
    broken = record.clean.correct & ~record.attacks["strong"].correct
    for label in DATA.labels[broken].unique():
        position = found.positions[y == label]
        assert broken[position].all(), "a broken image is shown where the class has one"


@pytest.mark.parametrize(("samples", "kept"), [(0, 0), (2, 2), (100, 3)])
def test_how_many_samples(samples, kept, model):
    found = judged(model, samples=samples).samples
    assert (0 if found is None else len(found.positions)) == kept


def test_each_attack_is_kept_when_it_is_done(model, monkeypatch, tmp_path):
    kept, progress = [], []
    save = Record.save

    def noted(record, folder):
        save(record, folder)
        kept.append(list(Record.load(folder).attacks))

    monkeypatch.setattr(Record, "save", noted)
    record = judged(model, out=tmp_path / "out", progress=lambda now: progress.append((now.attack, now.finished)))
    assert kept == [["fgsm"], ["fgsm", "pgd"]] == [kept[0], list(record.attacks)]
    files = {"record.json", "record.safetensors", "adversarials.safetensors", ".lock"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files
    for name in BOTH:
        counts = [n for each, n in progress if each == name]
        assert counts == sorted(counts) and counts[-1] == 21


class Counting:
    """Which attacks were run, and how often the model was asked in each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[Any] = []
        self.turns: list[int] = []
        run = Engine.run

        def noted(engine, attack, *args, watch, **kwargs):
            self.ran.append(attack)
            self.turns.append(0)

            def counting(sweep):
                self.turns[-1] += 1
                watch(sweep)

            return run(engine, attack, *args, watch=counting, **kwargs)

        monkeypatch.setattr(Engine, "run", noted)


def same(one: Record, two: Record) -> bool:
    """Every answer and cost, in the same order; the samples too."""
    arrays = ("correct", "prediction", "forwards", "backwards")
    assert one.samples is not None and two.samples is not None
    return (
        list(one.attacks) == list(two.attacks)
        and all(
            torch.equal(getattr(one.attacks[name], array), getattr(two.attacks[name], array))
            for name in one.attacks
            for array in arrays
        )
        and one.samples.attack == two.samples.attack
        and torch.equal(one.samples.x_adv, two.samples.x_adv)
    )


def test_what_was_found_is_not_run_again(model, monkeypatch, tmp_path):
    whole = judged(model)
    judged(model, {"fgsm": BOTH["fgsm"]}, out=tmp_path)
    counting = Counting(monkeypatch)
    assert same(judged(model, out=tmp_path, resume=True), whole)
    assert counting.ran == [BOTH["pgd"]]
    assert same(judged(model, out=tmp_path, resume=True), whole)
    assert same(Record.load(tmp_path), whole)
    assert len(counting.ran) == 1


def test_an_attack_is_added_to_what_was_found(model, tmp_path):
    judged(model, {"pgd": PGD_3}, out=tmp_path)
    judged(model, {"fgsm": BOTH["fgsm"]}, out=tmp_path, resume=True)
    assert list(Record.load(tmp_path).attacks) == ["pgd", "fgsm"]


def test_an_attack_with_other_settings_is_run_again(model, monkeypatch, tmp_path):
    judged(model, {"pgd": PGD(threat=THREAT, steps=2)}, out=tmp_path)
    counting = Counting(monkeypatch)
    record = judged(model, {"pgd": PGD_3}, out=tmp_path, resume=True)
    assert counting.ran == [PGD_3] and record.attacks["pgd"].settings == to_json(PGD_3)


@pytest.mark.parametrize("other", ["seed", "images", "engine", "network", "knob", "threat model"])
def test_a_folder_holds_one_evaluation(other, model, tmp_path):
    """Results of other examples, or of another network, must not stand beside one another."""
    about = {"knob": {"p_max": 1}}
    judged(model, out=tmp_path, about=about)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    attempts: dict[str, Callable[[bool], Record]] = {
        "seed": lambda resume: judged(model, seed=1, about=about, out=tmp_path, resume=resume),
        "images": lambda resume: judged(
            model, data=dataset(21, split="test", seed=5), about=about, out=tmp_path, resume=resume
        ),
        "engine": lambda resume: judged(model, engine=Engine(batch_size=4), about=about, out=tmp_path, resume=resume),
        "network": lambda resume: judged(own(7), about=about, out=tmp_path, resume=resume),
        "knob": lambda resume: judged(model, about={"knob": {"p_max": 0.5}}, out=tmp_path, resume=resume),
        "threat model": lambda resume: judged(model, threat=Linf(0.2), about=about, out=tmp_path, resume=resume),
    }
    said = "network" if other == "knob" else other
    for resume in (True, False):
        with pytest.raises(Mistake, match=f"another evaluation .*{said}.*choose another --out"):
            attempts[other](resume)
    with pytest.raises(Mistake, match="already; --resume"):
        judged(model, about=about, out=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


class Stop(Exception):
    """A crash."""


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("attack", [PGD_3, BREAKS], ids=["goes on", "stops"])
def test_goes_on_from_the_step_where_it_was(attack, precision, model, monkeypatch, tmp_path):
    engine = Engine(batch_size=8, precision=precision)
    whole = judged(model, {"pgd": attack}, engine=engine)
    counting = Counting(monkeypatch)
    judged(model, {"pgd": attack}, engine=engine)
    turns = counting.turns[-1]
    for turn in range(1, turns):
        out = tmp_path / str(turn)

        def crash(now, turn=turn):
            if counting.turns[-1] == turn + 1:
                raise Stop

        with pytest.raises(Stop):
            judged(model, {"pgd": attack}, engine=engine, out=out, save_seconds=0, progress=crash)
        with pytest.raises(Mistake, match="under way; --resume"):
            judged(model, {"pgd": attack}, engine=engine, out=out)
        record = judged(model, {"pgd": attack}, engine=engine, out=out, resume=True)
        assert same(record, whole), turn
        assert counting.turns[-1] == turns - turn, "nothing is done twice"


def test_the_journal_of_something_else_is_passed_over(model, tmp_path):
    def crash(now):
        if now.finished:
            raise Stop

    with pytest.raises(Stop):
        judged(own(7), {"pgd": PGD_3}, out=tmp_path, save_seconds=0, progress=crash)
    assert (tmp_path / "journal").exists()
    assert same(judged(model, {"pgd": PGD_3}, out=tmp_path, resume=True), judged(model, {"pgd": PGD_3}))


def test_ctrl_c_saves_and_says_how_to_go_on(model, monkeypatch, tmp_path):
    def press(now):
        if counting.turns == [4]:
            signal.raise_signal(signal.SIGINT)

    counting = Counting(monkeypatch)
    with pytest.raises(Interrupt, match=r"stopped in pgd after 8 images; saved in .*; --resume goes on"):
        judged(model, {"pgd": PGD_3}, out=tmp_path, progress=press)
    assert same(judged(model, {"pgd": PGD_3}, out=tmp_path, resume=True), judged(model, {"pgd": PGD_3}))
    assert counting.turns[1] == counting.turns[2] - 4


SUITE = Suite(members=(("pgd", replace(BREAKS, steps=3, step_size=0.4)), ("apgd-ce", APGD(threat=THREAT, steps=8))))


def test_a_suite_is_one_attack_whose_members_are_told_apart(model):
    told: list[str] = []
    record = judged(model, {"aa": SUITE}, seed=2, progress=lambda now: told.append(now.attack))
    outcome, result = ENGINE.run(SUITE, model, DATA, seed=2), record.attacks["aa"]
    assert list(record.attacks) == ["aa"] and result.members is not None
    assert result.members.names == ("pgd", "apgd-ce") and torch.equal(result.members.broken_by, outcome.broken_by)
    assert torch.equal(result.members.spent, outcome.spent) and torch.equal(result.correct, outcome.correct)
    assert outcome.broken_by.unique().tolist() == [-1, 0, 1]
    assert list(dict.fromkeys(told)) == ["aa: pgd", "aa: apgd-ce"]
    assert from_json(result.settings, Suite) == SUITE
    assert judged(model).attacks["pgd"].members is None


@pytest.mark.parametrize("member", SUITE.names)
def test_a_suite_goes_on_in_the_middle_of_a_member(member: str, model, tmp_path):
    def crash(now):
        turns.append(now.attack)
        if turns.count(f"aa: {member}") == 4:
            raise Stop

    turns: list[str] = []
    with pytest.raises(Stop):
        judged(model, {"aa": replace(SUITE)}, out=tmp_path, save_seconds=0, progress=crash)
    assert (tmp_path / "journal").exists()
    again: list[str] = []
    record = judged(model, {"aa": SUITE}, out=tmp_path, resume=True, progress=lambda now: again.append(now.attack))
    assert same(record, judged(model, {"aa": SUITE})) and again[0] == f"aa: {member}"


def test_a_damaged_journal(model, tmp_path):
    def crash(now):
        if now.finished:
            raise Stop

    with pytest.raises(Stop):
        judged(model, {"pgd": PGD_3}, out=tmp_path, save_seconds=0, progress=crash)
    file = tmp_path / "journal" / "training.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(Mistake, match="journal"):
        judged(model, {"pgd": PGD_3}, out=tmp_path, resume=True)


def test_a_model_that_tells_the_type():
    x, _ = DATA.batch(torch.arange(21))
    model = unsettle(create(DYNAMIC, classes=CLASSES, channels=1), x).eval()
    assert isinstance(model, AWNet)
    record = judged(model, {"pgd": PGD_3})
    assert record.tells_type
    torch.testing.assert_close(record.clean.p_clean, model.run(x).routing.p_clean.detach())
    attacked = model.run(PGD_3(model, x, DATA.labels, ids=DATA.ids)).routing.p_clean.detach()
    torch.testing.assert_close(record.attacks["pgd"].p_clean, attacked, atol=1e-4, rtol=0)


def test_a_model_that_does_not(model):
    record = judged(model, {"fgsm": BOTH["fgsm"]})
    assert not record.tells_type and record.attacks["fgsm"].p_clean.isnan().all()


def test_settings_of_the_engine_come_back():
    assert from_json(to_json(ENGINE)) == ENGINE


class Cramped(nn.Module):
    """Has memory for so many images only."""

    def __init__(self, net: nn.Module, most: int) -> None:
        super().__init__()
        self.net, self.most = net, most

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("as a GPU says it")
        return self.net(x)


def test_a_batch_that_was_halved_stands_in_the_record(model, tmp_path):
    cramped, said = Cramped(model, 4), "out of memory with batches of 8; going on with 4"
    with pytest.warns(RuntimeWarning, match=said):
        record = judged(cramped, {"fgsm": BOTH["fgsm"]}, out=tmp_path, cleared=Cleared(cramped))
    assert record.model["remarks"] == [said], "once"
    assert torch.equal(record.worst, judged(model, {"fgsm": BOTH["fgsm"]}).worst)
    cramped.most = 8
    again = judged(cramped, out=tmp_path, resume=True, cleared=Cleared(cramped))
    assert again.model["remarks"] == Record.load(tmp_path).model["remarks"] == [said], "it is still true of fgsm"
    assert "remarks" not in judged(cramped, cleared=Cleared(cramped)).model


def test_an_engine_can_be_chosen_when_the_model_has_been_looked_at(model):
    asked: list[Any] = []

    def choose(model: nn.Module, data: Dataset) -> Engine:
        asked.append(len(data))
        return Engine(batch_size=5)

    assert judged(model, {}, engine=choose, limit=9).run["engine"]["batch_size"] == 5 and asked == [9]


def test_the_batch_size_that_a_folder_tells(model, tmp_path):
    def crash(now):
        if now.finished:
            raise Stop

    assert batch_size_in(tmp_path) is None
    with pytest.raises(Stop):
        judged(model, {"pgd": PGD_3}, out=tmp_path, save_seconds=0, progress=crash)
    assert batch_size_in(tmp_path) == 8, "of the journal"
    judged(model, {"pgd": PGD_3}, out=tmp_path, resume=True)
    assert not (tmp_path / "journal").exists() and batch_size_in(tmp_path) == 8, "of the record"
    (tmp_path / "record.json").write_text("{")
    assert batch_size_in(tmp_path) is None, "evaluate will say what is wrong"
