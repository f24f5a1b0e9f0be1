"""Our networks in the hands of other libraries, unchanged: RobustBench, torchattacks, Foolbox and ART, where installed.

    pip install --no-deps --target /tmp/rivals torchattacks torchvision adversarial-robustness-toolbox six \
        timm gdown geotorch torchdiffeq 'setuptools<80'
    AWNET_REFERENCE_AUTOATTACK=CHECKOUT PYTHONPATH=ROBUSTBENCH_CHECKOUT:/tmp/rivals pytest tests/test_peers.py

RobustBench and the reference are checkouts: the released wheel of the one lacks its benchmark, the other has no release.

Each attacks an AW-Net and a static network as they come from `create`: pixels in [0, 1], normalisation inside.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attacks.nets import lively
from awnet.evaluation.drop_in import AutoAttack
from awnet.models import MODELS, create
from awnet.threat_model import Linf
from benchmarks.rivals import imported

EPS = 8 / 255
BALL = Linf(EPS)

pytestmark = pytest.mark.filterwarnings("ignore")  # what other libraries warn of is theirs to mend


@pytest.fixture(params=["awnet", "resnet18"])
def model(request: pytest.FixtureRequest, x: Tensor) -> nn.Module:
    """A narrow network that normalises, as if trained."""
    settings = replace(MODELS[request.param].narrow(), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return lively(create(settings, classes=10), x).eval()


@pytest.fixture
def x() -> Tensor:
    return torch.rand(6, 3, 16, 16)


@pytest.fixture
def y(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1)


def holds(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> None:
    """What came out is in the ball, and an attack of full strength on a network that is not robust has broken some."""
    assert x_adv.shape == x.shape and BALL.contains(x, x_adv.float().clamp(0, 1)).all()
    with torch.no_grad():
        assert (model(x_adv).argmax(1) != y).any()


def installed(name: str) -> Any:
    """A library, where it is there with all that it needs."""
    try:
        return imported(name)
    except ImportError as error:
        pytest.skip(f"{name} cannot be imported: {error}")


def test_foolbox(model: nn.Module, x: Tensor, y: Tensor):
    foolbox = installed("foolbox")
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
    assert foolbox.utils.accuracy(wrapped, x, y) == 1
    _, clipped, success = foolbox.attacks.LinfPGD(steps=10)(wrapped, x, y, epsilons=EPS)
    holds(model, x, clipped, y)
    assert success.any()


def test_torchattacks(model: nn.Module, x: Tensor, y: Tensor):
    torchattacks = installed("torchattacks")
    holds(model, x, torchattacks.PGD(model, eps=EPS, steps=10)(x, y), y)


def test_art(model: nn.Module, x: Tensor, y: Tensor):
    installed("art")
    estimators = pytest.importorskip("art.estimators.classification", exc_type=ImportError)
    evasion = pytest.importorskip("art.attacks.evasion", exc_type=ImportError)
    classifier = estimators.PyTorchClassifier(
        model, loss=nn.CrossEntropyLoss(), input_shape=(3, 16, 16), nb_classes=10, clip_values=(0, 1), device_type="cpu"
    )
    attack = evasion.ProjectedGradientDescent(classifier, eps=EPS, eps_step=EPS / 4, max_iter=10, verbose=False)
    holds(model, x, torch.from_numpy(attack.generate(x.numpy(), y=y.numpy())), y)


@pytest.fixture
def reference() -> Iterator[None]:
    """RobustBench imports the reference's AutoAttack; it is either installed or in a checkout."""
    folder = os.environ.get("AWNET_REFERENCE_AUTOATTACK")
    if folder:
        sys.path.insert(0, folder)
    yield
    if folder:
        sys.path.remove(folder)


@pytest.mark.parametrize("whose", ["theirs", "ours"])
@pytest.mark.usefixtures("reference")
def test_robustbench(whose: str, x: Tensor, y: Tensor, model: nn.Module, monkeypatch: pytest.MonkeyPatch):
    """Its `benchmark`, with its own AutoAttack or ours in its place, shortened."""
    installed("robustbench")
    pytest.importorskip("autoattack", exc_type=ImportError)
    evaluation = pytest.importorskip("robustbench.eval", exc_type=ImportError)
    if "benchmark" not in vars(evaluation):
        pytest.skip("this release of robustbench comes without its benchmark; take a checkout")
    module: Any = sys.modules["robustbench.eval"]
    base = AutoAttack if whose == "ours" else module.AutoAttack

    class Short(base):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.apgd.n_iter = self.apgd_targeted.n_iter = self.fab.n_iter = 5
            self.apgd_targeted.n_target_classes = self.fab.n_target_classes = 2
            self.square.n_queries = 20

    monkeypatch.setattr(module, "AutoAttack", Short)
    monkeypatch.setattr(module, "load_clean_dataset", lambda *args, **kwargs: (x, y))
    clean, robust = evaluation.benchmark(
        model,
        n_examples=len(x),
        dataset="cifar10",
        threat_model="Linf",
        eps=EPS,
        device=torch.device("cpu"),
        batch_size=3,
    )
    assert clean == 1 and 0 <= robust < 1
