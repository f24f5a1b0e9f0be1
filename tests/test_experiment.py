"""Experiments: complete, frozen, the same from a file; teachers first, once, and no folder is two experiments'."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import awnet.recipes  # noqa: F401 - fills RECIPES
from awnet import experiment as module
from awnet.attacks import Engine
from awnet.checkpoint import load, read_about
from awnet.cli import main
from awnet.config import from_json, to_json
from awnet.data import DataConfig, Splits
from awnet.data import load as load_data
from awnet.errors import Mistake
from awnet.experiment import RECIPES, Experiment, Selection, complete, ensure, read, run
from awnet.folders import alone
from awnet.interrupt import Interrupt
from awnet.models import MODELS, AWNet, AWNetConfig, ResNet, ResNetConfig, RouterConfig, create
from awnet.threat_model import Linf
from awnet.training import JointConfig, MTARDConfig, PGDATConfig, StandardConfig, TrainingConfig
from awnet.training.optimizer import Constant, SGDConfig
from awnet.training.overfitting import OverfittingConfig
from awnet.training.progress import Progress

NARROW = ResNetConfig(depth=10, width=4)
TINY = Experiment(
    name="tiny/clean",
    data=DataConfig(name="digits", validation=0.95),  # 72 images to train on
    model=NARROW,
    threat=Linf(0.2),
    training=TrainingConfig(epochs=1, batch_size=32, optimizer=SGDConfig(lr=0.05), schedule=Constant()),
    selection=Selection(attack="fgsm", limit=20),
)
PGD_AT = replace(TINY, name="tiny/robust", objective=PGDATConfig(steps=1), training=replace(TINY.training, epochs=2))
MTARD = MTARDConfig(clean_teacher="tiny/clean", robust_teacher="tiny/robust", steps=1)
STATIC = replace(TINY, name="tiny/static", objective=MTARD)
DYNAMIC = replace(
    TINY,
    name="tiny/awnet",
    model=AWNetConfig(base=NARROW, router=RouterConfig(backbone=NARROW)),
    objective=JointConfig(over=MTARD),
)


@pytest.fixture(autouse=True)
def _recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    for recipe in (TINY, PGD_AT):
        monkeypatch.setitem(RECIPES._entries, recipe.name, lambda recipe=recipe: recipe)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The arguments of each training that was begun."""
    calls: list[dict[str, Any]] = []

    def noted(model, objective, loader, config, **more):
        calls.append({"model": model, "objective": objective, "loader": loader, "config": config, **more})
        return train(model, objective, loader, config, **more)

    train = module.train
    monkeypatch.setattr(module, "train", noted)
    yield calls


def go(experiment: Experiment, out: Path, **more: Any) -> Path:
    return run(experiment, out, quiet=True, **more)


