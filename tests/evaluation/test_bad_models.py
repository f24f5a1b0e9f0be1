"""Models and images as users bring them: each is refused in one sentence, or gets the right answer."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from awnet.attacks import APGD, ATTACKS, PGD, Engine, Square, Transfer, fgsm
from awnet.attacks.adaptive import PaperAdaptive
from awnet.attacks.second_network import second_network
from awnet.cli import main
from awnet.config import to_json
from awnet.data import DataConfig, Dataset, load
from awnet.errors import Mistake
from awnet.evaluation import Record
from awnet.evaluation.conventions import (
    LogOdds,
    LogProbabilities,
    are_probabilities,
    are_separate_probabilities,
    better_convention,
)
from awnet.evaluation.evaluate import clear, evaluate
from awnet.evaluation.preflight import Cleared, preflight, tensor_examples
from awnet.evaluation.rigour import rigour
from awnet.losses import Margin
from awnet.models.model import fingerprint
from awnet.modules import load_module
from awnet.threat_model import Linf
from evaluation import misled
from evaluation.misled import Around
from training.tiny import dataset, own

THREAT = Linf(0.1)
ENGINE = Engine(batch_size=16)
DATA = dataset(60, split="test", seed=4)
FGSM = {"fgsm": fgsm(THREAT)}


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """A network that gets most images right."""
    return misled.sound()


def judged(model: nn.Module, data: Dataset = DATA, attacks: Any = FGSM, **more: Any) -> Record:
    return evaluate(model, data, attacks, **{"threat": THREAT, "engine": ENGINE, **more})


def raises(x: Tensor) -> Tensor:
    raise RuntimeError("no such kernel")


def rooted(z: Tensor) -> Tensor:
    return z + (0 * z).sqrt()


def in_place(x: Tensor) -> Tensor:
    return x.mul_(2)


REFUSED: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "too few classes": (lambda net: Around(net, after=lambda z: z[:, :2]), "the model has 2 classes, the images 3"),
    "too many classes": (lambda net: Around(net, after=lambda z: z.repeat(1, 2)), "the model has 6 classes, the images 3"),
    "one number an image": (lambda net: Around(net, after=lambda z: z[:, 0]), r"of shape \(8,\) for 8 images"),
    "classes first": (lambda net: Around(net, after=lambda z: z.T), r"of shape \(3, 8\) for 8 images, expected .* \(8, 3\)"),
    "decided classes": (lambda net: Around(net, after=lambda z: (z > 0).long()), "returns torch.int64"),
    "a tuple": (lambda net: Around(net, after=lambda z: (z, z)), "returns a tuple, expected a tensor of logits"),
    "NaN": (lambda net: Around(net, after=lambda z: z / 0 * 0), "answers 8 of 8 images with NaN"),
    "it raises": (lambda net: Around(net, before=raises), "raises RuntimeError on images of shape .*no such kernel"),
    "no gradient": (lambda net: Around(net, after=misled.without_gradient), "no gradient with respect to the image"),
    "no number as gradient": (lambda net: Around(net, after=rooted), "their gradient .* is not .*look for a square root"),
    "expects normalised images": (lambda net: Around(net, misled.normalised), "normalised by .*it expects .*--trust-range"),
    "expects bytes": (lambda net: Around(net, misled.of_bytes), "multiplied by 255"),
    "nowhere": (lambda net: own(0).to("meta"), "lie on meta; expected one device"),
    "on two devices": (lambda net: nn.Sequential(own(0), nn.Linear(3, 3, device="meta")), "lie on cpu and meta"),
    "other channels": (lambda net: Around(net, before=lambda x: x.repeat(1, 3, 1, 1)), "raises RuntimeError on images"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_attacked_is_refused(case, net, tmp_path):
    plant, said = REFUSED[case]
    with pytest.raises(Mistake, match=said) as caught:
        judged(plant(net), out=tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists(), "nothing was begun"


def test_a_network_may_work_in_place(net):
    first, again = judged(Around(net, before=in_place)), judged(Around(net, before=lambda x: 2 * x))
    assert torch.equal(first.worst, again.worst) and not torch.equal(first.worst, first.clean.correct)


class Gaps(nn.Module):
    """A network that has no answer to some images."""

    def __init__(self, net: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("images", images)

    def forward(self, x: Tensor) -> Tensor:
        among = (x[:, None] == self.images).flatten(2).all(2).any(1)
        return torch.where(among[:, None], torch.nan, self.net(x))


@pytest.mark.parametrize("known", [False, True])
def test_a_few_images_without_an_answer_are_enough(known, net, tmp_path):
    gaps = Gaps(net, DATA.batch(torch.arange(30, 36))[0])
    with pytest.raises(Mistake, match="answers 6 of 60 images with NaN or infinity; look for a division"):
        judged(gaps, out=tmp_path / "out", cleared=Cleared(gaps) if known else None)
    assert not (tmp_path / "out").exists(), "nothing was begun"


def test_attacked_images_without_an_answer_are_remarked(net):
    """They do not count as broken, whatever the place of the NaN, and it is said."""
    attacked = ENGINE.run(FGSM["fgsm"], net, DATA)
    lost = ~attacked.correct & (DATA.labels > 0)
    said = f"the model answers {lost.sum()} of 60 attacked images with NaN or infinity: they count as not broken"
    with pytest.warns(RuntimeWarning, match=said):
        record = judged(Gaps(net, attacked.x_adv[lost]))
    assert lost.any() and record.model["remarks"] == [said]
    assert torch.equal(record.attacks["fgsm"].correct, attacked.correct | lost)


class Watched(Around):
    """Tells attacked images, by how dark they are, and lets nobody push that."""

    def detect(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x), x.flatten(1).mean(1)


REMARKED: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "random": (lambda net: Around(net, after=misled.random), "draws random numbers.*aa-rand"),
    "batch of one loses its dimension": (lambda net: Around(net, after=misled.squeezed), "another shape for a batch of one"),
    "batch of one raises": (lambda net: Around(net, after=lambda z: z if len(z) > 1 else raises(z)), "raises RuntimeError"),
    "neighbours": (lambda net: Around(net, after=misled.neighbours), "depends on the others of its batch"),
    "probabilities": (lambda net: Around(net, after=lambda z: z.softmax(1)), "their logarithm is attacked"),
    "a sigmoid": (lambda net: Around(net, after=lambda z: (4 * z).sigmoid()), "their log-odds are attacked"),
    "a detector without a decision": (Watched, "offers no decision to steer"),
}  # fmt: skip


@pytest.mark.parametrize("case", REMARKED)
def test_what_is_odd_is_said_and_recorded(case, net):
    plant, said = REMARKED[case]
    told: list[str] = []
    record = judged(plant(net), remark=told.append)
    (sentence,) = told
    assert record.model["remarks"] == told and record.model["class"] in ("Around", "Watched")
    assert re.search(said, sentence)
    assert "remarks" not in judged(net).model


def test_probabilities_are_attacked_as_well_as_logits(net):
    attacks = {"ce": APGD(threat=THREAT, steps=10), "margin": APGD(threat=THREAT, steps=10, loss=Margin())}
    soft = Around(net, after=lambda z: z.softmax(1))
    a, b = judged(net, attacks=attacks), judged(soft, attacks=attacks)
    for name in attacks:
        assert torch.equal(a.attacks[name].correct, b.attacks[name].correct)
    assert b.model["fingerprint"] == fingerprint(soft)
    x, _ = DATA.batch(torch.arange(8))
    logits = net(x)
    torch.testing.assert_close(LogProbabilities(soft)(x), logits.log_softmax(1))
    assert are_probabilities(soft(x)) and not are_probabilities(logits) and not are_probabilities(logits.log_softmax(1))


def test_a_sigmoid_holds_no_attack_up(net):
    attacks = {"ce": APGD(threat=THREAT, steps=10), "margin": APGD(threat=THREAT, steps=10, loss=Margin())}
    sharp, squashed = Around(net, after=lambda z: 4 * z), Around(net, after=lambda z: (4 * z).sigmoid())
    a, b = judged(sharp, attacks=attacks), judged(squashed, attacks=attacks)
    for name in attacks:
        assert torch.equal(a.attacks[name].correct, b.attacks[name].correct)
    assert b.model["fingerprint"] == fingerprint(squashed)
    x, _ = DATA.batch(torch.arange(8))
    small = Around(net, after=lambda z: z / 4)
    torch.testing.assert_close(LogOdds(Around(small, after=torch.sigmoid))(x), small(x), atol=1e-4, rtol=1e-4)
    assert are_separate_probabilities(squashed(x)) and not are_separate_probabilities(net(x))
    assert not are_separate_probabilities(net(x).softmax(1))
    extremes = LogOdds(Around(net, after=lambda z: torch.tensor([0.0, 0.5, 1.0]).expand_as(z)))(x)
    assert extremes.isfinite().all() and extremes[0].argsort().tolist() == [0, 1, 2]


@pytest.mark.parametrize("range_", ["[-1, 1]", "255"])
def test_the_right_range_is_named(range_, net):
    wrong = Around(net, misled.of_bytes if range_ == "255" else lambda x: (x + 1) / 2)
    x, y = DATA.batch(torch.arange(60))
    found = better_convention(lambda images: wrong(images).argmax(1) == y, x)
    assert found and (range_ in found.name or "own mean" in found.name)
    assert better_convention(lambda images: net(images).argmax(1) == y, x) is None
    # trusted, it is attacked all the same
    assert len(judged(wrong, trust_range=True)) == 60


class Particular(Around):
    """A network that takes pixels in [0, 1] and no others."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.min() >= 0 and x.max() <= 1, "pixels lie in [0, 1]"
        return super().forward(x)


