"""The images that a record keeps: the very ones that were judged, one for each broken example, whatever is killed or added."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from awnet.attacks import PGD, Suite
from awnet.errors import Mistake
from awnet.evaluation import Record
from awnet.evaluation.adversarials import FILE, PREVIOUS, Adversarials, find_adversarials, read_adversarials
from awnet.evaluation.verify import verify
from evaluation.test_evaluate import DATA, ENGINE, SUITE, THREAT, Counting, judged
from evaluation.test_evaluate import model as model  # the fixture

WEAK, STRONG = PGD(threat=THREAT, steps=1, step_size=0.8, initial="zero"), PGD(threat=THREAT, steps=6)


@pytest.mark.parametrize("attacks", [{"weak": WEAK, "strong": STRONG}, {"strong": STRONG, "weak": WEAK}, {"aa": SUITE}])
def test_each_broken_example_has_its_image(attacks: dict[str, PGD | Suite], model: nn.Module, tmp_path: Path):
    record = judged(model, attacks, seed=3, out=tmp_path)
    found = read_adversarials(tmp_path, record.adversarials)
    broken = record.clean.correct & ~record.worst
    assert 0 < broken.sum() < record.clean.correct.sum()
    assert torch.equal(found.positions, broken.nonzero()[:, 0]) and torch.equal(found.ids, record.ids[found.positions])
    assert found.attacks == tuple(attacks) and found.x_adv.dtype == torch.float32
    outcomes = [ENGINE.run(attack, model, DATA, seed=3) for attack in attacks.values()]
    for row, (position, by) in enumerate(zip(found.positions.tolist(), found.by.tolist(), strict=True)):
        first = next(i for i, outcome in enumerate(outcomes) if not outcome.correct[position])
        assert by == first and torch.equal(found.x_adv[row], outcomes[first].x_adv[position])


def test_added_attacks_add_their_images(model: nn.Module, tmp_path: Path):
    whole = judged(model, {"weak": WEAK, "strong": STRONG}, out=tmp_path / "whole")
    judged(model, {"weak": WEAK}, out=tmp_path / "parts")
    parts = judged(model, {"weak": WEAK, "strong": STRONG}, out=tmp_path / "parts", resume=True)
    assert parts.adversarials == whole.adversarials == Record.load(tmp_path / "parts").adversarials != ""
    assert (tmp_path / "parts" / FILE).read_bytes() == (tmp_path / "whole" / FILE).read_bytes()


STILL = replace(WEAK, step_size=1e-9)  # breaks nothing
CHANGED = replace(WEAK, step_size=0.01)


def test_who_has_no_image_left_of_an_example_is_run_again(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """An image is of the first attack that broke its example: where that one's go, others must show what they broke."""
    first = replace(WEAK, step_size=0.7)
    attacks = {"still": STILL, "first": first, "weak": WEAK, "strong": STRONG}
    before = judged(model, attacks, out=tmp_path)
    found = read_adversarials(tmp_path, before.adversarials)
    assert {found.attacks[by] for by in found.by.tolist()} == {"first", "weak", "strong"}
    counting = Counting(monkeypatch)
    changed = {**attacks, "weak": CHANGED}
    record = judged(model, changed, out=tmp_path, resume=True)
    assert counting.ran == [CHANGED, STRONG] and list(record.attacks) == ["still", "first", "weak", "strong"]
    assert verify(tmp_path, model, DATA).holds
    assert len(read_adversarials(tmp_path, record.adversarials)) == (record.clean.correct & ~record.worst).sum()
    judged(model, changed, out=tmp_path, resume=True)
    assert len(counting.ran) == 2


