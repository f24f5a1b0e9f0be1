"""A detector's figures by hand, and the whole judgement on networks small enough to know."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attacks.nets import lively
from awnet.attacks import APGD, Engine, TensorExamples
from awnet.attacks.adaptive import evasions
from awnet.attacks.adaptive.steer import Steer
from awnet.conformance.planted import Planted, planted_sample
from awnet.data import Dataset
from awnet.errors import Mistake
from awnet.evaluation.benign import BENIGN
from awnet.evaluation.detection import LOWERED, Detection, Seen, detection, scores
from awnet.models import MODELS, AWNetConfig, ResNetConfig, create
from awnet.noise import Noise
from awnet.threat_model import L1, L2, Linf

BALL = Linf(0.1)


def seen(score: list[float], correct: list[int]) -> Seen:
    return Seen(score=torch.tensor(score), correct=torch.tensor(correct).bool())


def test_figures_by_hand():
    clean = seen([4.0, 3.0, 2.0, 1.0], [1, 1, 1, 0])
    found = Detection(
        threat=BALL,
        clean=clean,
        benign={"noise": seen([0.5, 1.5, 2.5, 3.5], [1, 1, 1, 1])},
        attacked={"a": seen([0.0, 5.0, 1.5, 0.0], [0, 1, 0, 0])},
        halved={"a": seen([0.0, 5.0, 1.5, 0.0], [1, 1, 0, 0])},
        evaded={0.25: torch.tensor([False, True, False, False])},
        evaded_halved={0.25: torch.tensor([False, False, False, False])},
    )
    # at 25 % false alarms the threshold is 2: one clean image of four lies below
    assert found.false_alarms(0.25, "noise") == 0.5
    assert found.noticed(0.25, "a") == 0.75
    assert found.noticed(0.25, "a", fooled=True) == 1.0  # the last one was wrong before the attack
    assert found.auc("a") == pytest.approx((4 + 0 + 3 + 4) / 16)
    assert found.auc("a", fooled=True) == pytest.approx((4 + 3) / 8)
    assert found.with_rejection(0.25).value == 0.5 and found.with_rejection(0.25, halved=True).value == 0.75
    assert found.robust().value == 0.25 and found.robust(halved=True).value == 0.5


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


def test_a_network_that_routes_is_judged_and_left_as_it_was():
    x = torch.rand(4, 3, 8, 8)
    small = ResNetConfig(depth=10, width=4)
    model = lively(create(replace(AWNetConfig().narrow(), base=small), classes=5), x).train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    found = detection(
        model, digits(12), lambda ball: {"apgd": APGD(threat=ball, steps=3)}, threat=BALL, engine=Engine(batch_size=6)
    )
    assert set(found.benign) == {*BENIGN, LOWERED} and set(found.attacked) == set(found.halved) == {"apgd"}
    assert model.training and all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    for rate in (0.01, 0.05):
        assert found.with_rejection(rate).value <= found.clean.correct.float().mean()


@pytest.mark.parametrize("name", ["resnet18", "rdi-resnet38", "advmoe-resnet18", "awnet-mixbn"])
def test_a_network_that_does_not_tell_is_refused(name: str):
    model = create(MODELS[name].narrow(), classes=5)
    with pytest.raises(Mistake, match="does not tell clean images"):
        detection(model, digits(4), lambda ball: {}, threat=BALL)


def test_scores_of_a_plain_detector_are_its_probabilities():
    x = torch.rand(7, 3, 8, 8)
    score, prediction = scores(Detector(), x, 3)
    assert torch.equal(score, 1 - x[:, 0, 0, 1]) and torch.equal(prediction, (x[:, 0, 0, 0] > 0.5).long())


@pytest.mark.parametrize("caught", [-2.0, 1.0])
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


def test_evasion_needs_a_push():
    with pytest.raises(Mistake, match="must not be caught"):
        Steer(threat=BALL, caught=0.0, stop_on_success=False)