def test_a_network_may_refuse_other_ranges(net):
    assert judged(Particular(net)).clean_accuracy == judged(net).clean_accuracy
    (finding,) = rigour(Particular(net), DATA, THREAT, engine=ENGINE, checks=["C3"])
    assert finding.status == "pass", finding
    # who refuses some of them may expect another one
    x, y = DATA.batch(torch.arange(60))

    def of_bytes(images: Tensor) -> Tensor:
        if images.min() < 0:
            raise ValueError("pixels are not negative")
        return net(images / 255).argmax(1) == y

    found = better_convention(of_bytes, x)
    assert found and found.name == "multiplied by 255"
    with pytest.raises(ZeroDivisionError):  # of [0, 1] nothing is excused
        better_convention(lambda images: torch.tensor(1 / 0), x)


def test_no_answer_is_no_right_answer(net):
    """NaN outside [0, 1], of a network that is bad anyway: no range in which it is better."""
    ones = DATA.subset((DATA.labels == 0).nonzero()[:, 0])
    blind = Around(net, lambda x: x.sqrt(), lambda z: torch.where(z.isnan(), torch.nan, -z))
    assert preflight(blind, ones, classes=3).remarks == ()


@pytest.mark.parametrize(("n", "told"), [(8, False), (80, True)])
def test_luck_is_no_convention(n, told):
    """Of eight images, three more are nothing; of eighty, thirty are."""
    in_01, in_255 = torch.arange(n) < n // 2, torch.arange(n) < n * 7 // 8
    found = better_convention(lambda x: in_255 if x.max() > 9 else in_01, torch.rand(n, 1, 2, 2))
    assert (found is not None) == told