class Own(nn.Sequential):
    """Somebody's network."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, classes))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load(path).state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


# --- recipes ---


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_come_back_from_json(name):
    recipe = RECIPES[name]()
    assert recipe.name == name
    assert from_json(json.loads(json.dumps(to_json(recipe))), Experiment) == recipe
    assert set(recipe.objective.teachers.values()) <= set(RECIPES)


def test_the_papers_recipe():
    """5.1 of the paper, as it stands in the defaults."""
    paper = RECIPES["cifar10/awnet"]()
    training, objective = paper.training, paper.objective
    assert (training.epochs, training.batch_size) == (100, 256)
    assert training.optimizer == SGDConfig(lr=0.1, router_lr=0.01, momentum=0.9, weight_decay=2e-4)
    assert isinstance(objective, JointConfig) and isinstance(objective.over, MTARDConfig)
    assert objective.over.tau == 1 and isinstance(paper.model, AWNetConfig) and paper.model.beta == 3
    assert paper.threat == Linf(8 / 255)
    assert paper.selection == Selection(on="validation", attack="pgd-trades", gamma_nat=0.5, gamma_adv=0.5)


# --- a run ---


def test_what_a_run_leaves(tmp_path):
    out = go(TINY, tmp_path / "run")
    assert out == tmp_path / "run"
    left = {path.name for path in out.iterdir() if not path.name.startswith((".lock", "events"))}
    assert left == {"best", "last", "log.csv", "experiment.json"}
    assert read(out) == read(out / "experiment.json") == TINY
    about = read_about(out)
    assert about["classes"] == list("0123456789") and about["shape"] == [1, 8, 8]
    assert from_json(about["experiment"], Experiment) == TINY
    assert from_json(about["data"]) == TINY.data and from_json(about["threat"]) == TINY.threat
    assert about["selection"] == "validation" and about["given"] == {} and about["epoch"] == 1
    assert about["history"][0].keys() >= {"loss", "validation_clean", "validation_robust", "validation_score"}
    model = load(out)
    assert isinstance(model, ResNet) and about["parameters"] == sum(p.numel() for p in model.parameters())
    assert {"time", "commit", "versions", "cpu", "threads"} <= about["provenance"].keys()
    assert about["provenance"]["versions"]["torch"] == torch.__version__
    assert complete(out, TINY)
    assert not complete(out, replace(TINY, seed=1)) and not complete(tmp_path, TINY)


def test_a_run_is_a_function_of_its_description(tmp_path):
    first = weights(go(TINY, tmp_path / "first"))
    torch.rand(3)
    assert same(weights(go(TINY, tmp_path / "again")), first)
    for change in ({"seed": 1}, {"threat": Linf(0.2)}):
        other = weights(go(replace(TINY, **change), tmp_path / f"{change}"))
        assert same(other, first) == (change == {"threat": Linf(0.2)})


def test_a_training_can_be_watched_for_overfitting(tmp_path, trained):
    watched = replace(TINY.training, overfitting=OverfittingConfig(images=10, steps=2))
    out = go(replace(TINY, training=watched), tmp_path / "watched")
    watch = trained[0]["watch"]
    assert len(watch.images) == 10 and watch.attacks[1].threat == TINY.threat
    (row,) = read_about(out)["history"]
    assert 0 <= row["training_pgd"] <= row["training_fgsm"] + 0.2 <= 1.2
    go(TINY, tmp_path / "not")
    assert trained[1]["watch"] is None


def test_a_module_instead_of_the_model(tmp_path, trained):
    model = Own()
    out = go(TINY, tmp_path / "run", model=model)
    assert trained[0]["model"] is model
    with pytest.raises(Mistake, match=r"holds weights of .*Own.*into=module"):
        load(out)
    assert same(load(out, into=Own()).state_dict(), model.state_dict())
    with pytest.raises(Mistake, match=r"cannot be run from the command line: its model \(.*Own\) came from Python"):
        read(out)
    with pytest.raises(Mistake, match="holds another experiment"):
        go(TINY, out, resume=True)
    go(TINY, out, model=Own(), resume=True)


def test_given_images_are_said(tmp_path, trained):
    """The file must not claim images that were not used; teachers see the student's."""
    whole = load_data(TINY.data)
    splits = Splits(whole.train.sample(40, seed=5), whole.validation, whole.test)
    out = go(STATIC, tmp_path / "tiny/static", splits=splits)
    assert [len(call["loader"].dataset) for call in trained] == [40, 40, 40]
    fingerprint = splits.train.fingerprint
    assert fingerprint in json.dumps(read_about(out)["given"])
    with pytest.raises(Mistake, match=rf"its images \(.*{fingerprint}.*\) came from Python"):
        read(out)
    with pytest.raises(Mistake, match="holds another experiment"):
        go(STATIC, out, resume=True)
    go(replace(STATIC, name="tiny/other"), tmp_path / "tiny/other", splits=splits)
    assert len(trained) == 4, "the teachers of these images are there"
    with pytest.raises(Mistake, match=r"tiny.clean holds another experiment"):
        go(replace(STATIC, name="tiny/third"), tmp_path / "tiny/third")


# --- teachers ---


