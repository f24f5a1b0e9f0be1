"""What several processes find together is what one finds alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from awnet.attacks import APGD, PGD, Attack, Engine, Suite
from awnet.data import Dataset
from awnet.errors import Mistake
from awnet.evaluation import Record
from awnet.evaluation.evaluate import evaluate
from awnet.evaluation.shared import Share, started_together
from awnet.threat_model import Linf
from training.tiny import dataset, own

THREAT = Linf(0.15)
DATA = dataset(21, split="test", seed=4)
ATTACKS: dict[str, Attack | Suite] = {
    "pgd": PGD(threat=THREAT, steps=4, step_size=0.3),
    "suite": Suite(
        members=(("pgd", PGD(threat=THREAT, steps=2, stop_on_success=True)), ("apgd", APGD(threat=THREAT, steps=6)))
    ),
}
WORLD = 2


FEW = Dataset("one", "test", DATA.images[:1], DATA.labels[:1], DATA.ids[:1], DATA.classes)


def judged(model: nn.Module, data: Dataset = DATA, **more: Any) -> Record:
    return evaluate(model, data, ATTACKS, threat=THREAT, engine=Engine(batch_size=8), **more)


def alike(one: Record, two: Record) -> None:
    """Every answer and cost, and the images."""
    assert list(one.attacks) == list(two.attacks)
    for name in one.attacks:
        for array in ("correct", "prediction", "forwards", "backwards"):
            a, b = getattr(one.attacks[name], array), getattr(two.attacks[name], array)
            assert torch.equal(a, b), (name, array)
    a, b = one.attacks["suite"].members, two.attacks["suite"].members
    assert a and b and torch.equal(a.broken_by, b.broken_by) and torch.equal(a.spent, b.spent)
    assert one.samples and two.samples and torch.equal(one.samples.positions, two.samples.positions)
    torch.testing.assert_close(one.samples.x_adv, two.samples.x_adv, rtol=0, atol=1e-5)
    assert torch.equal(one.ids, two.ids) and torch.equal(one.clean.correct, two.clean.correct)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_shares_make_the_whole(n: int, world: int, monkeypatch: pytest.MonkeyPatch):
    images = dataset(n)
    shares = [Share(rank, world) for rank in range(world)]
    parts: list[dict[str, Tensor]] = []
    for share in shares:
        part = share.of(images)
        # who has no example may have nothing to say of it
        parts.append({"ids": part.ids, "pixels": part.pixels(torch.arange(len(part)))} if len(part) else {})
    assert max(map(len, (p.get("ids", []) for p in parts))) - min(map(len, (p.get("ids", []) for p in parts))) <= 1
    monkeypatch.setattr(Share, "told", lambda share, part: parts)
    for share in shares:
        whole = share.joined(parts[share.rank])
        assert torch.equal(whole["ids"], images.ids) and torch.equal(whole["pixels"], images.images)


def test_a_process_by_itself_does_all_of_it():
    with started_together("cpu") as share:
        assert share == Share() == Share.here() and share.leads
    assert share.of(DATA) is DATA and share.told(3) == [3] and share.first(lambda: 4) == 4


class Crash(Exception):
    """Of every process at once."""


def shared(rank: int, folder: Path) -> None:
    """What each of the processes does."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), WORLD)  # pyright: ignore[reportPrivateImportUsage]
    dist.init_process_group("gloo", rank=rank, world_size=WORLD, store=store)
    model = own(2)
    model.load_state_dict(torch.load(folder / "model.pt"))
    turns: list[str] = []

    def crash(now: Any) -> None:
        turns.append(now.attack)
        if turns.count("suite: apgd") == 3:
            raise Crash

    try:
        record = judged(model, out=folder / "whole", progress=lambda now: turns.append(now.attack))
        apgd = turns.count("suite: apgd")
        record.save(folder / f"of-{rank}")
        for out in ("resumed", "alone"):
            turns.clear()
            with pytest.raises(Crash):
                judged(model, out=folder / out, save_seconds=0, progress=crash)
        dist.barrier()
        assert (folder / "alone" / f"journal-{rank}").is_dir()
        turns.clear()
        judged(model, out=folder / "resumed", resume=True, progress=lambda now: turns.append(now.attack))
        assert turns == ["suite: apgd"] * (apgd - 2), "goes on where it was"
        with pytest.raises(Mistake, match="already; --resume"):
            judged(model, out=folder / "whole")
        judged(model, FEW, out=folder / "few")
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_find_what_one_does(tmp_path: Path):
    model = own(2)
    x, y = dataset(60).batch(torch.arange(60))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    torch.multiprocessing.spawn(shared, (tmp_path,), nprocs=WORLD)  # pyright: ignore[reportPrivateImportUsage]
    one = judged(model)
    assert 0 < one.worst.sum() < one.clean.correct.sum()
    for folder in ("whole", "of-0", "of-1", "resumed"):
        alike(Record.load(tmp_path / folder), one)
    alike(Record.load(tmp_path / "few"), judged(model, FEW))  # an example for one of them, and none for the other
    record = Record.load(tmp_path / "whole")
    assert record.provenance["processes"] == WORLD and "processes" not in one.provenance
    assert {path.name for path in (tmp_path / "resumed").iterdir()} == {
        "record.json", "record.safetensors", "adversarials.safetensors", ".lock"
    }  # fmt: skip
    # another number of processes has other shares
    alike(judged(model, out=tmp_path / "alone", resume=True), one)
    assert not list((tmp_path / "alone").glob("journal*"))


@pytest.mark.slow
def test_torchrun_of_the_command(static: Path, tmp_path: Path):
    common = ["evaluate", str(static), "--attacks", "fgsm", "apgd-ce", "--limit", "30", "--batch-size", "16", "--out"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    done = subprocess.run([*torchrun, "awnet.cli", *common, str(tmp_path / "two")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("record:") == 1
    subprocess.run([sys.executable, "-m", "awnet.cli", *common, str(tmp_path / "one")], check=True)
    one, two = Record.load(tmp_path / "one"), Record.load(tmp_path / "two")
    assert two.provenance["processes"] == 2
    for name in one.attacks:
        assert torch.equal(one.attacks[name].correct, two.attacks[name].correct)
