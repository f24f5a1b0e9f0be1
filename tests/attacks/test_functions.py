"""Plain functions: the very results of the engine, checked input, no trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from attacks.nets import lively, small_net
from attacks.test_contracts import Mixed
from awnet.attacks import (
    APGD,
    ATTACKS,
    EOT,
    FAB,
    PGD,
    Attack,
    Diversified,
    Engine,
    RayS,
    Square,
    Suite,
    TensorExamples,
)
from awnet.attacks.functions import (
    adaptive,
    apgd,
    auto_attack,
    classifiers,
    cw,
    deciding,
    deep_sloth,
    diversified,
    eot,
    fab,
    fgsm,
    pgd,
    rays,
    run,
    square,
)
from awnet.conformance.traces import traces
from awnet.errors import Mistake
from awnet.losses import DLR, CrossEntropy, Margin, TargetedDLR, TargetedMargin, Unsure
from awnet.threat_model import L1, L2, Linf

BALL = Linf(8 / 255)
Function = Callable[..., Tensor]


@pytest.fixture
def x() -> Tensor:
    return torch.rand(6, 3, 8, 8)


@pytest.fixture
def model(x: Tensor) -> nn.Module:
    return lively(small_net(), x)


@pytest.fixture
def y(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1)


def engine(attack: Any, model: nn.Module, x: Tensor, y: Tensor, seed: int = 0) -> Tensor:
    return Engine(batch_size=len(x)).run(attack, model, TensorExamples(x, y, torch.arange(len(x))), seed=seed).x_adv


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (fgsm, "fgsm"),
        (pgd, "pgd-sat"),
        (cw, "cw-inf"),
        (apgd, "apgd-ce"),
        (deep_sloth, "deep-sloth"),
        (square, "square"),
    ],
)
def test_with_nothing_said_it_is_the_registered_attack(
    function: Function, name: str, model: nn.Module, x: Tensor, y: Tensor
):
    attack = ATTACKS[name](BALL)
    short = {"steps": 30} if name == "square" else {}
    attack = Square(threat=BALL, steps=30) if short else attack
    assert torch.equal(function(model, x, y, **short), engine(attack, model, x, y))


@pytest.mark.parametrize(
    ("function", "given", "attack"),
    [
        (fgsm, {"eps": 0.5, "norm": "L2"}, PGD(threat=L2(0.5), steps=1, step_size=1.0, initial="zero")),
        (pgd, {"steps": 3, "step_size": 0.5, "loss": "dlr"}, PGD(threat=BALL, steps=3, step_size=0.5, loss=DLR())),
        (pgd, {"steps": 2, "initial": "gaussian"}, PGD(threat=BALL, steps=2, initial="gaussian", loss=CrossEntropy())),
        (cw, {"steps": 3, "kappa": 0.1}, PGD(threat=BALL, steps=3, loss=Margin(kappa=0.1))),
        (apgd, {"steps": 4, "loss": "margin", "restarts": 2}, APGD(threat=BALL, steps=4, loss=Margin(), restarts=2)),
        (apgd, {"steps": 4, "loss": "dlr", "targets": 2}, APGD(threat=BALL, steps=4, loss=TargetedDLR(), targets=2)),
        (apgd, {"steps": 4, "loss": "margin", "targets": 1}, APGD(threat=BALL, steps=4, loss=TargetedMargin(), targets=1)),
        (apgd, {"steps": 4, "eps": 3.0, "norm": "L1"}, APGD(threat=L1(3.0), steps=4)),
        (fab, {"steps": 3, "targets": 2}, FAB(threat=BALL, steps=3, targets=2, stop_on_success=False)),
        (square, {"steps": 5, "p": 0.3, "rescale": True}, Square(threat=BALL, steps=5, p=0.3, rescale=True)),
        (rays, {"steps": 90, "eps": 0.5}, RayS(threat=Linf(0.5), steps=90)),
        (
            deep_sloth,
            {"steps": 3, "step_size": 0.5, "eps": 0.5, "norm": "L2"},
            PGD(threat=L2(0.5), loss=Unsure(), steps=3, step_size=0.5, initial="step"),
        ),
        (
            diversified,
            {"start_steps": 2, "steps": 4, "restarts": 3},
            Diversified(threat=BALL, start_steps=2, steps=4, restarts=3),
        ),
        (
            eot,
            {"steps": 4, "samples": 2, "loss": "dlr", "restarts": 2},
            EOT(attack=APGD(threat=BALL, steps=4, loss=DLR(), restarts=2), samples=2),
        ),
    ],
)  # fmt: skip
def test_every_setting_arrives(
    function: Function, given: dict[str, Any], attack: Attack, model: nn.Module, x: Tensor, y: Tensor
):
    more = {} if function in (fgsm, rays) else {"seed": 5}
    x_adv = function(model, x, y, **given, **more)
    assert torch.equal(x_adv, engine(attack, model, x, y, seed=5))
    assert torch.equal(x_adv, run(attack, model, x, y, seed=5)) and not torch.equal(x_adv, x)


def test_suites(monkeypatch: pytest.MonkeyPatch, model: nn.Module, x: Tensor, y: Tensor):
    asked = []
    for module in (classifiers, deciding):
        monkeypatch.setattr(module, "run", lambda attack, *args, **kwargs: asked.append((attack, kwargs)) or x)
    auto_attack(model, x, y, version="plus", seed=3, batch_size=4)
    auto_attack(model, x, y, version=("square", "apgd-ce"), eps=1.0, norm="L2")
    adaptive(model, x, y)
    assert [attack.names for attack, _ in asked[1:2]] == [("square", "apgd-ce")] and asked[1][0].threat == L2(1.0)
    assert asked[0] == (ATTACKS["aa-plus"](BALL), {"seed": 3, "batch_size": 4})
    assert asked[2] == (ATTACKS["adaptive"](BALL), {"seed": 0, "batch_size": None})


def test_fab_goes_on_to_the_nearest(model: nn.Module, x: Tensor, y: Tensor):
    """Of a large ball it gives back the nearest image that it found, and not the first."""
    first = engine(FAB(threat=Linf(0.5), steps=20, targets=2), model, x, y)
    nearest = fab(model, x, y, eps=0.5, steps=20, targets=2)
    ball = Linf(0.5)
    assert (ball.distance(x, nearest) < 0.99 * ball.distance(x, first)).any()
    assert (model(nearest).argmax(1) != y).all() and (ball.distance(x, nearest) <= ball.distance(x, first)).all()


class Noisy(nn.Module):
    """A network that adds noise to its images."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.1 * torch.randn_like(x))


