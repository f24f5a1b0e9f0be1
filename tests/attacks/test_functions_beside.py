"""A second network at hand, a surrogate or a teacher: it is the one of that name, is left as it was, and has to fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from attacks.adaptive.test_steer import small_awnet
from attacks.nets import lively, small_net
from attacks.test_contracts import Mixed
from awnet.attacks import ATTACKS, PGD, Engine, TensorExamples, Transfer
from awnet.attacks.adaptive.paper import PaperAdaptive
from awnet.attacks.functions import adaptive_paper, run, transfer
from awnet.attacks.second_network import lent, second_network
from awnet.checkpoint import save_model
from awnet.conformance.traces import traces
from awnet.errors import Mistake
from awnet.models import ResNetConfig, create
from awnet.threat_model import L2, Linf

BALL = Linf(8 / 255)
Beside = Callable[[nn.Module, Tensor, Tensor, nn.Module], Tensor]

WITH_A_SECOND: dict[str, Beside] = {
    "surrogate": lambda model, x, y, other: transfer(model, x, y, surrogate=other),
    "teacher": lambda model, x, y, other: adaptive_paper(model, x, y, teacher=other, through_teacher=True, steps=2),
}
each = pytest.mark.parametrize("role", WITH_A_SECOND)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(5, 3, 8, 8)


@pytest.fixture
def y() -> Tensor:
    return torch.arange(5)


@pytest.fixture
def model(x: Tensor) -> nn.Module:
    return small_awnet(x)


@pytest.fixture
def other(x: Tensor) -> nn.Module:
    return lively(create(ResNetConfig(depth=10, width=4), classes=5, seed=3), x)


class NeverAlone(nn.Module):
    """Answers no batch of one."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 1:
            raise ValueError("expected more than one image")
        return self.net(x)


def test_networks_that_answer_no_batch_of_one(other, x, y):
    transfer(NeverAlone(other), x, y, surrogate=NeverAlone(other), eps=0.01)


@pytest.fixture
def saved(other: nn.Module, tmp_path: Path) -> str:
    save_model(tmp_path, other, ResNetConfig(depth=10, width=4), {"classes": list("abcde"), "shape": [3, 8, 8]})
    return str(tmp_path)


def engine(attack: Transfer | PaperAdaptive, model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
    return Engine(batch_size=len(x)).run(attack, model, TensorExamples(x, y, torch.arange(len(x))), seed=seed).x_adv


@pytest.mark.parametrize("attack", ["pgd-sat", "cw-inf", "apgd-ce"])
def test_transfer_shows_the_images_of_the_surrogate(
    attack: str, model: nn.Module, other: nn.Module, saved: str, x: Tensor, y: Tensor
):
    within = ATTACKS[attack](L2(0.5))
    expected = engine(Transfer(attack=within, surrogate=saved), model, x, y, seed=5)  # pyright: ignore[reportArgumentType]
    given = {"attack": attack, "eps": 0.5, "norm": "L2", "seed": 5}
    for surrogate in (other.train(), saved):
        assert torch.equal(transfer(model, x, y, surrogate=surrogate, **given), expected)
    if isinstance(within, PGD):  # which does not stop at the first that fools the surrogate
        torch.testing.assert_close(expected, run(within, other, x, y, seed=5), rtol=0, atol=1e-4)


@pytest.mark.parametrize("through_teacher", [False, True])
def test_the_papers_own_with_a_teacher(
    through_teacher: bool, model: nn.Module, other: nn.Module, saved: str, x: Tensor, y: Tensor
):
    settings = {"steps": 3, "step_size": 0.3, "type_weight": 2.0, "alpha": 0.7, "tau": 3.0}
    attack = PaperAdaptive(threat=L2(0.5), teacher=saved, through_teacher=through_teacher, **settings)
    expected = engine(attack, model, x, y, seed=5)
    more = {**settings, "through_teacher": through_teacher, "eps": 0.5, "norm": "L2", "seed": 5}
    for teacher in (other.train(), saved):
        assert torch.equal(adaptive_paper(model, x, y, teacher=teacher, **more), expected)
    for changed in ({"teacher": None}, {"through_teacher": not through_teacher}, {"alpha": 0.1}, {"tau": 1.0}):
        assert not torch.equal(adaptive_paper(model, x, y, **{"teacher": other, **more, **changed}), expected)


@each
@pytest.mark.parametrize("itself", [False, True])
def test_both_networks_are_left_as_they_were(role: str, itself: bool):
    torch.manual_seed(0)
    model, x, y = Mixed().train(), torch.rand(4, 3, 8, 8, requires_grad=True), torch.tensor([0, 1, 2, 3])
    other = model if itself else Mixed().train()
    other.body.eval()
    other.head.requires_grad_(False)
    before, images = (traces(model), traces(other)), x.detach().clone()
    x_adv = WITH_A_SECOND[role](model, x, y, other)
    assert (traces(model), traces(other)) == before
    assert torch.equal(x, images) and x.grad is None and not x_adv.requires_grad
    assert BALL.contains(images, x_adv).all()


def test_a_name_is_lent_and_given_back(other: nn.Module):
    """Also where the attack breaks off; the name is never another network's."""
    here, names = torch.device("cpu"), []
    other.train()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), lent(other) as name:
            assert second_network(name, here) is other and not other.training
            names.append(name)
            raise KeyboardInterrupt
    assert len({*names}) == 2 and other.training
    for name in names:
        with pytest.raises(Mistake, match=name):
            second_network(name, here)


class Elsewhere(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("nothing", torch.zeros(1, device="meta"))


@each
def test_a_network_that_does_not_fit_is_told(
    role: str, monkeypatch: pytest.MonkeyPatch, model: nn.Module, x: Tensor, y: Tensor
):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # types are checked in these tests, and by no user
    attack = WITH_A_SECOND[role]
    cases = (
        (small_net(classes=7), f"the {role} has 7 classes, the model 5; they must be the same"),
        (small_net(channels=1, classes=5), f"the {role} does not fit: the model cannot be asked about images of shape"),
        (Elsewhere(), f"the {role} is on meta, the model on cpu; put both on one device"),
        (lambda x: x, r"a torch\.nn\.Module.*got function; hand over the network"),
        ("nowhere", "nowhere"),
    )
    for other, sentence in cases:
        with pytest.raises(Mistake, match=sentence):
            attack(model, x, y, other)  # pyright: ignore[reportArgumentType]
    with pytest.raises(Mistake, match=r"in \[0, 1\]"):
        attack(model, 255 * x, y, small_net(classes=5))
    assert attack(model, x[:0], y[:0], small_net(classes=7)).shape == (0, 3, 8, 8)


def test_what_makes_images_that_transfer(model: nn.Module, other: nn.Module, x: Tensor, y: Tensor):
    with pytest.raises(Mistake, match="made by one attack with gradients, such as pgd-sat or apgd-ce; got square"):
        transfer(model, x, y, surrogate=other, attack="square")
    with pytest.raises(Mistake, match="no attack is named 'pgd'"):
        transfer(model, x, y, surrogate=other, attack="pgd")