def test_a_forward_without_a_gradient_can_be_attacked_by_queries(net):
    flat = Around(net, after=misled.without_gradient)
    record = judged(flat, attacks={"square": Square(threat=THREAT, steps=20)})
    assert record.robust_accuracy("square").value < record.clean_accuracy.value


def test_images_that_are_all_wrong_need_no_attack(net):
    wrong = Around(net, after=lambda z: -z)
    right = net(DATA.batch(torch.arange(60))[0]).argmax(1) == DATA.labels
    data = DATA.subset(right.nonzero()[:, 0])
    record = judged(wrong, data, {**FGSM, "aa": ATTACKS["aa"](THREAT)})
    assert record.clean_accuracy.value == record.worst_accuracy.value == record.robust_accuracy("aa").value == 0
    assert all(result.backwards.sum() == 0 for result in record.attacks.values())


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("attack", ["apgd-dlr", "apgd-t", "fab-t"])
def test_two_and_three_classes(classes, attack):
    """Every loss is defined: the linear model's robust images are those beyond eps * |w|_1 from its boundary."""
    data = tensor_examples(torch.rand(12, 1, 4, 4), torch.zeros(12).long(), classes=classes)
    w = torch.randn(16)

    class Plane(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            margin = (x.flatten(1) - 0.5) @ w + 1
            return torch.stack([margin, *(torch.full_like(margin, -k) for k in range(classes - 1))], dim=1)

    outcome = Engine(batch_size=12, channels_last=False).run(ATTACKS[attack](Linf(0.05)), Plane(), data)
    signs = 0.05 * w.sign().view(1, 1, 4, 4)
    truth = Plane()((data.x - signs).clamp(0, 1))[:, 0] > 0
    assert torch.equal(outcome.correct, truth)


BAD_IMAGES: dict[str, tuple[Tensor, Tensor, str]] = {
    "none": (torch.rand(0, 1, 4, 4), torch.zeros(0).long(), "no images"),
    "bytes": (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2).long(), "divide uint8 images by 255"),
    "no channels": (torch.rand(2, 4, 4), torch.zeros(2).long(), r"shape \(n, c, h, w\)"),
    "normalised": (torch.rand(2, 1, 4, 4) * 4 - 2, torch.zeros(2).long(), r"images lie in \[0, 1\]"),
    "a little beyond": (torch.full((2, 1, 4, 4), 1.001), torch.zeros(2).long(), r"images lie in \[0, 1\]"),
    "NaN": (torch.full((2, 1, 4, 4), float("nan")), torch.zeros(2).long(), r"images lie in \[0, 1\]"),
    "a label too high": (torch.rand(2, 1, 4, 4), torch.tensor([0, 3]), "from 0 to 2, got 0 to 3"),
    "a label too low": (torch.rand(2, 1, 4, 4), torch.tensor([-1, 0]), "from 0 to 2, got -1 to 0"),
    "too few labels": (torch.rand(2, 1, 4, 4), torch.tensor([0]), "2 whole numbers"),
    "labels in one-hot": (torch.rand(2, 1, 4, 4), torch.eye(3)[:2], "whole numbers, one an image"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_images_that_are_refused(case):
    x, y, said = BAD_IMAGES[case]
    with pytest.raises(Mistake, match=said):
        tensor_examples(x, y, classes=3)


def test_rounding_is_put_back():
    x = torch.tensor([-3e-8, 1 + 1e-7]).view(1, 1, 1, 2)
    assert tensor_examples(x, torch.tensor([1]), classes=3).x.flatten().tolist() == [0, 1]


def test_an_empty_set(net):
    empty = DATA.subset(torch.zeros(0, dtype=torch.int64))
    with pytest.raises(Mistake, match="no test images"):
        judged(net, empty)
    with pytest.raises(Mistake, match="no images"):
        preflight(net, empty, classes=3)


def test_a_look_that_was_taken_is_not_taken_again(net):
    soft, told = Around(net, after=lambda z: z.softmax(1)), []
    cleared = clear(soft, DATA, FGSM)
    once = judged(Around(net, after=misled.random), remark=told.append, cleared=cleared)
    assert once.model["remarks"] == told == list(cleared.remarks), "not of what it draws"
    assert once.model["class"] == "Around" and torch.equal(once.worst, judged(soft).worst), (
        "what was cleared is attacked"
    )
    with pytest.raises(Mistake, match="no gradient"):
        clear(Around(net, after=misled.without_gradient), DATA, FGSM)
    clear(Around(net, after=misled.without_gradient), DATA, {"square": Square(threat=THREAT)})


def test_the_look_leaves_no_trace(net):
    model = own(1).train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    generator = torch.get_rng_state()
    preflight(model, DATA, classes=3)
    assert model.training and model.bn.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state())


# --- the command line ---

MINE = """
import torch
from torch import nn

def net(classes=10):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()
    def forward(self, x):
        return self.net(x)

class Soft(Net):
    def forward(self, x):
        return self.net(x).softmax(1)

class Blank(Net):
    def forward(self, x):
        return self.net(x) * float("nan")

class Bytes(nn.Module):
    "The nearest mean of a class, of pixels from 0 to 255."
    def __init__(self):
        super().__init__()
        from awnet.data import DataConfig, load
        digits = load(DataConfig(name="digits")).train
        x, y = digits.batch(torch.arange(len(digits)))
        self.register_buffer("means", torch.stack([x[y == k].mean(0).flatten() for k in range(10)]))
    def forward(self, x):
        return 20 * (x.flatten(1) / 255 @ self.means.T - self.means.square().sum(1) / 2)

class Drawing(Bytes):
    def forward(self, x):
        return super().forward(255 * x) + torch.randn(len(x), 10)

class Holder:
    inner = Net()

def three():
    return net(3)

def failing():
    raise OSError("no weights here")

def hollow():
    return net().to("meta")

def needs(argument):
    return net()

def coloured():
    return nn.Sequential(nn.Conv2d(3, 10, 8), nn.Flatten())

number = 3
def text():
    return "net"
"""
BOUND = ["--data", "digits", "--eps", "8/255", "--norm", "linf", "--limit", "20"]
OWN = [*BOUND, "--attacks", "fgsm"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "shattered.py").write_text("import nowhere_to_be_found")
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "shattered"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize("spec", ["mine:net", "mine:Net", "mine:Holder.inner"])
def test_a_network_of_ones_own_in_one_line(spec, here, capsys):
    main(["evaluate", spec, *OWN])
    (record,) = (Record.load(path.parent) for path in here.glob("records/*/record.json"))
    assert record.label == spec and record.model["spec"] == spec and record.model["parameters"] == 650
    assert (
        record.model["fingerprint"] and record.threat["text"] == "Linf 8/255" and record.classes == tuple("0123456789")
    )
    assert str(here) not in sys.path
    main(["evaluate", spec, *OWN, "--resume"])
    assert "record: records/" in capsys.readouterr().out


def calls_of(name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What a function is given from now on, call by call; last what is given by name."""
    home, calls = import_module(f"awnet.evaluation.{module}"), []
    function = getattr(home, name)

    def called(*given: Any, **more: Any) -> Any:
        calls.append((*given, more))
        return function(*given, **more)

    monkeypatch.setattr(home, name, called)
    return calls


def test_a_bound_is_of_the_model_that_was_cleared(here, capsys, monkeypatch):
    bounds = calls_of("anytime", "within", monkeypatch)
    main(["evaluate", "mine:Soft", *BOUND, "--budget", "0.2s"])
    printed = capsys.readouterr()
    assert printed.err.count("note: the outputs are probabilities") == 1 and "of 20 images within 0.2s" in printed.out
    ((model, images, threat, more),) = bounds
    assert isinstance(model, LogProbabilities) and threat == Linf(8 / 255)
    assert len(images) == more["images"] == 20, "of more than a thousand images too, if that is asked for"
    (place,) = Path("records").iterdir()
    assert Record.load(place).model["class"] == "Soft"
    main(["evaluate", "mine:Bytes", *BOUND, "--budget", "0.2s", "--trust-range"])


def test_the_checks_are_of_the_model_that_was_cleared(here, capsys, monkeypatch):
    looks, checks = calls_of("preflight", "evaluate", monkeypatch), calls_of("rigour", "rigour", monkeypatch)
    main(["evaluate", "mine:Soft", *OWN, "--rigour", "--rigour-images", "5", "--out", "out"])
    assert capsys.readouterr().err.count("note: the outputs are probabilities") == 1 and len(looks) == 1
    ((model, images, *_),) = checks
    record = Record.load(Path("out"))
    assert isinstance(model, LogProbabilities) and torch.equal(images.ids, record.ids)
    assert record.model["class"] == "Soft" and record.model["fingerprint"] == fingerprint(model.model)
    (remark,) = record.model["remarks"]
    assert "their logarithm is attacked" in remark and "probabilities" not in record.rigour[2].meaning


def test_the_checks_from_the_command_line(here, capsys):
    main(["evaluate", "mine:Soft", *OWN, "--rigour", "--rigour-images", "5", "--out", "out"])
    printed = capsys.readouterr()
    assert "note: the outputs are probabilities" in printed.err and "Can these numbers be believed?" in printed.out
    record = Record.load(Path("out"))
    assert [finding.code for finding in record.rigour] == [f"C{k}" for k in range(1, 11)]
    main(["evaluate", "mine:Soft", *OWN, "--out", "out", "--resume"])
    assert Record.load(Path("out")).rigour == record.rigour, "nothing was added: the findings still stand"
    main(["evaluate", "mine:Soft", *OWN, "pgd-sat", "--out", "out", "--resume"])
    assert Record.load(Path("out")).rigour == (), "findings of another record are none of this one"


@dataclass(frozen=True)
class Typed:
    argv: list[str]
    says: str


MISTAKES = {
    "no eps": Typed(["mine:net", "--data", "digits", "--norm", "linf"], "give --eps too"),
    "nothing": Typed(["mine:net"], "give --data, --eps, --norm too"),
    "no module": Typed(["nowhere:net", *OWN], "importing nowhere"),
    "a module that raises": Typed(["shattered:net", *OWN], "No module named 'nowhere_to_be_found'"),
    "no attribute": Typed(["mine:nett", *OWN], "mine has no nett"),
    "a number": Typed(["mine:number", *OWN], "mine:number is a int"),
    "a function of text": Typed(["mine:text", *OWN], "returns a str, expected an nn.Module"),
    "a function that raises": Typed(["mine:failing", *OWN], "raises OSError: no weights here"),
    "a function of arguments": Typed(["mine:needs", *OWN], "called without arguments"),
    "no numbers": Typed(["mine:hollow", *OWN], "on the meta device); load its weights"),
    "images for no checks": Typed(["mine:net", *OWN, "--rigour-images", "5"], "give --rigour too"),
    "three classes": Typed(["mine:three", *OWN], "the model has 3 classes, the images 10"),
    "three classes within a budget": Typed(
        ["mine:three", *BOUND, "--budget", "2s"], "the model has 3 classes, the images 10"
    ),
    "NaN within a budget": Typed(
        ["mine:Blank", *BOUND, "--budget", "2s"], "answers 8 of 8 images with NaN or infinity"
    ),
    "bytes within a budget": Typed(
        ["mine:Bytes", *BOUND, "--budget", "2s"], "multiplied by 255: it expects these pixels"
    ),
    "a budget for no image": Typed(
        ["mine:net", *BOUND[:-1], "0", "--budget", "2s"], "at least 1 image, got a limit of 0"
    ),
    "no device": Typed(["mine:net", *OWN, "--device", "tpu"], "cpu or cuda"),
    "a knob": Typed(["mine:net", *OWN, "--p-max", "0.5"], "AW-Net"),
    "no images for the checks": Typed(["mine:net", *OWN, "--rigour", "--rigour-images", "0"], "1 or more images"),
    "no timm": Typed(["timm:resnet18", *OWN], "needs timm, which is not installed"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_told_in_one_sentence(case, here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", *MISTAKES[case].argv])
    printed = capsys.readouterr().err
    assert stopped.value.code == 2 and printed.startswith("awnet: ") and printed.count("\n") == 1, printed
    assert MISTAKES[case].says in printed
    assert not list(here.glob("records/*/record.json"))


def test_the_folder_of_another_run(here, capsys):
    main(["evaluate", "mine:net", *OWN, "--out", "out"])
    with pytest.raises(SystemExit):
        main(["evaluate", "mine:Soft", *OWN, "--out", "out", "--resume"])
    assert "another evaluation (network differ" in capsys.readouterr().err


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the library what is used of it."""

    def create_model(name: str, pretrained: bool) -> nn.Module:
        assert (name, pretrained) == ("tiny", True)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        model.pretrained_cfg = {"mean": (0.5,), "std": (0.25,)}
        return model

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))


