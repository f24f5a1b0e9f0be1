"""The whole way from names to pages on digits, and what a second call does again."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from awnet.cli import main
from awnet.errors import Mistake
from awnet.evaluation.metrics import mean_difference
from awnet.experiment import RECIPES
from awnet.models.awnet import AWNetConfig
from awnet.models.model import MODELS, create
from awnet.models.resnet import ResNetConfig
from awnet.models.router import RouterConfig
from awnet.recipes.paper import SYSTEMS, At
from awnet.recipes.scale import SMALL, Scale
from awnet.reproduce import TABLES, Bench, Line, Table, claims, measured, needs, produce
from awnet.reproduce.bench import Job
from awnet.reproduce.produce import missing

TINY = ResNetConfig(depth=10, width=4)
SCALE = replace(
    SMALL,
    name="tiny",
    networks={
        "resnet18": TINY,
        "resnet34": TINY,
        "awnet": AWNetConfig(base=TINY, router=RouterConfig(backbone=TINY)),
    },
    training=replace(SMALL.training, epochs=1, precision="32-true", validate_every=1),
    static=replace(SMALL.static, epochs=1, precision="32-true", validate_every=1),
    selection=20,
    teachers={"digits": ("digits/standard", "digits/pgd-at")},
    seeds=1,
    images=60,
    few=30,
)
TABLE = Table(
    name="table0",
    title="A table of the tests",
    data="digits",
    attacks=("fgsm", "cw-inf"),
    lines=(
        Line(label="baseline", system="trades-resnet18", clean=50.0, attacked={"fgsm": 40.0, "cw-inf": 30.0}),
        Line(label="AW-Net", system="awnet-pgd-at", clean=60.0, attacked={"fgsm": 42.0, "cw-inf": 30.0}),
        Line(label="another", system="awnet-trades", clean=10.0, attacked={"fgsm": 10.0, "cw-inf": 10.0}),
    ),
    claims=(("awnet-pgd-at", ()),),
    notes=("a slip of the tests",),
)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    for name in ("trades-resnet18", "awnet-pgd-at", "awnet-trades"):
        at = At("digits", SCALE)
        monkeypatch.setitem(RECIPES._entries, at.name(name), lambda at=at, name=name: SYSTEMS[name][2](at))
    monkeypatch.setitem(TABLES, TABLE.name, TABLE)
    return Bench(out=tmp_path, scale=SCALE)


def text(bench: Bench, **options: object) -> str:
    console = Console(file=StringIO(), width=200)
    produce(bench, ["table0"], console=console, **options)  # type: ignore[arg-type]
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_a_table_is_run_shown_and_not_run_again(bench: Bench):
    before = text(bench, run=False)
    assert before.count("not run") == 3 * 2 + 2  # three lines in two blocks, and two claims

    first = text(bench, only=("trades-resnet18", "awnet-pgd-at"))
    assert first.count("trains tiny/digits/") == 2
    assert first.count("not run") == 2 + 2  # one line in two blocks, which keeps two claims open
    page = (bench.out / "tiny" / "table0.md").read_text()
    assert "records/digits/trades-resnet18/white/record.json" in page and "a slip of the tests" in page
    assert "another, A_w" not in page and page.count("AW-Net, A_w under") == 2
    for link in ("records/digits/trades-resnet18/white/record.json", "records/digits/awnet-pgd-at/white/record.json"):
        assert (bench.out / "tiny" / link).exists()

    again = text(bench, only=("trades-resnet18", "awnet-pgd-at"))
    assert "trains" not in again and "attacks" not in again
    assert again == first[first.index("table0") :]


def test_the_numbers_are_those_of_the_records(bench: Bench):
    text(bench, only=("trades-resnet18", "awnet-pgd-at"))
    found = measured(bench, TABLE)
    ours = found.of("awnet-pgd-at")
    record = bench.record("digits", "awnet-pgd-at", 0, "white")
    other = bench.record("digits", "trades-resnet18", 0, "white")
    assert record is not None and other is not None and len(record) == 60
    clean, attacked = record.clean.correct.double(), record.attacks["fgsm"].correct.double()
    value, weighed = ours.adversarial("fgsm"), ours.weighed("fgsm")
    assert value is not None and value.mean == attacked.mean() and value.deviation is None
    assert weighed is not None and weighed.mean == pytest.approx(float(clean.mean() + attacked.mean()) / 2)

    first = next(claims(found))
    assert first.printed == pytest.approx(51.0 - 45.0) and first.rival == first.our_rival == "baseline"
    gap = (clean + attacked) / 2
    theirs = (other.clean.correct.double() + other.attacks["fgsm"].correct.double()) / 2
    assert first.ours == mean_difference([gap], [theirs])
    assert first.ours is not None and first.ours.value == pytest.approx(float((gap - theirs).mean()))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.3, "holds"), (-0.3, -0.01, "does not hold"), (-0.1, 0.1, "not distinguishable")],
)
def test_what_a_claim_is_worth(low: float, high: float, verdict: str):
    from awnet.evaluation.metrics import Difference
    from awnet.reproduce import Claim

    gap = Difference((low + high) / 2, low, high)
    claim = Claim(system="a", attack="aa", rival="b", printed=1.0, our_rival="b", ours=gap)
    assert claim.verdict == verdict
    assert replace(claim, ours=None).verdict == "not run"
    # a rival that has not been run may be better than the best so far, and none makes up for a loss
    assert replace(claim, waiting=1).verdict == (verdict if verdict == "does not hold" else "not run")


def test_every_network_comes_once_with_all_that_it_has_to_face():
    bench = Bench(out=Path("nowhere"), scale=SMALL)
    jobs = needs(bench, TABLES.values())
    assert len({job[:3] for job in jobs}) == len(jobs)
    assert all(len(set(job.batteries)) == len(job.batteries) for job in jobs)
    by_key = {job[:3]: set(job.batteries) for job in jobs}
    assert by_key["cifar10", "awnet", 0] == {"white", "aa", "transfer", "adaptive-paper", "adaptive", "deep-sloth"}
    assert ("cifar10", "awnet", 2) in by_key and ("cifar10", "resnet50", 1) not in by_key
    assert by_key["cifar10", "resnet18", 1] == {"white"}
    assert {job.system for job in needs(bench, TABLES.values(), only=("hat-resnet18",))} == {"hat-resnet18"}


def test_seeds_share_their_teachers():
    second = RECIPES["small/cifar10/awnet-seed1"]()
    assert (second.seed, second.teacher_seed) == (1, 0)
    first = RECIPES["small/cifar10/awnet"]()
    assert replace(second, name=first.name, seed=0, teacher_seed=None) == first


@pytest.fixture
def public(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Public weights in the folder of a system that others meet as the surrogate."""
    monkeypatch.setattr(MODELS, "_entries", {**MODELS._entries, "tiny": TINY})
    file, out = bench.out / "w.safetensors", bench.run_folder("digits", "trades-resnet18")
    save_file(create(TINY, classes=10, channels=1).state_dict(), file)
    main(["import", str(file), "--model", "tiny", "--data", "digits", "--out", str(out)])
    return out