def test_teachers_from_recipes_are_trained_first_once_and_shared(tmp_path, trained):
    runs = tmp_path / "runs"
    student = replace(DYNAMIC, seed=3, threat=Linf(0.1), data=replace(DYNAMIC.data, padding=0))
    go(student, runs / "tiny/awnet")
    assert [call["out"] for call in trained] == [runs / "tiny/clean", runs / "tiny/robust", runs / "tiny/awnet"]
    # of the student's images, threat and seed; otherwise as their recipes say, crops included
    for recipe, epochs in ((TINY, 1), (PGD_AT, 2)):
        assert read(runs / recipe.name) == replace(recipe, seed=3, threat=Linf(0.1))
        assert read_about(runs / recipe.name / "last")["epoch"] == epochs
    over = trained[2]["objective"].over
    clean, robust = over.clean_teacher.network, over.robust_teacher.network
    assert same(clean.state_dict(), weights(runs / "tiny/clean"))
    assert same(robust.state_dict(), weights(runs / "tiny/robust"))
    assert not same(clean.state_dict(), robust.state_dict())

    before = {path: path.stat().st_mtime_ns for path in (runs / "tiny/clean").rglob("*")}
    go(replace(STATIC, seed=3, threat=Linf(0.1)), runs / "tiny/static")
    assert len(trained) == 4, "only the second student was trained"
    assert {path: path.stat().st_mtime_ns for path in (runs / "tiny/clean").rglob("*")} == before
    assert isinstance(load(runs / "tiny/awnet"), AWNet) and isinstance(load(runs / "tiny/static"), ResNet)


def test_an_interrupted_teacher_goes_on(tmp_path, trained, monkeypatch):
    advance = Progress.advance

    def stopping(self, images, means):
        advance(self, images, means)
        if self._epochs == 2 and self._step == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Progress, "advance", stopping)
    with pytest.raises(Interrupt, match=r"tiny.robust"):
        go(STATIC, tmp_path / "tiny/static")
    monkeypatch.undo()
    for recipe in (TINY, PGD_AT):
        monkeypatch.setitem(RECIPES._entries, recipe.name, lambda recipe=recipe: recipe)
    go(STATIC, tmp_path / "tiny/static")
    assert read_about(tmp_path / "tiny/robust/last")["epoch"] == 2
    go(STATIC, tmp_path / "other/tiny/static")
    for name in ("tiny/robust", "tiny/static"):
        assert same(weights(tmp_path / name), weights(tmp_path / "other" / name)), name


def test_a_teachers_folder_of_another_experiment_is_left_alone(tmp_path):
    go(replace(TINY, seed=1), tmp_path / "tiny/clean")
    with pytest.raises(Mistake, match=r"tiny.clean holds another experiment"):
        go(STATIC, tmp_path / "tiny/static")