def test_eot_follows_the_global_generator(model: nn.Module, x: Tensor, y: Tensor):
    """On a model that draws; from the same state of the generator it is the engine's result, from another it is not."""

    def drawn(state: int, attack: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> Tensor:
        torch.manual_seed(state)
        return attack(Noisy(model), x, y)

    def ours(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return eot(model, x, y, steps=4, samples=2, loss="margin")

    means = EOT(attack=APGD(threat=BALL, steps=4, loss=Margin()), samples=2)
    assert torch.equal(drawn(1, ours), drawn(1, lambda *given: engine(means, *given)))
    assert not torch.equal(drawn(1, ours), drawn(2, ours))


def test_a_function_is_no_network(monkeypatch: pytest.MonkeyPatch, model: nn.Module, x: Tensor, y: Tensor):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # types are checked in these tests, and by no user
    with pytest.raises(Mistake, match=r"a torch\.nn\.Module.*got function; hand over the network"):
        pgd(lambda x: model(x), x, y)  # pyright: ignore[reportArgumentType]


def test_small_batches_come_to_the_same(model: nn.Module, x: Tensor, y: Tensor):
    whole, parts = (pgd(model, x, y, batch_size=size) for size in (None, 4))
    assert ((whole - parts).abs() > 1e-4).float().mean() < 0.01


@pytest.mark.parametrize(
    "function", [fgsm, pgd, cw, apgd, eot, deep_sloth, fab, square, rays], ids=lambda f: f.__name__
)
def test_leaves_no_trace(function: Function):
    torch.manual_seed(0)
    model, x, y = Mixed().train(), torch.rand(4, 3, 8, 8, requires_grad=True), torch.tensor([0, 1, 2, 3])
    model.body.eval()
    before, images = traces(model), x.detach().clone()
    few = {} if function is fgsm else {"steps": 2}
    x_adv = function(model, x, y, **few)
    assert traces(model) == before and torch.equal(x, images) and x.requires_grad and x.grad is None
    assert not x_adv.requires_grad and x_adv.data_ptr() != x.data_ptr()
    assert BALL.contains(images, x_adv).all()


def test_in_the_middle_of_training(model: nn.Module, x: Tensor, y: Tensor):
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.1)
    loss = nn.functional.cross_entropy(model(pgd(model, x, y, steps=2)), y)
    loss.backward()
    optimizer.step()
    assert model.training and all(p.grad is not None for p in model.parameters())


def test_the_empty_batch_and_rounding(model: nn.Module, x: Tensor, y: Tensor):
    assert fgsm(model, x[:0], y[:0]).shape == (0, 3, 8, 8)
    by_rounding = x.clone()
    by_rounding[0, 0, 0, 0], by_rounding[1, 0, 0, 0] = 1 + 1e-7, -1e-7
    assert torch.equal(fgsm(model, by_rounding, y), fgsm(model, by_rounding.clamp(0, 1), y))
    assert torch.equal(fgsm(model, x, y.int()), fgsm(model, x, y))


def scaled(model: nn.Module, factor: float) -> nn.Module:
    last = nn.Linear(10, 10)
    nn.init.constant_(last.weight, factor)
    return nn.Sequential(model, last)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m, x, y: (m, x * 255, y), r"must be in \[0, 1\], got .*; put the normalisation into the model"),
        (lambda m, x, y: (m, x - 0.5, y), r"must be in \[0, 1\]"),
        (lambda m, x, y: (m, x.double(), y), r"in float32, got \(6, 3, 8, 8\) in float64"),
        (lambda m, x, y: (m, (x * 255).to(torch.uint8), y), "in uint8"),
        (lambda m, x, y: (m, x[0], y), r"shape \(b, c, h, w\)"),
        (lambda m, x, y: (m, x, y[:5]), r"expected 6 labels as whole numbers, got shape \(5,\)"),
        (lambda m, x, y: (m, x, y.float()), "in float32"),
        (lambda m, x, y: (m, x, nn.functional.one_hot(y, 10)), r"got shape \(6, 10\)"),
        (lambda m, x, y: (m, x, y + 10), "labels must be from 0 to 9"),
        (lambda m, x, y: (m, x, y - 10), "labels must be from 0 to 9"),
        (lambda m, x, y: (m, x.log().log(), y), "no finite numbers"),
        (lambda m, x, y: (nn.Flatten(0), x, y), "one row of logits an image"),
        (
            lambda m, x, y: (scaled(m, float("nan")), x, y),
            "answers 6 of 6 images with NaN or infinity; look for a division",
        ),
        (lambda m, x, y: (scaled(m, float("inf")), x[:1], y[:1]), "answers 1 of 1 images with NaN or infinity"),
    ],
)
def test_what_does_not_fit_is_told(change: Callable[..., Any], sentence: str, model: nn.Module, x: Tensor, y: Tensor):
    with pytest.raises(Mistake, match=sentence):
        fgsm(*change(model, x, y))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"norm": "linf"}, "no norm is named 'linf'; did you mean Linf"),
        ({"eps": -1}, "eps"),
        ({"loss": "kl"}, "no loss is named 'kl'"),
        ({"loss": "ce", "targets": 3}, "no targeted loss is named 'ce'"),
        ({"steps": 0}, "steps"),
        ({"batch_size": 0}, "batch size"),
    ],
)
def test_settings_that_do_not_fit_are_told(
    given: dict[str, Any], sentence: str, model: nn.Module, x: Tensor, y: Tensor
):
    with pytest.raises(Mistake, match=sentence):
        apgd(model, x, y, **given)


