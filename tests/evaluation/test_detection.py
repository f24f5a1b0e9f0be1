"""A detector's figures by hand, and the whole judgement on networks small enough to know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from math import isnan
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import awnet.evaluation.detection
from attacks.nets import lively
from awnet.attacks import APGD, FAB, PGD, Engine, TensorExamples, fgsm
from awnet.attacks.adaptive import evasions
from awnet.attacks.adaptive.steer import Steer
from awnet.config import from_json
from awnet.conformance.planted import Planted, planted_sample
from awnet.data import Dataset
from awnet.detection import MaxSoftmax
from awnet.detection.own_decision import deciding
from awnet.errors import Mistake
from awnet.evaluation.benign import BENIGN
from awnet.evaluation.detection import LOWERED, UNFOLLOWED, Detection, Seen, detection, has_slope, scores
from awnet.evaluation.detectors import compare
from awnet.models import MODELS, AWNetConfig, ResNetConfig, create
from awnet.models.model import Deciding
from awnet.noise import Noise
from awnet.threat_model import L1, L2, Linf, ThreatModel

BALL = Linf(0.1)
DOCS = Path(__file__).parents[2] / "docs"


def seen(score: list[float], correct: list[int], changed: list[int] | None = None) -> Seen:
    of = torch.tensor(changed or [1] * len(score)).bool()
    return Seen(score=torch.tensor(score), correct=torch.tensor(correct).bool(), changed=of)


def by_hand() -> Detection:
    return Detection(
        threat=BALL,
        clean=seen([4.0, 3.0, 2.0, 1.0], [1, 1, 1, 0], [0, 0, 0, 0]),
        benign={"noise": seen([0.5, 1.5, 2.5, 3.5], [1, 1, 1, 1])},
        attacked={"a": seen([0.0, 5.0, 1.5, 0.0], [0, 1, 0, 0])},
        halved={"a": seen([0.0, 5.0, 1.5, 0.0], [1, 1, 0, 0])},
        evaded={0.25: torch.tensor([False, True, False, False])},
        evaded_halved={0.25: torch.tensor([False, False, False, False])},
    )


def stored(folder: Path) -> Detection:
    """What the arrays of a record say; where they do not say which images an attack changed, it changed all."""
    arrays = load_file(folder / "detection.safetensors")
    threat = json.loads((folder / "detection.json").read_text())["threat"]
    del threat["text"]

    def sets(kind: str) -> dict[str, Seen]:
        names = [name.removesuffix("/score") for name in arrays if name.startswith(kind) and name.endswith("/score")]
        return {
            name.removeprefix(f"{kind}/"): Seen(
                score=arrays[f"{name}/score"],
                correct=arrays[f"{name}/correct"],
                changed=arrays.get(f"{name}/changed", torch.ones_like(arrays[f"{name}/correct"])),
            )
            for name in names
        }

    def hits(kind: str) -> dict[float, Tensor]:
        return {float(name.removeprefix(kind)): t for name, t in arrays.items() if name.startswith(kind)}

    shares = sorted({name.split("/")[1] for name in arrays if name.startswith("nearer/")})
    return Detection(
        threat=from_json(threat),
        clean=sets("clean")["clean"],
        benign=sets("benign"),
        attacked=sets("attacked"),
        halved=sets("halved"),
        nearer={float(share): sets(f"nearer/{share}") for share in shares},
        evaded=hits("evaded/"),
        evaded_halved=hits("evaded halved/"),
        cleanest=arrays.get("cleanest"),
        cleanest_halved=arrays.get("cleanest halved"),
    )


def test_figures_by_hand(tmp_path: Path):
    found = by_hand()
    # at 25 % false alarms the threshold is 2: one clean image of four lies below
    assert found.false_alarms(0.25, "noise") == 0.5
    assert found.noticed(0.25, "a") == 0.75
    assert found.noticed(0.25, "a", fooled=True) == 1.0  # the last one was wrong before the attack
    assert found.auc("a") == pytest.approx((4 + 0 + 3 + 4) / 16)
    assert found.auc("a", fooled=True) == pytest.approx((4 + 3) / 8)
    assert found.with_rejection(0.25).value == 0.5 and found.with_rejection(0.25, halved=True).value == 0.75
    assert found.robust().value == 0.25 and found.robust(halved=True).value == 0.5
    found.save(tmp_path / "record", {})
    assert json.loads((tmp_path / "record" / "detection.json").read_text())["figures"] == found.figures()
    assert stored(tmp_path / "record").figures() == found.figures()


def test_what_looks_cleanest_of_all_that_fools_the_class_by_hand(tmp_path: Path):
    none = float("nan")
    found = replace(
        by_hand(),
        cleanest=torch.tensor([2.5, none, 1.5, 9.0]),  # the last one was wrong before the attack
        cleanest_halved=torch.tensor([none, none, none, 9.0]),
        remarks=("so it is",),
    )
    figures = found.figures()["under evasion"]
    assert figures["eps"] == {"fooled": 2, "AUC, at most": pytest.approx((2 + 3) / 8), "noticed at 0.25": 0.5}
    assert figures["eps/2"]["fooled"] == 0 and isnan(figures["eps/2"]["AUC, at most"])
    assert "under evasion" not in by_hand().figures(), "records written without are read as they are"
    found.save(tmp_path / "record", {})
    said = json.loads((tmp_path / "record" / "detection.json").read_text())
    assert said["remarks"] == ["so it is"] and said["figures"]["under evasion"]["eps"] == figures["eps"]
    assert stored(tmp_path / "record").figures()["under evasion"]["eps"] == figures["eps"]


def test_other_radii_stand_beside_the_two_and_count_in_no_worst_case():
    nearer = {0.125: {"a": seen([4.0, 1.5, 1.0, 9.0], [1, 1, 1, 0])}}
    found = replace(by_hand(), nearer=nearer)
    assert list(found.by_radius("a")) == [0.125, 0.5, 1.0]
    assert found.figures()["by radius"]["a"] == {
        "0.125": {"accuracy": 0.75, "noticed at 0.25": 0.5},
        "0.5": {"accuracy": 0.5, "noticed at 0.25": 0.75},
        "1": {"accuracy": 0.25, "noticed at 0.25": 0.75},
    }
    assert found.robust() == by_hand().robust() and found.with_rejection(0.25) == by_hand().with_rejection(0.25)
    with pytest.raises(Mistake, match="shares of eps between 0 and 1"):
        detection(nn.Flatten(), digits(4), lambda ball: {}, threat=BALL, shares=(0.5, 1.0))


def test_what_falls_at_half_of_eps_falls_at_eps():
    found = replace(by_hand(), halved={"a": seen([0.0, 5.0, 1.5, 0.0], [1, 0, 1, 1])})
    assert found.robust(halved=True).value == 0.5 and found.robust().value == 0.0


def test_an_image_that_an_attack_left_as_it_was_is_not_attacked():
    found = replace(by_hand(), attacked={"a": seen([0.0, 3.0, 2.0, 1.0], [0, 1, 1, 0], [1, 0, 0, 0])})
    assert found.auc("a") == found.auc("a", fooled=True) == 1.0
    assert found.noticed(0.25, "a") == found.noticed(0.25, "a", fooled=True) == 1.0
    assert found.figures()["attacks"]["a"]["changed"] == 1
    found = replace(found, attacked={"a": seen([4.0, 3.0, 2.0, 1.0], [1, 1, 1, 0], [0, 0, 0, 0])})
    assert all(isnan(value) for value in (found.auc("a"), found.noticed(0.25, "a")))


@pytest.mark.parametrize("name", ["cifar10", "demo"])
def test_the_committed_figures_are_those_of_their_arrays(name: str):
    folder = DOCS / name / "detection"
    found = stored(folder)
    assert json.loads((folder / "detection.json").read_text())["figures"] == found.figures()
    assert found.robust().value <= found.robust(halved=True).value
    strict, lax = max(found.evaded), min(found.evaded)
    for less, more in [
        *((found.evaded_halved[rate], found.evaded[rate]) for rate in found.evaded),
        *((evaded[strict], evaded[lax]) for evaded in (found.evaded, found.evaded_halved)),
    ]:
        assert not (less & ~more).any()


@pytest.mark.parametrize("name", BENIGN)
@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5), L1(3.0)], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_benign_changes_are_images_one_at_a_time(name: str, threat, channels: int):
    x = torch.rand(5, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    changed = BENIGN[name](x, threat, Noise(0, torch.arange(5)))
    assert changed.shape == x.shape and changed.dtype == x.dtype and not torch.equal(changed, x)
    assert changed.min() >= 0 and changed.max() <= 1
    alone = BENIGN[name](x[3:4], threat, Noise(0, torch.tensor([3])))
    torch.testing.assert_close(alone, changed[3:4])
    if name in ("uniform noise", "sign noise"):
        assert threat.contains(x, changed).all()
        assert (threat.distance(x, changed) > threat.eps / 10).all()


def test_blur_and_jpeg_by_hand():
    noise = Noise(0, torch.arange(1))
    even = torch.full((1, 1, 4, 4), 0.5)
    assert torch.equal(BENIGN["blur"](even, BALL, noise), even)
    torch.testing.assert_close(BENIGN["JPEG"](even, BALL, noise), even, atol=1 / 255, rtol=0)
    peak = torch.zeros(1, 1, 5, 5)
    peak[0, 0, 2, 2] = 1
    spread = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    assert torch.equal(BENIGN["blur"](peak, BALL, noise)[0, 0, 1:4, 1:4], spread)


class Detector(nn.Module):
    """A class by one pixel and P(clean) by another."""

    def detect(self, x: Tensor) -> tuple[Tensor, Tensor]:
        height = x[:, 0, 0, 0] - 0.5
        return torch.stack([-height, height], dim=1), (1 - x[:, 0, 0, 1]).clamp(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.detect(x)[0]


def digits(n: int) -> Dataset:
    x = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    y, ids = torch.arange(n) % 5, torch.arange(n)
    return Dataset(name="made", split="test", images=x, labels=y, ids=ids, classes=tuple("abcde"))


class Watches(nn.Module):
    """A class by one pixel; an image is clean where another pixel is as bright, of which it is too sure for most of float32."""

    def detect(self, x: Tensor) -> tuple[Tensor, Tensor]:
        height = x[:, 0, 0, 0] - 0.5
        return torch.stack([-height, height], dim=1), (300 * (x[:, 0, 0, 1] - x[:, 0, 0, 0])).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.detect(x)[0]


class Single(Watches):
    """Answers no image by itself."""

    def detect(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if len(x) == 1:
            raise RuntimeError("expected more than 1 value per channel")
        return super().detect(x)


def near_the_boundary() -> Dataset:
    images = torch.full((5, 3, 8, 8), 64, dtype=torch.uint8)
    images[:, 0, 0, 0] = images[:, 0, 0, 1] = torch.tensor([60, 112, 116, 120, 124])  # of 255; one too far
    return Dataset("made", "test", images, torch.zeros(5, dtype=torch.int64), torch.arange(5), tuple("ab"))


def short(threat: ThreatModel, caught: float) -> Mapping[str, Steer]:
    return {"evade-sum": replace(evasions(threat, caught)["evade-sum"], steps=10, then=10, targets=1)}


@pytest.mark.parametrize("model", [Watches(), Single()], ids=["plain", "no batch of one"])
def test_a_plain_detector_is_evaded_by_who_knows_it(model: nn.Module, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(awnet.evaluation.detection, "evasions", short)
    attacks = {"fgsm": fgsm(BALL)}
    found = detection(
        model, near_the_boundary(), lambda ball: attacks, threat=BALL, rates=(0.05,), engine=Engine(batch_size=4)
    )
    assert found.noticed(0.05, "fgsm", fooled=True) == 1.0, "who does not know it is noticed"
    assert found.evaded[0.05].tolist() == [False, True, True, True, True]
    assert found.with_rejection(0.05).value == 0.2 and found.remarks == ()
    figures = found.figures()["under evasion"]["eps"]
    assert figures["fooled"] == 4 and figures["noticed at 0.05"] == 0.0 and figures["AUC, at most"] < 1
    assert found.cleanest is not None and found.cleanest.isnan().tolist() == [True, False, False, False, False]


def test_who_fools_the_class_and_is_noticed_by_all_alarms_counts_in_what_is_said_of_evasion(
    monkeypatch: pytest.MonkeyPatch,
):
    """The attack that evades finds nothing here, so that what is left is what the others found."""
    monkeypatch.setattr(awnet.evaluation.detection, "evasions", lambda threat, caught: {})
    found = detection(Watches(), near_the_boundary(), lambda ball: {"a": fgsm(ball)}, threat=BALL, rates=(0.05,))
    figures = found.figures()["under evasion"]
    assert figures["eps"] == {"fooled": 4, "AUC, at most": 1.0, "noticed at 0.05": 1.0}
    assert figures["eps/2"]["fooled"] == 3
    assert found.cleanest is not None and found.cleanest_halved is not None
    both = ~found.cleanest_halved.isnan()
    assert (found.cleanest >= found.cleanest_halved)[both].all(), "an image at eps/2 lies in the ball of eps too"


def test_it_is_said_where_nobody_could_follow_a_gradient(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(awnet.evaluation.detection, "evasions", short)
    found = detection(Notices(), near_the_boundary(), lambda ball: {}, threat=BALL, rates=(0.05,))
    assert found.remarks == (UNFOLLOWED,)
    x, _ = near_the_boundary().batch(torch.arange(5))
    assert has_slope(deciding(Watches(), x), x, 4) and not has_slope(deciding(Notices(), x), x, 4)
    assert has_slope(Planted("honest"), planted_sample(Planted("honest"), 4).x, 4)


def test_the_form_at_the_mean_of_the_signals_is_of_the_whole_split(monkeypatch: pytest.MonkeyPatch):
    def with_means(model: nn.Module, clean: Dataset) -> nn.Module:
        averaged_over.append(len(clean))
        return original(model, clean)

    class Looks(Engine):
        def run(self, attack, model, examples, **more):
            forms.append(model.forms)
            return super().run(attack, model, examples, **more)

    averaged_over, forms, original = [], [], awnet.evaluation.detection.with_means
    monkeypatch.setattr(awnet.evaluation.detection, "with_means", with_means)
    monkeypatch.setattr(awnet.evaluation.detection, "evasions", lambda threat, caught: {})
    small = replace(AWNetConfig().narrow(), base=ResNetConfig(depth=10, width=4))
    model = lively(create(small, classes=5), torch.rand(4, 3, 8, 8))
    detection(model, digits(12), lambda ball: {"a": fgsm(ball)}, threat=BALL, engine=Looks(batch_size=6), limit=6)
    assert averaged_over == [12] and forms and all("averaged" in of for of in forms)
    assert isinstance(model, Deciding) and "averaged" not in model.forms

    forms.clear()
    few, engine = digits(12), Looks(batch_size=6)
    detectors, attacks = {"max-softmax": MaxSoftmax()}, {"a": fgsm(BALL)}
    compare(model, detectors, attacks, train=few, validation=few, test=few, engine=engine)
    assert len(forms) == 2 and all("averaged" in of for of in forms), "side by side too"


def test_a_network_that_routes_is_judged_and_left_as_it_was():
    x = torch.rand(4, 3, 8, 8)
    small = ResNetConfig(depth=10, width=4)
    model = lively(create(replace(AWNetConfig().narrow(), base=small), classes=5), x).train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    found = detection(
        model,
        digits(12),
        lambda ball: {"apgd": APGD(threat=ball, steps=3)},
        threat=BALL,
        engine=Engine(batch_size=6),
        shares=(0.25,),
    )
    assert list(found.by_radius("apgd")) == [0.25, 0.5, 1.0]
    assert set(found.benign) == {*BENIGN, LOWERED} and set(found.attacked) == set(found.halved) == {"apgd"}
    assert model.training and all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    for rate in (0.01, 0.05):
        assert found.with_rejection(rate).value <= found.clean.correct.float().mean()


def planted(n: int) -> tuple[Planted, Dataset]:
    model = Planted("honest")
    images = (planted_sample(model, n).x * 255).round().byte()
    nought = torch.zeros(n, dtype=torch.int64)
    return model, Dataset("planted", "test", images, nought, torch.arange(n), tuple("abc"))


def test_what_evades_a_stricter_alarm_or_in_a_smaller_ball_is_not_sought_again(monkeypatch: pytest.MonkeyPatch):
    def once(threat: ThreatModel, caught: float) -> Mapping[str, Steer]:
        asked.append((threat.eps, caught))
        return {"evade-sum": evasions(threat, caught)["evade-sum"]} if len(asked) == 1 else {}

    asked: list[tuple[float, float]] = []
    monkeypatch.setattr(awnet.evaluation.detection, "evasions", once)
    model, dataset = planted(24)
    found = detection(model, dataset, lambda ball: {}, threat=Linf(0.2), rates=(0.05, 0.25))
    assert [eps for eps, _ in asked] == [0.1, 0.1, 0.2, 0.2] and asked[0][1] > asked[1][1]
    first = found.evaded_halved[0.25]
    assert first.any() and not first.all()
    assert all(torch.equal(first, hits) for hits in (found.evaded_halved[0.05], *found.evaded.values()))


def test_images_found_by_attacks_at_half_of_eps_evade_at_eps():
    """The attack at eps does next to nothing."""
    heights = torch.tensor([100, 118, 122, 126, 140])  # of 255; they are in class 0 up to 127
    images = torch.full((5, 3, 8, 8), 64, dtype=torch.uint8)
    images[:, 0, 0, 0] = heights
    dataset = Dataset("made", "test", images, torch.zeros(5, dtype=torch.int64), torch.arange(5), tuple("ab"))
    found = detection(
        Detector(),
        dataset,
        lambda ball: {"a": fgsm(ball) if ball.eps < 0.1 else PGD(threat=ball, steps=1, step_size=0.001)},
        threat=BALL,
        rates=(0.05,),
    )
    assert found.evaded_halved[0.05].tolist() == [False, True, True, True, True]
    assert torch.equal(found.evaded[0.05], found.evaded_halved[0.05])
    assert found.with_rejection(0.05).value == found.robust().value == 0.2


class Notices(nn.Module):
    """Knows every image whose pixels are no 255ths; its class is that of one pixel, by the boundary at a half."""

    def detect(self, x: Tensor) -> tuple[Tensor, Tensor]:
        height, steps = x[:, 0, 0, 0] - 0.5, x.detach().flatten(1) * 255
        whole = ((steps - steps.round()).abs() < 1e-3).all(1)
        return torch.stack([-height, height], dim=1), whole.float()

    def forward(self, x: Tensor) -> Tensor:
        return self.detect(x)[0]


def test_a_perfect_detector_has_an_auc_of_one_where_an_attack_gives_back_what_it_cannot_break():
    images = torch.full((6, 3, 8, 8), 64, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor(
        [20, 60, 110, 120, 140, 150]
    )  # two too far for FAB, two misclassified as they are
    dataset = Dataset("made", "test", images, torch.zeros(6, dtype=torch.int64), torch.arange(6), tuple("ab"))
    found = detection(
        Notices(),
        dataset,
        lambda ball: {"fab": FAB(threat=ball, targets=1, steps=5), "pgd": PGD(threat=ball, steps=2)},
        threat=BALL,
        rates=(0.05,),
    )
    assert found.attacked["fab"].changed.tolist() == [False, False, True, True, False, False]
    assert found.attacked["pgd"].changed.all() and not found.clean.changed.any()
    assert found.auc("fab") == found.auc("fab", fooled=True) == found.noticed(0.05, "fab") == 1.0
    assert found.auc("pgd") == 1.0 and found.figures()["attacks"]["fab"]["changed"] == 2


@pytest.mark.parametrize("name", ["resnet18", "rdi-resnet38", "advmoe-resnet18", "awnet-mixbn"])
def test_a_network_that_does_not_tell_is_refused(name: str):
    model = create(MODELS[name].narrow(), classes=5)
    with pytest.raises(Mistake, match="does not tell clean images"):
        detection(model, digits(4), lambda ball: {}, threat=BALL)


def test_scores_of_a_plain_detector_are_its_probabilities():
    x = torch.rand(7, 3, 8, 8)
    score, prediction = scores(Detector(), x, 3)
    assert torch.equal(score, 1 - x[:, 0, 0, 1]) and torch.equal(prediction, (x[:, 0, 0, 0] > 0.5).long())


@pytest.mark.parametrize("caught", [-2.0, pytest.param(1.0, marks=pytest.mark.slow)])
def test_evasion_finds_what_there_is_to_find_and_nothing_else(caught: float):
    """On the planted network, whose truth is a linear programme for every log-odds."""
    model = Planted("honest")
    sample = planted_sample(model, 24)
    through = torch.zeros(24, dtype=torch.bool)
    for attack in evasions(BALL, caught).values():
        x_adv = Engine(batch_size=24).run(attack, model, TensorExamples(sample.x, sample.y, torch.arange(24))).x_adv
        score, prediction = scores(model, x_adv, 60)
        through |= (prediction != 0) & (score > caught) & BALL.contains(sample.x, x_adv)
    truth = model.best_margin(sample.x, above=caught) > 0
    assert not (through & ~truth).any()
    assert (truth & ~through).sum() <= 1, f"{int(through.sum())} of {int(truth.sum())}"


@pytest.mark.parametrize("name", ["evade-sum", pytest.param("evade-orthogonal", marks=pytest.mark.slow)])
def test_evasion_ends_at_what_float32_says(name: str):
    """No engine confirms where it ends, so that a search in bfloat16 would give up at successes that are none."""
    model, x = Planted("honest"), planted_sample(Planted("honest"), 24)
    given = TensorExamples(x.x, x.y, torch.arange(24))
    attack = evasions(BALL, 0.5)[name]
    exact, fast = (Engine(batch_size=24, precision=p).run(attack, model, given) for p in ("float32", "bfloat16"))
    assert attack.exact and torch.equal(exact.x_adv, fast.x_adv)


def test_evasion_needs_a_push():
    with pytest.raises(Mistake, match="must not be caught"):
        Steer(threat=BALL, caught=0.0, stop_on_success=False)