@pytest.mark.parametrize(
    ("out", "own", "expected"),
    [
        ("runs/digits/awnet", "digits/awnet", "runs/digits/teacher"),
        ("runs/mine", "digits/awnet", "runs/digits-teacher"),
        ("runs/digits/mine", "digits/awnet", "runs/digits/digits-teacher"),
        ("awnet", "awnet", "digits/teacher"),
    ],
)
def test_where_teachers_go(out, own, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert module._neighbour(Path(out), own, "digits/teacher") == tmp_path / expected


def with_teachers(clean: str, robust: str) -> Experiment:
    return replace(STATIC, objective=replace(MTARD, clean_teacher=clean, robust_teacher=robust))


def test_a_teacher_from_a_checkpoint(tmp_path, trained):
    clean, robust = go(TINY, tmp_path / "a"), go(replace(TINY, seed=1), tmp_path / "b")
    go(with_teachers(str(clean), str(robust / "last")), tmp_path / "student")
    assert len(trained) == 3
    asked = trained[2]["objective"]
    assert same(asked.clean_teacher.network.state_dict(), weights(clean))
    assert same(asked.robust_teacher.network.state_dict(), weights(robust / "last"))


def test_teachers_that_cannot_be_had(tmp_path, trained):
    out = tmp_path / "out"  # each mistake leaves it free for the next try
    with pytest.raises(Mistake, match="needs a clean teacher: name a checkpoint folder or a recipe"):
        go(with_teachers("", "tiny/robust"), out)
    with pytest.raises(Mistake, match="the clean teacher 'nowhere' is neither a folder nor a recipe"):
        go(with_teachers("nowhere", "tiny/robust"), out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(Mistake, match=r"no checkpoint in .*empty"):
        go(with_teachers(str(tmp_path / "empty"), "tiny/robust"), out)
    assert trained == []


def test_a_teacher_of_other_classes(tmp_path):
    teacher = go(TINY, tmp_path / "teacher")
    about = json.loads((teacher / "best/model.json").read_text())
    (teacher / "best/model.json").write_text(json.dumps({**about, "classes": list("abc")}))
    with pytest.raises(Mistake, match=r"clean teacher in .* has 3 classes, the data 10"):
        go(with_teachers(str(teacher), "tiny/robust"), tmp_path / "student")


@pytest.fixture
def public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Imports weights of another architecture than the recipes' into a folder."""
    network = ResNetConfig(depth=10, width=6)
    monkeypatch.setitem(MODELS._entries, "wider", network)

    def put(folder: Path) -> Path:
        save_file(create(network, classes=10, channels=1).state_dict(), tmp_path / "w.safetensors")
        command = ["import", str(tmp_path / "w.safetensors"), "--model", "wider", "--data", "digits"]
        main([*command, "--out", str(folder)])
        return folder

    return put


def say(folder: Path, **said: Any) -> None:
    """Put something else into a checkpoint's description; None takes it out."""
    about = {**json.loads((folder / "model.json").read_text()), **said}
    (folder / "model.json").write_text(json.dumps({name: value for name, value in about.items() if value is not None}))


def test_public_weights_take_the_place_of_a_teachers_run(tmp_path, trained, public):
    folder = public(tmp_path / "tiny/robust")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    go(STATIC, tmp_path / "tiny/static")
    assert [call["out"].name for call in trained] == ["clean", "static"]
    assert same(trained[1]["objective"].robust_teacher.network.state_dict(), weights(folder))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before, "it is left alone"


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"classes": list("abc")}, r"the clean teacher in .*clean has 3 classes, the data 10"),
        ({"shape": [3, 8, 8]}, r"the clean teacher in .*clean takes 3 channels, the images have 1"),
        ({"public": None}, r"clean is itself a checkpoint, not the folder of a run"),
    ],
)
def test_weights_of_other_images_or_of_nobody_knows_whom_do_not(said, sentence, tmp_path, trained, public):
    say(public(tmp_path / "tiny/clean"), **said)
    with pytest.raises(Mistake, match=sentence):
        go(STATIC, tmp_path / "tiny/static")
    assert trained == []


@pytest.mark.parametrize("name", ["model.json", "config.json"])
def test_no_training_goes_into_a_checkpoint(name, tmp_path, trained, public):
    """Its weights would be read in place of those that were trained."""
    folder = public(tmp_path / "run")
    (folder / "model.json").rename(folder / name)
    for resume in (False, True):
        with pytest.raises(Mistake, match=r"run is itself a checkpoint.*choose another --out"):
            go(TINY, folder, resume=resume)
    assert trained == [] and not (folder / "experiment.json").exists()


def test_teachers_from_python(tmp_path, trained):
    clean, robust = Own(), Own()
    out = go(STATIC, tmp_path / "run", teachers={"clean": clean, "robust": robust})
    (asked,) = (call["objective"] for call in trained)
    assert asked.clean_teacher.network is clean and asked.robust_teacher.network is robust
    saved = json.loads((out / "experiment.json").read_text())["given"]
    assert set(saved) == {"clean teacher", "robust teacher"} and saved["clean teacher"].endswith("test_experiment.Own")
    assert read_about(out)["given"] == saved
    with pytest.raises(Mistake, match=r"its clean teacher \(.*Own\), its robust teacher \(.*\) came from Python"):
        read(out)
    assert isinstance(load(out), ResNet)