def test_a_network_of_timm_is_normalised(here, timm):
    model = load_module("timm:tiny", "cpu")
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(model(x), model[1]((x - 0.5) / 0.25))


@pytest.mark.parametrize("spec", ["mine:Net", "timm:tiny"])
def test_any_network_is_a_surrogate(spec, here, timm, capsys):
    """Its images are those of the attack on it by itself; the name stands in the record, by which it is found again."""
    surrogates = ["--surrogates", spec, "--out", "out"]
    main(["evaluate", "mine:net", *OWN, *surrogates])
    record = Record.load(Path("out"))
    assert list(record.attacks) == ["fgsm", f"pgd-sat from {spec}", f"cw-inf from {spec}"]
    for name in ("pgd-sat", "cw-inf"):
        transferred, attack = record.attacks[f"{name} from {spec}"], ATTACKS[name](Linf(8 / 255))
        assert isinstance(attack, PGD) and not transferred.backwards.any()
        assert transferred.settings == to_json(Transfer(attack=attack, surrogate=spec))
    network = second_network(spec, torch.device("cpu"))
    chosen = load(DataConfig(name="digits")).test.sample(20, seed=0)
    images = ENGINE.run(ATTACKS["pgd-sat"](Linf(8 / 255)), network, chosen).x_adv
    shown = load_module("mine:net", "cpu")(images).argmax(1) == chosen.labels
    assert torch.equal(record.attacks[f"pgd-sat from {spec}"].correct, shown)
    main(["evaluate", "mine:net", *BOUND, "--attacks", "fgsm", "pgd-sat", *surrogates, "--resume"])
    again = Record.load(Path("out"))
    assert again.attacks.keys() == {*record.attacks, "pgd-sat"}
    assert again.attacks[f"cw-inf from {spec}"].seconds == record.attacks[f"cw-inf from {spec}"].seconds, (
        "not run again"
    )
    main(["verify", "out"])
    assert "verified: " in capsys.readouterr().out


