"""Transfer by its definition: the surrogate's adversarial images, and the model's verdict on them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from attacks.nets import lively
from awnet.attacks import APGD, PGD, Attack, Engine, TensorExamples, Transfer, deep_sloth
from awnet.attacks.adaptive import PaperAdaptive
from awnet.checkpoint import load, save_model
from awnet.config import from_json, to_json
from awnet.errors import Mistake
from awnet.losses import Unsure
from awnet.models import ResNetConfig, create
from awnet.threat_model import Linf

BALL = Linf(0.1)
NET = ResNetConfig(depth=10, width=4)
X = torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(10) % 5


@pytest.fixture
def surrogate(tmp_path: Path) -> str:
    net = lively(create(NET, classes=5, seed=1), X)
    about = {"classes": [str(i) for i in range(5)], "shape": [3, 8, 8]}
    save_model(tmp_path, net, NET, about)
    return str(tmp_path)


@pytest.mark.parametrize("attack", [PGD(threat=BALL, steps=5), APGD(threat=BALL, steps=5)])
def test_it_is_the_attack_on_the_surrogate_shown_to_the_model(attack: APGD | PGD, surrogate: str):
    model, other = lively(create(NET, classes=5, seed=2), X), load(surrogate)
    expected = replace(attack, stop_on_success=False)(other, X, Y, seed=3)
    transfer = Transfer(attack=attack, surrogate=surrogate)
    torch.testing.assert_close(transfer(model, X, Y, seed=3), expected)
    found = Engine(batch_size=4).run(transfer, model, TensorExamples(X, Y, torch.arange(10)), seed=3)
    torch.testing.assert_close(found.x_adv, expected)
    with torch.no_grad():
        assert torch.equal(found.prediction, model.eval()(expected).argmax(1))
    assert (found.backwards == 0).all() and (found.forwards == 3).all()


class Particular(nn.Module):
    """A network that reads no images with channels last, and changes those that it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x.sub_(0.5)).view(len(x), -1))


@pytest.mark.parametrize(
    "attack",
    [
        Transfer(attack=PGD(threat=BALL, steps=3), surrogate="theirs:net"),
        PaperAdaptive(threat=BALL, steps=3, teacher="theirs:net", through_teacher=True),
    ],
    ids=["surrogate", "teacher"],
)
def test_a_second_network_of_somebody_elses(attack: Attack, monkeypatch: pytest.MonkeyPatch):
    """The engine's images have channels last; the second network need not know."""
    monkeypatch.setitem(sys.modules, "theirs", SimpleNamespace(net=Particular()))
    model = lively(create(NET, classes=5, seed=2), X)
    found = Engine(batch_size=4).run(attack, model, TensorExamples(X, Y, torch.arange(10)), seed=3)
    torch.testing.assert_close(found.x_adv, attack(model, X, Y, seed=3), rtol=0, atol=1e-4)
    assert not torch.equal(found.x_adv, X)


def test_its_settings_come_back(surrogate: str):
    transfer = Transfer(attack=PGD(threat=BALL), surrogate=surrogate)
    assert from_json(to_json(transfer)) == transfer
    assert transfer.within(Linf(0.2)).threat == transfer.within(Linf(0.2)).attack.threat == Linf(0.2)


def test_no_such_surrogate(tmp_path: Path):
    with pytest.raises(Mistake, match="nowhere"):
        Transfer(attack=PGD(threat=BALL), surrogate=str(tmp_path / "nowhere"))(create(NET, classes=5), X, Y)


def test_deep_sloth_evens_the_prediction_out():
    model = lively(create(NET, classes=5, seed=2), X)
    found = deep_sloth(BALL)(model, X, Y)
    with torch.no_grad():
        before, after = (Unsure()(model.eval()(t), Y) for t in (X, found))
    assert (after > before).all() and (after <= -torch.tensor(5.0).log() + 1e-6).all()
    assert BALL.contains(X, found).all()


def taught_by(name: str) -> Attack:
    return replace(PaperAdaptive(threat=BALL, teacher=name), steps=2)


@pytest.mark.parametrize("of", [lambda name: Transfer(attack=PGD(threat=BALL, steps=2), surrogate=name), taught_by])
def test_the_other_network_is_asked_in_whole_batches(of, monkeypatch: pytest.MonkeyPatch):
    """Whether it answers smaller ones alike has not been tried."""
    sizes: list[int] = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = lively(create(NET, classes=5, seed=1), X)

        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return self.net(x)

    name = f"counting_{of.__name__.strip('<>')}"  # a network is read once
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(net=Counting()))
    attack, model = of(f"{name}:net"), lively(create(NET, classes=5, seed=2), X)
    Engine(batch_size=8).run(attack, model, TensorExamples(X[:2], Y[:2], torch.arange(2)))
    assert set(sizes) == {8}