def test_one_teacher_from_python(tmp_path, trained):
    """A module that is false as a condition is a module all the same."""

    class Falsy(Own):
        def __len__(self) -> int:
            return 0

    clean = Falsy()
    with pytest.raises(
        Mistake, match=r"the robust teacher, a Own, answers 2 images with \(2, 7\), expected logits \(2, 10\)"
    ):
        go(STATIC, tmp_path / "seven", teachers={"clean": clean, "robust": Own(7)})
    go(STATIC, tmp_path / "tiny/static", teachers={"clean": clean})
    assert [call["out"].name for call in trained] == ["robust", "static"]
    assert trained[1]["objective"].clean_teacher.network is clean


def test_a_role_that_the_objective_does_not_have(tmp_path, trained):
    for experiment, role in ((STATIC, "cleen"), (TINY, "clean")):
        with pytest.raises(Mistake, match=f"teacher.*{role}"):
            go(experiment, tmp_path / experiment.name, teachers={role: Own()})
    assert trained == []


# --- which checkpoint is the best ---


@pytest.mark.parametrize("on", ["validation", "paper"])
def test_images_of_the_selection(on, tmp_path, monkeypatch):
    seen = []
    predict = Engine.predict

    def noted(self, model, examples):
        seen.append(examples)
        return predict(self, model, examples)

    monkeypatch.setattr(Engine, "predict", noted)
    out = go(replace(TINY, selection=replace(TINY.selection, on=on)), tmp_path / "run")
    split = {"validation": "validation", "paper": "test"}[on]
    assert [(examples.split, len(examples)) for examples in seen] == [(split, 20)]
    expected = getattr(load_data(TINY.data), split).sample(20, seed=0)
    assert torch.equal(seen[0].ids, expected.ids)
    for folder in ("best", "last"):
        assert read_about(out / folder)["selection"] == on


def test_score_is_the_weighted_accuracy(tmp_path):
    """Eq. 23, with the named attack; by hand from the checkpoint."""
    selection = Selection(attack="fgsm", gamma_nat=0.3, gamma_adv=0.6, limit=50)
    out = go(replace(TINY, selection=selection, training=replace(TINY.training, epochs=2)), tmp_path / "run")
    (row,) = [r for r in read_about(out)["history"] if r["epoch"] == read_about(out)["epoch"]]
    images = load_data(TINY.data).validation.sample(50, seed=0)
    x, y = images.batch(torch.arange(50))
    model = load(out)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), x)
    x_adv = (x + 0.2 * grad.sign()).clamp(0, 1)
    clean, robust = ((model(images).argmax(1) == y).float().mean().item() for images in (x, x_adv))
    assert row["validation_clean"] == pytest.approx(clean)
    assert row["validation_robust"] == pytest.approx(robust, abs=0.021)
    assert row["validation_score"] == pytest.approx(0.3 * row["validation_clean"] + 0.6 * row["validation_robust"])


def test_clean_training_is_judged_unattacked(tmp_path, monkeypatch):
    monkeypatch.setattr(Engine, "run", lambda *args, **kwargs: pytest.fail("attacked"))
    out = go(replace(TINY, selection=Selection(gamma_nat=1, gamma_adv=0)), tmp_path / "run")
    row = read_about(out)["history"][0]
    assert row["validation_score"] == row["validation_clean"]
    assert "validation_robust" not in row, "nothing was attacked"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"selection": Selection(attack="pgd-satt")}, "no attack is named 'pgd-satt'; did you mean pgd-sat"),
        ({"attacks": ("fgsm", "pgd-20")}, "no attack is named 'pgd-20'"),
        ({"data": replace(TINY.data, validation=0)}, "no validation images"),
    ],
    ids=str,
)
def test_mistakes_of_the_selection_are_found_before_training(change, sentence, tmp_path, trained):
    with pytest.raises(Mistake, match=sentence):
        go(replace(STATIC, **change), tmp_path / "tiny/static")
    assert trained == []


