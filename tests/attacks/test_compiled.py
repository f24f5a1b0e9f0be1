"""A compiled search: the verdicts of the eager one, and the eager one where there is nothing to be compiled."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from attacks.nets import lively, small_net
from awnet.attacks import APGD, Engine, Square, TensorExamples
from awnet.threat_model import Linf

# torch's compiler looks at gradients that are none, and keeps quiet about it where warnings are not errors
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
THREAT = Linf(1 / 255)
Precision = Literal["float32", "bfloat16"]
APGD_5 = APGD(threat=THREAT, steps=5)


def given(model: nn.Module, n: int = 30) -> TensorExamples:
    x = torch.rand(n, 3, 8, 8)
    lively(model, x)
    with torch.no_grad():
        return TensorExamples(x, model(x).argmax(1), torch.arange(n))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """A compiler that only traces; a note of the shapes that it was asked to compile."""
    shapes: list[tuple[int, ...]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]):
        shapes.extend(tuple(t.shape) for t in inputs if t.ndim == 4 and t.shape[1] == 3 and t.shape[0] < 8)
        return graph

    whole = torch.compile
    torch._dynamo.reset()
    monkeypatch.setattr(
        torch, "compile", lambda model, *, dynamic, mode: whole(model, dynamic=dynamic, backend=backend)
    )
    return shapes


@pytest.mark.parametrize(
    ("attack", "precision"),
    [
        (APGD_5, "float32"),
        pytest.param(APGD_5, "bfloat16", marks=pytest.mark.slow),
        pytest.param(Square(threat=THREAT, steps=30), "float32", marks=pytest.mark.slow),
    ],
)
def test_verdicts_are_the_eager_ones(attack: APGD | Square, precision: Precision, quick: list[tuple[int, ...]]):
    model = small_net()
    examples = given(model)
    eager = Engine(batch_size=6, precision=precision).run(attack, model, examples)
    compiled = Engine(batch_size=6, precision=precision, compile=True).run(attack, model, examples)
    assert 0 < eager.correct.sum() < 30
    torch.testing.assert_close(compiled.correct, eager.correct)
    torch.testing.assert_close(compiled.prediction, eager.prediction)
    assert quick and set(quick) == {(6, 3, 8, 8)}, "one shape"


class Lying(nn.Module):
    """While it is compiled it says that the first class is the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        return logits.flip(1) if torch.compiler.is_compiling() else logits


def test_what_only_the_compiled_network_sees_is_no_success(quick: list[tuple[int, ...]]):
    model = Lying()
    examples = given(model.net)
    engine = Engine(batch_size=6, compile=True)
    outcome = engine.run(APGD(threat=Linf(0.0), steps=2), model, examples)
    assert quick and outcome.correct.all()
    assert (outcome.forwards > 3).all(), "each was looked at by the model itself"


def test_a_network_that_does_not_compile_is_searched_as_it_is(monkeypatch: pytest.MonkeyPatch):
    def broken(graph: torch.fx.GraphModule, inputs: list[Tensor]):
        raise RuntimeError("no compiler here\nand more")

    torch._dynamo.reset()
    whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **_: whole(model, backend=broken))
    model = small_net()
    examples = given(model)
    eager = Engine(batch_size=6).run(APGD_5, model, examples)
    with pytest.warns(RuntimeWarning, match=r"does not compile \(.*\); it is searched as it is") as told:
        outcome = Engine(batch_size=6, compile=True).run(APGD_5, model, examples)
    assert len(told) == 1
    torch.testing.assert_close(outcome._asdict(), eager._asdict(), rtol=0, atol=0, equal_nan=True)
    said: list[str] = []
    Engine(batch_size=6, compile=True).run(APGD_5, model, examples, warn=said.append)
    assert len(said) == 1, "to whoever asked"


def test_leaves_no_trace(quick: list[tuple[int, ...]]):
    model = small_net().train()
    examples = given(model)
    model.train()
    keys = set(vars(model))
    Engine(batch_size=6, compile=True).run(APGD_5, model, examples)
    assert model.training and set(vars(model)) == keys and all(p.requires_grad for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_by_torch_s_own_compiler(precision: Precision):
    torch._dynamo.reset()
    model = small_net()
    examples = given(model)
    eager = Engine(batch_size=16, precision=precision).run(APGD_5, model, examples)
    compiled = Engine(batch_size=16, precision=precision, compile=True).run(APGD_5, model, examples)
    assert 0 < eager.correct.sum() < 30
    torch.testing.assert_close(compiled.correct, eager.correct)