class OneLogit(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).sum(1, keepdim=True)


WAYS: dict[str, Callable[[nn.Module, Tensor, Tensor], object]] = {
    "a plain function": lambda m, x, y: fgsm(m, x, y),
    "an attack on a batch": lambda m, x, y: PGD(threat=Linf(0.1), steps=2)(m, x, y),
    "a suite on a batch": lambda m, x, y: Suite(members=(("pgd", PGD(threat=Linf(0.1), steps=2)),))(m, x, y),
    "an engine": lambda m, x, y: Engine(batch_size=4).run(
        PGD(threat=Linf(0.1), steps=2), m, TensorExamples(x, y, torch.arange(len(x)))
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_asks_whether_model_and_images_fit(way: str, model: nn.Module, x: Tensor, y: Tensor):
    """A model with one logit can never be wrong: it would count as robust."""
    attacked = WAYS[way]
    with pytest.raises(Mistake, match=r"two or more classes, got 1.*\(0, z\)"):
        attacked(OneLogit(), x, torch.zeros_like(y))
    with pytest.raises(Mistake, match=r"in \[0, 1\], got"):
        attacked(model, x * 255, y)
    with pytest.raises(Mistake, match="labels must be from 0 to 9, as the model has 10 classes, got 10 to 15"):
        attacked(model, x, 10 + torch.arange(len(y)))
    with pytest.raises(Mistake, match=r"cannot be asked about images of shape \(1, 8, 8\)"):
        attacked(model, x[:, :1], y)