def test_without_validation_images_the_papers_choice_is_left(tmp_path):
    experiment = replace(TINY, data=replace(TINY.data, validation=0), selection=Selection(on="paper", gamma_adv=0))
    few = load_data(experiment.data)
    splits = Splits(few.train.sample(32, seed=0), few.validation, few.test)
    go(experiment, tmp_path / "run", splits=splits)


# --- one folder, one experiment ---


def test_a_folder_holds_one_experiment(tmp_path, trained):
    out = go(TINY, tmp_path / "run")
    for resume in (False, True):
        with pytest.raises(Mistake, match=r"holds another experiment .*choose another --out"):
            go(replace(TINY, seed=1), out, resume=resume)
    with pytest.raises(Mistake, match="holds a run of this experiment already; --resume goes on"):
        go(TINY, out)
    assert len(trained) == 1
    before = weights(out)
    go(TINY, out, resume=True)
    assert same(weights(out), before) and complete(out, TINY)


def test_what_several_need_is_waited_for_and_trained_once(tmp_path, trained):
    out = tmp_path / "run"
    with ThreadPoolExecutor(2) as others:
        with alone(out):  # as another process would hold it
            with pytest.raises(Mistake, match="another process is at work"):
                go(TINY, out)
            both = [others.submit(ensure, TINY, out, quiet=True) for _ in range(2)]
            done, _ = wait(both, timeout=0.3)
            assert not done and not trained
        assert [future.result() for future in both] == [out, out]
    assert complete(out, TINY) and len(trained) == 1


def test_a_run_that_saved_nothing_may_begin_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "train", lambda *args, **kwargs: (_ for _ in ()).throw(ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        go(TINY, tmp_path)
    monkeypatch.undo()
    go(TINY, tmp_path)


def test_a_run_that_died_between_two_renames_is_not_begun_anew(tmp_path):
    out = go(TINY, tmp_path / "run")
    (out / "last").rename(out / "last.previous")
    with pytest.raises(Mistake, match="--resume goes on"):
        go(TINY, out)
    assert complete(out, TINY)
    go(TINY, out, resume=True)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Mistake, match="cannot write to"):
        go(TINY, tmp_path / "file" / "run")


@pytest.mark.parametrize("device", ["gpu", "cuda"])
def test_a_device_that_is_not_there(device, tmp_path):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(Mistake, match="device"):
        go(TINY, tmp_path, device=device)


# --- reading ---


def good() -> dict[str, Any]:
    return {"format": 1, "experiment": to_json(TINY), "given": {}}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "cannot read"),
        (b"{", "cannot read"),
        (b"[]", "cannot read"),
        (b"null", "cannot read"),
        (b"\xff\xfe\x00", "cannot read"),
        ({}, "no experiment can be read"),
        ({"format": 1}, "no experiment can be read"),
        ({**good(), "format": 2}, "has format 2, this version reads 1"),
        ({**good(), "given": ["model"]}, "no experiment can be read"),
        ({**good(), "given": {"model": "somebody.Net"}}, r"its model \(somebody.Net\) came from Python"),
        ({**good(), "experiment": {"kind": "Selection"}}, "should be of kind Experiment, got Selection"),
        ({**good(), "experiment": {**to_json(TINY), "sead": 1}}, "did you mean seed"),
        ({**good(), "experiment": {**to_json(TINY), "seed": "x"}}, r"experiment\.seed"),
        ({**good(), "experiment": {**to_json(TINY), "model": {"kind": "StandardConfig"}}}, r"experiment\.model"),
        ({**good(), "experiment": None}, "should be of kind Experiment"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_experiment(content, sentence, tmp_path):
    file = tmp_path / "experiment.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    for path in (file, tmp_path):
        with pytest.raises(Mistake, match=sentence) as said:
            read(path)
        assert "\n" not in str(said.value)


def test_where_no_experiment_is(tmp_path):
    for path in (tmp_path, tmp_path / "experiment.json"):
        with pytest.raises(Mistake, match="cannot read"):
            read(path)


def test_standard_is_the_default_objective():
    assert isinstance(Experiment().objective, StandardConfig)