def test_any_network_is_a_teacher(here, timm):
    main(["evaluate", "mine:net", *OWN, "--teacher", "timm:tiny", "--out", "out"])
    record = Record.load(Path("out"))
    for how in ("with", "through"):
        found = record.attacks[f"adaptive-paper {how} timm:tiny"]
        attack = PaperAdaptive(threat=Linf(8 / 255), teacher="timm:tiny", through_teacher=how == "through")
        assert found.settings == to_json(attack) and (found.backwards == 20).all()


def test_what_draws_is_verified_on_average(here, capsys):
    """And where single draws were lucky, it is said what attacks their mean."""
    torch.manual_seed(0)
    main(["evaluate", "mine:Drawing", *OWN, "--out", "out"])
    capsys.readouterr()
    main(["verify", "out"])
    said = capsys.readouterr()
    assert said.err == "note: the model draws random numbers: no verdict can be had again, only their mean\n"
    assert "verified: " in said.out and "on average over 20 draws" in said.out.splitlines()[-1]
    record = Record.load(Path("out"))
    all_broken = replace(record.attacks["fgsm"], correct=torch.zeros(len(record), dtype=torch.bool))
    replace(record, attacks={"fgsm": all_broken}).save(Path("out"))
    with pytest.raises(SystemExit) as end:
        main(["verify", "out"])
    said = capsys.readouterr().out
    assert end.value.code == 1 and "NOT verified: " in said and "--attacks aa-rand (EOT) attacks their mean" in said


@pytest.mark.parametrize("role", ["surrogate", "teacher"])
@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("mine:three", "the {} mine:three cannot be used: the model has 3 classes, the images 10"),
        ("mine:Soft", "the {} mine:Soft returns probabilities, on which attacks are weak"),
        ("mine:Bytes", "the {} mine:Bytes cannot be used: the model is right on 12 % of the images in [0, 1]"),
        ("mine:coloured", "cannot be used: the model raises RuntimeError on images of shape (8, 1, 8, 8)"),
        ("mine:needs", "mine:needs() raises TypeError"),
        ("mine:nothing", "mine has no nothing"),
        ("timm:other", "timm"),
    ],
)
def test_a_second_network_that_does_not_fit_is_told_before_any_attack(role, spec, sentence, here, timm, capsys):
    named = ["--surrogates", "mine:Net", spec] if role == "surrogate" else ["--teacher", spec]
    with pytest.raises(SystemExit) as end:
        main(["evaluate", "mine:net", *OWN, *named, "--out", "out"])
    said = capsys.readouterr().err.strip()
    assert end.value.code == 2 and sentence.format(role) in said and "\n" not in said
    assert not Path("out").exists()