def test_public_weights_are_used_where_a_run_would_be(bench: Bench, public: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("awnet.experiment._run", lambda *args, **options: pytest.fail("trained"))
    bench = replace(bench, scale=replace(SCALE, surrogates={"digits": "tiny/digits/trades-resnet18"}))
    before, said = {path.name for path in public.iterdir()}, list[str]()
    bench.attack(Job("digits", "trades-resnet18", 0, ("transfer",)), said.append)
    assert said[:2] == [f"uses the public weights in {public}"] * 2, "as the system, and as the surrogate"
    assert {path.name for path in public.iterdir()} == before
    record = bench.record("digits", "trades-resnet18", 0, "transfer")
    assert record is not None and record.model["public"]["file"] == "w.safetensors"


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"classes": list("abc")}, "has 3 classes, the data 10"),
        ({"shape": [3, 8, 8]}, "takes 3 channels, the images have 1"),
    ],
)
def test_public_weights_for_other_images(bench: Bench, public: Path, said: dict[str, Any], sentence: str):
    about = json.loads((public / "model.json").read_text())
    (public / "model.json").write_text(json.dumps({**about, **said}))
    with pytest.raises(Mistake, match=f"the network in .*trades-resnet18 {sentence}"):
        bench.train("digits", "trades-resnet18")


def test_a_mistake_in_a_name_is_one_sentence(bench: Bench):
    with pytest.raises(Mistake, match="none of nobody is in table0"):
        text(bench, only=("nobody",))
    with pytest.raises(Mistake, match="what is there is shown whole"):
        text(bench, only=("awnet-pgd-at",), run=False)
    with pytest.raises(Mistake, match="none of resnet34 is in fig1, table5"):
        produce(bench, ["fig1", "table5"], console=Console(file=StringIO()), only=("resnet34",))


def test_what_is_not_a_table_is_shared_out_too():
    """Processes are sent what figures and detectors need, as they are sent the networks of tables."""
    work = list(missing(Bench(out=Path("nowhere"), scale=SMALL), ["table10", "table5", "fig3"], ()))
    assert [one.what for one in work[:2]] == ["cifar10/awnet", "cifar100/awnet"]
    assert "the detectors on awnet" in [one.what for one in work]
    assert [one.what for one in work][-1] == "cifar10/wrn-34-8"
    assert pickle.dumps(work)


def test_scales_differ_in_size_alone():
    scales: list[Scale] = [SCALE, SMALL]
    for scale in scales:
        found = SYSTEMS["awnet"][2](At("cifar10", replace(scale, teachers=SMALL.teachers)))
        assert found.threat.eps == 8 / 255 and found.name == f"{scale.name}/cifar10/awnet"


def test_values_of_several_seeds_are_averaged():
    from awnet.reproduce.measured import Value

    value = Value.of([0.5, 0.7])
    assert value.mean == pytest.approx(0.6) and value.deviation == pytest.approx(float(torch.tensor([0.5, 0.7]).std()))


def test_only_some_systems_of_a_figure_are_trained(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    trained: list[str] = []
    monkeypatch.setattr(Bench, "train", lambda self, data, system, *more: trained.append(system))
    produce(bench, ["fig1"], console=Console(file=StringIO()), only=("mart-resnet18",))
    assert trained == ["mart-resnet18"]
    produce(bench, ["fig1"], console=Console(file=StringIO()))
    assert trained[1:] == ["standard-resnet18", "mart-resnet18", "resnet18", "rslad-resnet18"]
