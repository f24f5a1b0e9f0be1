"""Records: bit for bit from disk, and never half of one."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from awnet.errors import Mistake
from awnet.evaluation import Members, Record, Result, Samples

N = 7


def result(correct: str, settings: dict[str, Any] | None = None, p_clean: Tensor | None = None) -> Result:
    hits = torch.tensor([c == "1" for c in correct])
    return Result(
        settings=settings,
        correct=hits,
        prediction=torch.where(hits, 1, 0),
        p_clean=torch.rand(N) if p_clean is None else p_clean,
        forwards=torch.randint(1, 1000, (N,)),
        backwards=torch.randint(0, 1000, (N,)),
        seconds=0.125,
    )


def record(**changes: Any) -> Record:
    standard = Record(
        label="AW-Net “ω”",
        front="runs/awnet",
        model={"parameters": 12, "history": [{"epoch": 1, "loss": 0.1 + 0.2}], "knob": None},
        data={"name": "digits", "n": N},
        classes=("0", "é"),
        threat={"kind": "Linf", "eps": 8 / 255, "text": "Linf 8/255"},
        run={"seed": -(2**62)},
        provenance={"commit": None},
        ids=torch.tensor([5, 1, 2**40, 0, 3, 9, 7]),
        labels=torch.ones(N, dtype=torch.int64),
        clean=result("1111110"),
        attacks={"pgd-sat": result("1101000", {"kind": "PGD", "kappa": "inf"}), "cw.inf": result("1010000")},
        planned=("pgd-sat", "cw.inf", "square"),
        samples=Samples(
            attack="pgd-sat", positions=torch.tensor([2, 4]), x=torch.rand(2, 3, 8, 8), x_adv=torch.rand(2, 3, 8, 8)
        ),
    )
    return replace(standard, **changes)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, (Record, Result, Samples, Members)):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"samples": None, "attacks": {}},
        {"clean": result("1111110", p_clean=torch.full((N,), float("nan")))},
        {"ids": torch.arange(2 * N)[::2]},
    ],
    ids=["whole", "clean only", "does not tell", "strided"],
)
def test_comes_back_bit_for_bit(changes, tmp_path):
    saved = record(**changes)
    saved.save(tmp_path / "deep" / "folder")
    again = Record.load(tmp_path / "deep" / "folder")
    assert same(saved, again)
    assert {p.name for p in (tmp_path / "deep/folder").iterdir()} == {"record.json", "record.safetensors"}
    again.save(tmp_path / "again")
    for name in ("record.json", "record.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "deep/folder" / name).read_bytes()


def suite() -> Result:
    """The result of two attacks that took turns."""
    spent = torch.tensor([[1, 0], [90, 90]])[torch.randint(2, (2, N))].transpose(0, 1).contiguous()
    broken_by = torch.tensor([-1, 1, 0, -1, 1, 1, -1])
    return replace(result("1001001"), members=Members(names=("apgd-ce", "square"), broken_by=broken_by, spent=spent))


def test_what_the_attacks_of_a_suite_did_comes_back(tmp_path):
    saved = record(attacks={"aa": suite(), "pgd": result("1101000")}, samples=None)
    saved.save(tmp_path)
    assert same(saved, Record.load(tmp_path))
    members, told = saved.attacks["aa"].members, json.loads((tmp_path / "record.json").read_text())
    assert members is not None
    assert told["results"]["attacks.aa"]["members"] == [
        {
            "name": name,
            "broke": (1, 3)[place],
            "forwards": int(members.spent[:, place, 0].sum()),
            "backwards": int(members.spent[:, place, 1].sum()),
        }
        for place, name in enumerate(("apgd-ce", "square"))
    ]
    assert "members" not in told["results"]["attacks.pgd"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"broken_by": torch.tensor([-1, 2, 0, -1, 1, 1, -1])},
        {"broken_by": torch.tensor([-1, 1])},
        {"spent": torch.zeros(N, 3, 2, dtype=torch.int64)},
    ],
    ids=["no such attack", "too few", "another shape"],
)
def test_a_suite_that_cannot_have_been_run(wrong: dict[str, Tensor], tmp_path):
    found = suite()
    assert found.members is not None
    record(attacks={"aa": replace(found, members=replace(found.members, **wrong))}, samples=None).save(tmp_path)
    with pytest.raises(Mistake, match="what its 2 attacks did is not told for each of 7 examples"):
        Record.load(tmp_path)


def test_arrays_that_are_one_and_the_same(tmp_path):
    """A hand-made record may use one tensor in several places."""
    nan, ones = torch.full((N,), float("nan")), torch.ones(N, dtype=torch.int64)
    clean = replace(result("1" * N, p_clean=nan), forwards=ones, backwards=ones, prediction=ones)
    saved = record(clean=clean, attacks={"a": clean}, labels=ones, ids=ones, samples=None)
    saved.save(tmp_path)
    assert same(saved, Record.load(tmp_path))


def test_accuracies_by_hand():
    r = record()
    assert len(r) == N
    assert r.clean_accuracy.value == 6 / 7
    assert r.robust_accuracy("pgd-sat").value == 3 / 7
    assert r.worst.tolist() == [True, False, False, False, False, False, False]
    assert r.worst_accuracy.value == 1 / 7
    assert r.summary() == {
        "clean": 0.857143, "pgd-sat": 0.428571, "cw.inf": 0.285714, "worst case": 0.142857
    }  # fmt: skip
    # an image that is wrong as it is does not become right because the attack helped it
    lucky = record(clean=result("0" * N), attacks={"a": result("1" * N)})
    assert lucky.worst_accuracy.value == 0


def test_tells_type():
    assert record().tells_type
    assert not record(clean=result("1" * N, p_clean=torch.full((N,), float("nan")))).tells_type


def test_the_json_is_for_people(tmp_path):
    record().save(tmp_path)
    about = json.loads((tmp_path / "record.json").read_text())
    assert about["summary"]["worst case"] == pytest.approx(1 / 7, abs=1e-6)
    assert about["results"]["attacks.pgd-sat"]["settings"]["kind"] == "PGD"
    assert set(load_file(tmp_path / "record.safetensors")) >= {"ids", "labels", "clean.correct", "samples.x_adv"}


def test_an_older_record_that_says_less_is_read(tmp_path):
    record(planned=()).save(tmp_path)
    file = tmp_path / "record.json"
    about = json.loads(file.read_text())
    del about["planned"]
    assert "omega" not in about["results"]["clean"]
    file.write_text(json.dumps(about))
    again = Record.load(tmp_path)
    assert again.planned == () and again.clean.omega == {}


def test_a_record_replaces_another(tmp_path):
    record().save(tmp_path)
    other = record(label="other", attacks={}, samples=None)
    other.save(tmp_path)
    assert same(Record.load(tmp_path), other)


def test_halves_of_two_records_are_no_record(tmp_path):
    """A process that died between its two files."""
    record().save(tmp_path / "one")
    replace(record(), clean=result("0000000")).save(tmp_path / "two")
    (tmp_path / "two/record.safetensors").replace(tmp_path / "one/record.safetensors")
    with pytest.raises(Mistake, match="damaged"):
        Record.load(tmp_path / "one")


def damage(folder: Path, file: str, how: str) -> None:
    path = folder / file
    whole = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(whole[:-20])
    elif how == "bytes":
        path.write_bytes(b"\xff\xfe" + whole)
    elif how == "flipped":
        path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])


@pytest.mark.parametrize("how", ["missing", "empty", "cut", "bytes", "flipped"])
@pytest.mark.parametrize("file", ["record.json", "record.safetensors"])
def test_damaged_files(file, how, tmp_path):
    record().save(tmp_path)
    damage(tmp_path, file, how)
    with pytest.raises(Mistake, match=r"damaged|no record in") as said:
        Record.load(tmp_path)
    assert str(tmp_path) in str(said.value) and "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": 2}, "has format 2, this version reads 1"),
        ({"format": None}, "has format None"),
        ({"results": None}, "damaged"),
        ({"results": []}, "damaged"),
        ({"results": {}}, "damaged"),
        ({"results": {"clean": "x"}}, "damaged"),
        (
            {"results": {"clean": {"settings": None, "seconds": 1}, "attacks.none": {"settings": {}, "seconds": 1}}},
            "damaged",
        ),
        ({"classes": None}, "damaged"),
        ({"samples": 3}, "damaged"),
        ({"arrays": None}, "damaged"),
    ],
    ids=str,
)
def test_a_description_that_does_not_fit(changes, sentence, tmp_path):
    record().save(tmp_path)
    file = tmp_path / "record.json"
    about = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: value for name, value in about.items() if value is not None}))
    with pytest.raises(Mistake, match=sentence):
        Record.load(tmp_path)


def sample(position: int) -> Samples:
    x = torch.rand(1, 3, 8, 8)
    return Samples(attack="pgd-sat", positions=torch.tensor([position]), x=x, x_adv=x)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": torch.ones(N - 1, dtype=torch.int64)}, "labels are no places"),
        ({"labels": torch.full((N,), 2)}, "labels are no places among 2 classes"),
        ({"labels": torch.full((N,), -1)}, "labels are no places among 2 classes"),
        ({"classes": ("0",)}, "no places among 1 classes"),
        ({"ids": torch.arange(N + 1)}, "has shape"),
        ({"attacks": {"pgd-sat": replace(result("1111111"), forwards=torch.ones(N, 1))}}, "forwards of 7 examples has"),
        ({"attacks": {}}, "of 'pgd-sat', which is none of its attacks"),
        ({"model": {"history": [{"loss": float("nan")}]}}, "history"),
        ({"model": {"history": [{"loss": "much"}]}}, "history"),
        ({"model": {"history": {}}}, "history"),
        ({"run": {"seed": "one"}}, "seed"),
        ({"samples": sample(N)}, "sample images"),
        ({"samples": sample(-1)}, "sample images"),
        ({"samples": replace(sample(0), positions=torch.tensor([0, 1]))}, "sample images"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_record_whose_parts_do_not_fit_is_told(changes, sentence, tmp_path):
    record(**changes).save(tmp_path)
    with pytest.raises(Mistake, match=f"is damaged .*{sentence}"):
        Record.load(tmp_path)


def test_where_no_record_is(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(Mistake, match=r"no record in .*as `awnet evaluate` writes them"):
            Record.load(path)