def test_an_attack_that_nobody_asked_for_is_not_lost(model: nn.Module, tmp_path: Path):
    judged(model, {"weak": WEAK, "strong": STRONG, "still": STILL}, out=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(Mistake, match="some examples that strong broke; ask for it too, to be run again"):
        judged(model, {"weak": CHANGED}, out=tmp_path, resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    record = judged(model, {"still": replace(STILL, step_size=2e-9)}, out=tmp_path, resume=True)
    assert list(record.attacks) == ["weak", "strong", "still"] and verify(tmp_path, model, DATA).holds


@pytest.mark.parametrize("before", [True, False])
def test_without_images_nothing_has_to_be_shown(
    before: bool, model: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    attacks = {"weak": WEAK, "strong": STRONG}
    judged(model, attacks, out=tmp_path, keep_adversarials=before)
    counting = Counting(monkeypatch)
    judged(model, {**attacks, "weak": CHANGED}, out=tmp_path, resume=True, keep_adversarials=False)
    assert counting.ran == [CHANGED]
    record = judged(model, attacks, out=tmp_path, resume=True)
    assert counting.ran == [CHANGED, WEAK] and record.adversarials == "", "a part of them would show nothing"


@pytest.mark.parametrize("by", [[0, 1, 2], [2, 1, 0]], ids=str)
def test_which_attacks_are_shown(by: list[int]):
    """A chain of three examples: each attack shows one of them and broke that one and the one before."""
    images = Adversarials(
        attacks=("a", "b", "c"),
        positions=torch.arange(3),
        ids=torch.arange(3),
        by=torch.tensor(by),
        x_adv=torch.zeros(3, 1, 2, 2),
    )
    of = torch.tensor(by)
    broke = {name: (of == place) | (of == place - 1) for place, name in enumerate("abc")}
    assert images.shown(broke) == {"a", "b", "c"}
    assert images.shown({name: broke[name] for name in "ab"}) == {"a", "b"}
    assert images.shown({name: broke[name] for name in "bc"}) == set()
    assert images.shown({name: broke[name] for name in "ac"}) == {"a"}
    assert images.shown({}) == set()


@pytest.mark.parametrize("moment", ["before the images", "before the record"])
def test_a_death_between_the_files_loses_nothing(
    moment: str, model: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    class Dead(BaseException):
        pass

    def die(*args: object, **kwargs: object) -> None:
        raise Dead

    attacks = {"weak": WEAK, "strong": STRONG}
    whole = judged(model, attacks, out=tmp_path / "whole")
    out = tmp_path / "cut"
    first = judged(model, {"weak": WEAK}, out=out)
    with monkeypatch.context() as patch, pytest.raises(Dead):
        patch.setattr(Adversarials if moment == "before the images" else Record, "save", die)
        judged(model, attacks, out=out, resume=True)
    assert (out / PREVIOUS).exists() == (moment == "before the record")
    assert read_adversarials(out, Record.load(out).adversarials).attacks == ("weak",)
    assert Record.load(out).adversarials == first.adversarials
    judged(model, attacks, out=out, resume=True)
    assert (out / FILE).read_bytes() == (tmp_path / "whole" / FILE).read_bytes() and not (out / PREVIOUS).exists()
    assert Record.load(out).adversarials == whole.adversarials


def test_a_record_is_read_without_them(model: nn.Module, tmp_path: Path):
    record = judged(model, {"weak": WEAK}, out=tmp_path)
    (tmp_path / FILE).unlink()
    assert Record.load(tmp_path).adversarials == record.adversarials
    with pytest.raises(Mistake, match="is missing, which the record beside it names"):
        read_adversarials(tmp_path, record.adversarials)


def test_they_can_be_left_out(model: nn.Module, tmp_path: Path):
    record = judged(model, {"weak": WEAK}, out=tmp_path, keep_adversarials=False)
    assert record.adversarials == "" and not (tmp_path / FILE).exists()
    with pytest.raises(Mistake, match="without keeping its adversarial images"):
        read_adversarials(tmp_path, record.adversarials)


def test_where_nothing_breaks_the_file_says_so(model: nn.Module, tmp_path: Path):
    record = judged(model, {"still": replace(WEAK, step_size=1e-9)}, out=tmp_path)
    found = read_adversarials(tmp_path, record.adversarials)
    assert len(found) == 0 and found.x_adv.shape == (0, 1, 8, 8) and found.attacks == ("still",)


def test_another_file_is_noticed(model: nn.Module, tmp_path: Path):
    record = judged(model, {"weak": WEAK}, out=tmp_path)
    tensors, about = load_file(tmp_path / FILE), {"attacks": '["weak"]'}
    tensors["x_adv"][0, 0, 0, 0] += 1e-7
    save_file(tensors, tmp_path / FILE, metadata=about)
    with pytest.raises(Mistake, match="is not the file that the record beside it names"):
        read_adversarials(tmp_path, record.adversarials)
    found, belongs = find_adversarials(tmp_path, record.adversarials)
    assert not belongs and torch.equal(found.x_adv, tensors["x_adv"])


@pytest.mark.parametrize("damage", ["cut", "names", "shape", "type", "places"])
def test_a_damaged_file_is_a_mistake(damage: str, model: nn.Module, tmp_path: Path):
    record = judged(model, {"weak": WEAK}, out=tmp_path)
    tensors, about = load_file(tmp_path / FILE), {"attacks": '["weak"]'}
    if damage == "shape":
        tensors["x_adv"] = tensors["x_adv"][1:].contiguous()
    elif damage == "type":
        tensors["x_adv"] = tensors["x_adv"].double()
    elif damage == "places":
        tensors["by"] += 1
    save_file(tensors, tmp_path / FILE, metadata={} if damage == "names" else about)
    if damage == "cut":
        (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-5])
    with pytest.raises(Mistake, match="is damaged"):
        find_adversarials(tmp_path, record.adversarials)


def test_the_file_is_the_same_each_time(model: nn.Module, tmp_path: Path):
    for name in ("a", "b"):
        judged(model, {"weak": WEAK, "strong": STRONG}, out=tmp_path / name)
    assert (tmp_path / "a" / FILE).read_bytes() == (tmp_path / "b" / FILE).read_bytes()
    with safe_open(tmp_path / "a" / FILE, "pt") as file:
        assert file.metadata() == {"attacks": '["weak", "strong"]'}
