"""What an evaluation goes on from: results of the same network, though its settings are no tensors and machines round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from awnet.attacks import Attack
from awnet.checkpoint import read_state, save_state
from awnet.errors import Mistake
from awnet.evaluation import Record
from awnet.evaluation.keeping import MARGINS, PREDICTIONS, TURNED
from awnet.evaluation.progress import Progress
from evaluation.test_evaluate import PGD_3, Counting, Stop, judged, same
from evaluation.test_evaluate import model as model  # the fixture
from training.tiny import dataset

PGD: dict[str, Attack] = {"pgd": PGD_3}
MANY = dataset(400, split="test", seed=4)
ALLOWED = int(400 * TURNED)


class Set(nn.Module):
    """A network with settings that are no tensors."""

    def __init__(self, net: nn.Module, *, lean: float = 0.0, noise: float = 0.0) -> None:
        super().__init__()
        self.net, self.lean, self.noise = net, lean, noise

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x) + self.lean * torch.eye(3)[0]
        return logits + self.noise * torch.randn_like(logits) if self.noise else logits


def crash(now: Progress) -> None:
    if now.finished:
        raise Stop


def crashed(model: nn.Module, out: Path, **more: Any) -> Path:
    """An evaluation under way; its journal."""
    with pytest.raises(Stop):
        judged(model, PGD, out=out, save_seconds=0, progress=crash, **more)
    return out / "journal"


def turned(predictions: Tensor, count: int) -> Tensor:
    """The first of them otherwise."""
    return torch.where(torch.arange(len(predictions)) < count, (predictions + 1) % 3, predictions)


@pytest.mark.parametrize("resume", [True, False])
def test_a_network_with_another_setting_is_another_one(resume: bool, model: nn.Module, tmp_path: Path):
    judged(Set(model), PGD, out=tmp_path)
    with pytest.raises(Mistake, match=r"another evaluation \(margins differ\)"):
        judged(Set(model, lean=20.0), PGD, out=tmp_path, resume=resume)


@pytest.mark.parametrize("how", ["temperature", "rounded input"])
def test_so_is_one_that_says_the_same_of_clean_images(how: str, model: nn.Module, tmp_path: Path):
    """The images lie on a grid of eight bits, which rounding to it does not move."""

    class Otherwise(Set):
        def forward(self, x: Tensor) -> Tensor:
            if not self.lean:
                return self.net(x)
            return self.net(x) / 2 if how == "temperature" else self.net((255 * x).round() / 255)

    first = judged(Otherwise(model), PGD, out=tmp_path)
    other = judged(Otherwise(model, lean=1.0), PGD)
    assert torch.equal(first.clean.prediction, other.clean.prediction)
    with pytest.raises(Mistake, match=r"another evaluation \(margins differ\)"):
        judged(Otherwise(model, lean=1.0), PGD, out=tmp_path, resume=True)


def test_its_journal_is_passed_over(model: nn.Module, tmp_path: Path):
    crashed(Set(model, lean=20.0), tmp_path)
    assert same(judged(Set(model), PGD, out=tmp_path, resume=True), judged(Set(model), PGD))


@pytest.mark.parametrize(("count", "fits"), [(ALLOWED, True), (ALLOWED + 1, False)])
def test_a_record_may_have_been_rounded_otherwise(count: int, fits: bool, model: nn.Module, tmp_path: Path):
    record = judged(model, PGD, MANY, out=tmp_path)
    replace(record, clean=replace(record.clean, prediction=turned(record.clean.prediction, count))).save(tmp_path)
    if fits:
        resumed = judged(model, PGD, MANY, out=tmp_path, resume=True)
        assert torch.equal(resumed.clean.prediction, Record.load(tmp_path).clean.prediction), "one record, one answer"
    else:
        with pytest.raises(Mistake, match="clean predictions differ"):
            judged(model, PGD, MANY, out=tmp_path, resume=True)


def otherwise(count: int) -> Callable[[dict[str, Any]], None]:
    def change(of: dict[str, Any]) -> None:
        of[PREDICTIONS] = turned(torch.tensor(of[PREDICTIONS]), count).tolist()

    return change


def earlier(of: dict[str, Any]) -> None:
    """As it was written before predictions and margins were."""
    del of[PREDICTIONS], of[MARGINS]


@pytest.mark.parametrize(
    ("change", "fits"),
    [(otherwise(0), True), (otherwise(ALLOWED), True), (otherwise(ALLOWED + 1), False), (earlier, True)],
    ids=["as it was", "rounded", "another", "earlier"],
)
def test_a_journal_may_have_been_rounded_otherwise(
    change: Callable[[dict[str, Any]], None],
    fits: bool,
    model: nn.Module,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    counting = Counting(monkeypatch)
    whole = judged(model, PGD, MANY)
    journal = crashed(model, tmp_path, data=MANY)
    state = read_state(journal)
    change(state["of"])
    save_state(journal, state)
    assert same(judged(model, PGD, MANY, out=tmp_path, resume=True), whole)
    turns, crashes, resumed = counting.turns
    assert resumed == (turns - crashes + 1 if fits else turns)


def test_a_network_that_draws_random_numbers_goes_on(model: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    network, counting = Set(model, noise=20.0), Counting(monkeypatch)
    trusted: Any = {"trust_range": True}  # noise hides what it looks for
    judged(network, PGD, **trusted)
    crashed(network, tmp_path, **trusted)
    record = judged(network, PGD, out=tmp_path, resume=True, **trusted)
    turns, crashes, resumed = counting.turns
    assert resumed == turns - crashes + 1
    again = judged(network, PGD, out=tmp_path, resume=True, **trusted)
    assert torch.equal(again.clean.prediction, record.clean.prediction) and len(counting.ran) == 3
    assert not torch.equal(judged(network, {}, **trusted).clean.prediction, record.clean.prediction)


def test_a_folder_named_as_a_journal_is_nobody_s_where_nothing_is_kept(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    file = crashed(model, tmp_path) / "training.json"
    file.write_text("{")
    monkeypatch.chdir(tmp_path)
    judged(model, PGD)
