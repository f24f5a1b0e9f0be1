"""The loop: its numbers, what it keeps, and that a run which was stopped comes to the same end."""

from __future__ import annotations

import copy
import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from awnet.checkpoint import load, read_state, save_model
from awnet.config import from_json, to_json
from awnet.data import Loader
from awnet.data.augment import Augment
from awnet.errors import Mistake
from awnet.interrupt import Interrupt
from awnet.models import create
from awnet.noise import fold
from awnet.threat_model import Linf
from awnet.training import (
    DAJATConfig,
    GATConfig,
    JointConfig,
    MTARDConfig,
    PGDATConfig,
    StandardConfig,
    TRADESConfig,
    TrainingConfig,
    ViTATConfig,
    train,
)
from awnet.training.objective import Losses, Moment, Objective
from awnet.training.optimizer import Constant, OneCycle, SGDConfig
from awnet.training.progress import Progress
from awnet.training.train import Validation
from training import curves
from training.tiny import CLASSES, DYNAMIC, NARROW, attentive, dataset, own, teachers

THREAT = Linf(0.2)
STEPS = 3  # an epoch: 24 images in batches of 8
SHORT = TrainingConfig(epochs=3, batch_size=8, optimizer=SGDConfig(lr=0.05), schedule=OneCycle())


def save(folder: Path, model: nn.Module, about: dict[str, Any]) -> None:
    save_model(folder, model, None, {"classes": list("abc"), "shape": [1, 8, 8], **about})


def accuracy(model: nn.Module) -> Validation:
    """On images that are not trained on; the loss breaks ties, so that every epoch has another score."""
    data = dataset(30, split="validation", seed=9)
    x, y = data.batch(torch.arange(len(data)))
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        logits = model(x)
    share = (logits.argmax(1) == y).float().mean().item()
    return Validation(share, share / 2, share - 1e-3 * nn.functional.cross_entropy(logits, y).item())


def go(
    out: Path,
    config: TrainingConfig = SHORT,
    *,
    model: nn.Module | None = None,
    objective: Objective | None = None,
    validate: Callable[[nn.Module], Validation] = accuracy,
    resume: bool = False,
) -> list[dict[str, float]]:
    loader = Loader(dataset(), batch_size=config.batch_size, seed=2, augment=Augment(padding=1, flip=False))
    return train(
        own() if model is None else model,
        objective or StandardConfig().build(THREAT, {}),
        loader,
        config,
        out=out,
        save=save,
        validate=validate,
        seed=4,
        resume=resume,
        quiet=True,
    )


class Around(Objective):
    """Another objective, with something happening before a step's loss is computed (steps are counted from 1)."""

    def __init__(self, inner: Objective, happens: Callable[[int, nn.Module, Moment], None]) -> None:
        super().__init__()
        self.inner, self.happens, self.calls = inner, happens, 0
        self.losses: list[float] = []

    def forward(self, model, x, y, ids, moment) -> Losses:
        if self.training:
            self.calls += 1
            self.happens(self.calls, model, moment)
        losses = self.inner(model, x, y, ids, moment)
        if self.training:
            self.losses.append(losses.total.item())
        return losses


def standard(happens: Callable[[int, nn.Module, Moment], None] = lambda step, model, moment: None) -> Around:
    return Around(StandardConfig().build(THREAT, {}), happens)


# --- numbers ---


@pytest.mark.parametrize("name", curves.OBJECTIVES)
def test_loss_curve_is_unchanged(name, tmp_path):
    """20 steps against stored numbers; where they are meant to change, see training/curves.py."""
    golden = json.loads(curves.GOLDEN.read_text())[name]
    found = curves.curve(name, tmp_path)
    assert found.keys() == golden.keys()
    for column, values in found.items():
        assert values == pytest.approx(golden[column], rel=1e-6, abs=1e-12), column


def test_equals_its_definition(tmp_path):
    """Six steps of SGD with momentum and weight decay in a plain loop."""
    trained, model = own(), own().to(memory_format=torch.channels_last)
    config = replace(SHORT, epochs=2)
    go(tmp_path, config, model=trained)
    loader = Loader(dataset(), batch_size=8, seed=2, augment=Augment(padding=1, flip=False))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=2e-4)
    model.train()
    count = 0
    for epoch in range(2):
        for x, y, _ in loader.epoch(epoch):
            optimizer.param_groups[0]["lr"] = 0.05 * OneCycle().factor(count / 6, epoch / 2)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x.contiguous(memory_format=torch.channels_last)), y).backward()
            optimizer.step()
            count += 1
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-6, atol=1e-7, msg=name)


def test_every_step_is_told_when_it_is(tmp_path):
    moments: list[Moment] = []
    objective = standard(lambda step, model, moment: moments.append(moment))
    go(tmp_path, replace(SHORT, eps_warm_up=0.5), objective=objective)
    assert [m.eps_factor for m in moments] == pytest.approx([min(1, i / 4.5) for i in range(9)])
    assert [m.lr_factor for m in moments] == pytest.approx([OneCycle().factor(i / 9, 0) for i in range(9)])
    assert [m.seed for m in moments] == [fold(4, i) for i in range(9)]


def test_rates_of_both_groups_follow_the_schedule(tmp_path, monkeypatch):
    rates = []
    step = torch.optim.SGD.step

    def noted(self, closure=None):
        rates.append([group["lr"] for group in self.param_groups])
        return step(self, closure)

    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    model = create(DYNAMIC, classes=CLASSES, channels=1)
    config = replace(SHORT, epochs=1, optimizer=SGDConfig(lr=0.05, router_lr=0.02))
    go(tmp_path, config, model=model, objective=JointConfig(over=PGDATConfig(steps=1)).build(THREAT, {}))
    factors = [OneCycle().factor(i / 3, 0) for i in range(3)]
    assert rates == [pytest.approx([0.05 * f, 0.02 * f]) for f in factors]


@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_gradients_are_clipped(clip, tmp_path):
    model = own()
    before = copy.deepcopy(model)
    plain = SGDConfig(lr=1.0, momentum=0, weight_decay=0)
    config = replace(SHORT, epochs=1, batch_size=24, optimizer=plain, schedule=Constant(), clip=clip)
    go(tmp_path, config, model=model)
    moved = [a - b for a, b in zip(model.parameters(), before.parameters(), strict=True)]
    length = torch.stack([t.norm() for t in moved]).norm().item()
    assert length == pytest.approx(0.01, rel=1e-3) if clip else length > 0.1


def test_bfloat16_where_it_is_safe(tmp_path):
    inside = []
    objective = standard(lambda step, model, moment: inside.append(torch.is_autocast_enabled("cpu")))
    model = own()
    model.conv.register_forward_hook(lambda module, args, output: inside.append(output.dtype))
    history = go(tmp_path, replace(SHORT, precision="bf16-mixed"), model=model, objective=objective)
    assert inside[:2] == [True, torch.bfloat16]
    assert all(p.dtype == torch.float32 for p in model.parameters())
    exact = go(tmp_path / "exact")
    assert history != exact
    assert [row["loss"] for row in history] == pytest.approx([row["loss"] for row in exact], rel=0.05)


def test_bfloat16_trains_awnet_with_teachers(tmp_path):
    objective = JointConfig(over=MTARDConfig(steps=1)).build(THREAT, teachers())
    config = replace(SHORT, epochs=1, precision="bf16-mixed", ema=0.5)
    (row,) = go(tmp_path, config, model=create(DYNAMIC, classes=CLASSES, channels=1), objective=objective)
    assert 0 < row["loss"] < 5


def test_somebodys_own_network_learns(tmp_path):
    """Any nn.Module, any objective, the same loop."""
    model = own(dropout=0.1)
    go(tmp_path, replace(SHORT, epochs=12, optimizer=SGDConfig(lr=0.1)), model=model)
    assert accuracy(model).clean > 0.9 > 0.7 > accuracy(own()).clean
    assert model.training


# --- what is kept ---


def about(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "model.json").read_text())


def planted(*scores: float) -> Callable[[nn.Module], Validation]:
    waiting = list(scores)
    return lambda model: Validation(0.5, 0.25, waiting.pop(0))


@pytest.mark.parametrize(
    ("scores", "best"), [((0.1, 0.9, 0.3), 2), ((0.1, 0.2, 0.3), 3), ((0.3, 0.3, 0.3), 1), ((-5.0, -2.0, -3.0), 2)]
)
def test_best_checkpoint_is_that_of_the_highest_score(scores, best, tmp_path):
    states = []

    given = planted(*scores)

    def validate(model):
        states.append(copy.deepcopy(model.state_dict()))
        return given(model)

    history = go(tmp_path, validate=validate)
    assert about(tmp_path / "best")["epoch"] == best
    assert about(tmp_path / "best")["history"] == history[:best]
    assert about(tmp_path / "last")["epoch"] == 3 and about(tmp_path / "last")["history"] == history
    for name, value in load_file(tmp_path / "best" / "model.safetensors").items():
        assert torch.equal(value, states[best - 1][name])
    other = load(tmp_path, into=own())  # of a run the best is meant
    assert torch.equal(other.state_dict()["head.weight"], states[best - 1]["head.weight"])


def test_validation_now_and_then_and_at_the_end(tmp_path):
    history = go(tmp_path, replace(SHORT, epochs=5, validate_every=2), validate=planted(0.1, 0.3, 0.2))
    assert ["validation_score" in row for row in history] == [False, True, False, True, True]
    assert about(tmp_path / "best")["epoch"] == 4


def test_log_has_a_row_an_epoch(tmp_path):
    objective = standard()
    history = go(tmp_path, replace(SHORT, validate_every=2), objective=objective)
    text = (tmp_path / "log.csv").read_text()
    assert text.splitlines()[0] == (
        "epoch,loss,loss_clean,lr_factor,validation_clean,validation_robust,validation_score"
    )
    rows = list(csv.DictReader(text.splitlines()))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    for row, kept in zip(rows, history, strict=True):
        assert {name: float(value) for name, value in row.items() if value} == kept
    assert rows[0]["validation_score"] == "" and float(rows[1]["validation_robust"]) > 0
    for epoch in range(3):
        mean = sum(objective.losses[epoch * STEPS : (epoch + 1) * STEPS]) / STEPS
        assert history[epoch]["loss"] == pytest.approx(mean, rel=1e-6)


def test_log_of_joint_training_names_every_part(tmp_path):
    objective = JointConfig(over=MTARDConfig(steps=1)).build(THREAT, teachers())
    (row,) = go(
        tmp_path, replace(SHORT, epochs=1), model=create(DYNAMIC, classes=CLASSES, channels=1), objective=objective
    )
    losses = {"loss", "loss_adversarial", "loss_clean", "loss_type"}
    watched = {"alpha_nat", "alpha_adv", "p_type_clean", "p_type_adversarial", "lr_factor"}
    assert set(row) == {"epoch", *losses, *watched, "validation_clean", "validation_robust", "validation_score"}


def test_tensorboard_can_read_along(tmp_path):
    go(tmp_path)
    (events,) = tmp_path.glob("events.out.tfevents*")
    content = events.read_bytes()
    for tag in (b"epoch/lr_factor", b"epoch/validation_score"):
        assert content.count(tag) == 3


def test_average_of_weights_is_validated_and_kept(tmp_path):
    """By hand: the weights after each step, averaged; the statistics are those of the averaged network."""
    steps, seen = [], []

    def happens(step, model, moment):
        steps.append([p.detach().clone() for p in model.parameters()])

    def validate(model):
        seen.append(copy.deepcopy(model.state_dict()))
        return Validation(0, 0, len(seen))

    model = own()
    go(tmp_path, replace(SHORT, ema=0.4), model=model, objective=standard(happens), validate=validate)
    average, after = steps[0], [*steps[1:], [p.detach() for p in model.parameters()]]
    for count, weights in enumerate(after):
        decay = min(0.4, (1 + count) / (10 + count))
        average = [decay * a + (1 - decay) * w for a, w in zip(average, weights, strict=True)]
    for a, (name, p) in zip(average, model.named_parameters(), strict=True):
        torch.testing.assert_close(seen[-1][name], a)
        assert name == "conv.bias" or not torch.allclose(seen[-1][name], p), name  # batch norm takes the bias out

    batches = [b for b in Loader(dataset(), batch_size=8, seed=2, augment=Augment(padding=1, flip=False)).epoch(3)]
    conv = own().conv
    conv.load_state_dict({"weight": seen[-1]["conv.weight"], "bias": seen[-1]["conv.bias"]})
    by_hand = torch.stack([conv(b.x).mean((0, 2, 3)) for b in batches]).mean(0)
    torch.testing.assert_close(seen[-1]["bn.running_mean"], by_hand.detach())
    for folder in ("best", "last"):
        kept = load_file(tmp_path / folder / "model.safetensors")
        assert all(torch.equal(value, seen[-1][name]) for name, value in kept.items()), folder


# --- stopped, and gone on ---


def content(out: Path) -> dict[str, Any]:
    """Everything that a run leaves, but for times."""
    found: dict[str, Any] = {"log.csv": (out / "log.csv").read_text()}
    for file in sorted(out.glob("*/*.safetensors")):
        found |= {f"{file.relative_to(out)} {k}": t for k, t in load_file(file).items()}
    for file in sorted(out.glob("*/*.json")):
        found[str(file.relative_to(out))] = json.loads(file.read_text())
    return found


def differences(a: Path, b: Path) -> list[str]:
    one, two = content(a), content(b)
    assert one.keys() == two.keys()
    same = {k: torch.equal(v, two[k]) if isinstance(v, torch.Tensor) else v == two[k] for k, v in one.items()}
    return [name for name, equal in same.items() if not equal]


def stop_after(monkeypatch, *steps: int) -> None:
    """As if Ctrl-C were pressed in these steps, counted over the whole training."""
    advance = Progress.advance

    def stopping(self, images, means):
        advance(self, images, means)
        if self._step in steps:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Progress, "advance", stopping)


def awnet_by_mtard() -> dict[str, Any]:
    objective = JointConfig(over=MTARDConfig(steps=1, weight_lr=0.3)).build(THREAT, teachers())
    return {"model": create(DYNAMIC, classes=CLASSES, channels=1), "objective": objective}


def static_by_trades() -> dict[str, Any]:
    model = create(NARROW, classes=CLASSES, channels=1)
    return {"model": model, "objective": TRADESConfig(steps=1).build(THREAT, {})}


def static_by_b_mtard() -> dict[str, Any]:
    model = create(NARROW, classes=CLASSES, channels=1)
    return {"model": model, "objective": MTARDConfig(steps=1, temperature_lr=0.1).build(THREAT, teachers())}


def own_by_dajat() -> dict[str, Any]:
    return {"model": own(), "objective": DAJATConfig(steps=1).build(THREAT, {})}


def attentive_by_vit_at() -> dict[str, Any]:
    return {"model": attentive().float(), "objective": ViTATConfig(steps=2, warm_up=0.7).build(THREAT, {})}


def static_by_gat() -> dict[str, Any]:
    return {"model": create(NARROW, classes=CLASSES, channels=1), "objective": GATConfig().build(THREAT, {})}


def own_with_dropout() -> dict[str, Any]:
    return {"model": own(dropout=0.5), "objective": PGDATConfig(steps=1).build(THREAT, {})}


RUNS = {
    "awnet by mtard": (awnet_by_mtard, replace(SHORT, ema=0.9, clip=1.0, eps_warm_up=0.5, validate_every=2)),
    "static by trades": (static_by_trades, SHORT),
    "own with dropout": (own_with_dropout, replace(SHORT, ema=0.9)),
    "own by dajat": (own_by_dajat, replace(SHORT, ema=0.9, eps_warm_up=1.0)),
    "transformer by vit-at": (attentive_by_vit_at, replace(SHORT, clip=1.0)),
    "static by gat": (static_by_gat, SHORT),
    "static by b-mtard": (static_by_b_mtard, replace(SHORT, swa=0.6)),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_comes_to_the_same_end(name, tmp_path, monkeypatch):
    """Stopped in the first epoch, in an epoch's last step, in the middle, in the very last step: the same bits."""
    parts, config = RUNS[name]
    whole = parts()
    history = go(tmp_path / "whole", config, **whole)
    stop_after(monkeypatch, 1, STEPS, STEPS + 2, 3 * STEPS)
    for epoch in (1, 1, 2, 3):
        with pytest.raises(Interrupt, match=rf"stopped in epoch {epoch}; .*--resume"):
            go(tmp_path / "stopped", config, resume=True, **parts())
    last = parts()
    assert go(tmp_path / "stopped", config, resume=True, **last) == history
    assert differences(tmp_path / "whole", tmp_path / "stopped") == []
    for part in ("model", "objective"):
        mine, other = whole[part].state_dict(), last[part].state_dict()
        assert all(torch.equal(value, other[key]) for key, value in mine.items())


def test_the_state_is_more_than_the_weights(tmp_path):
    go(tmp_path, **{**awnet_by_mtard(), "config": replace(SHORT, epochs=1, ema=0.9)})
    state = read_state(tmp_path / "last")
    assert set(state) == {"place", "model", "objective", "optimizer", "ema"}
    assert state["optimizer"]["state"] and state["objective"]["over.a_nat"].item() != 0.5
    assert not torch.equal(state["ema"]["head.weight"], state["model"]["head.weight"])


def test_a_crash_costs_what_was_not_saved(tmp_path):
    """A power cut in step 6, the state saved after each: the run goes on from there, and ends as if nothing happened."""

    def cut(step, model, moment):
        if step == 6:
            raise ZeroDivisionError

    config = replace(SHORT, save_seconds=0)
    go(tmp_path / "whole", config, objective=standard())
    with pytest.raises(ZeroDivisionError):
        go(tmp_path / "cut", config, objective=standard(cut))
    assert read_state(tmp_path / "cut" / "last")["place"]["step"] == 2
    objective = standard()
    go(tmp_path / "cut", config, objective=objective, resume=True)
    assert objective.calls == 4
    assert differences(tmp_path / "whole", tmp_path / "cut") == []


LOOP = sys.modules["awnet.training.train"]  # the attribute of that name is its function


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_crash_between_best_and_last(epoch, tmp_path, monkeypatch):
    """The epoch whose result was half written is trained and judged again."""
    replace_folder = LOOP.replace_folder
    written = []

    def failing(path, write):
        written.append(path.name)
        if written == ["best", "last"] * epoch:
            raise ZeroDivisionError
        replace_folder(path, write)

    go(tmp_path / "whole", validate=planted(0.1, 0.2, 0.3))
    monkeypatch.setattr(LOOP, "replace_folder", failing)
    with pytest.raises(ZeroDivisionError):
        go(tmp_path / "cut", validate=planted(0.1, 0.2, 0.3))
    monkeypatch.undo()
    assert about(tmp_path / "cut" / "best")["epoch"] == epoch
    go(tmp_path / "cut", validate=planted(*(0.1, 0.2, 0.3)[epoch - 1 :]), resume=True)
    assert differences(tmp_path / "whole", tmp_path / "cut") == []


def test_a_crash_before_the_log_is_written(tmp_path, monkeypatch):
    """The log is not lost where a run dies at its very end."""
    write_csv = LOOP._write_csv

    def failing(path, history):
        if len(history) == 3:
            raise ZeroDivisionError
        write_csv(path, history)

    go(tmp_path / "whole")
    monkeypatch.setattr(LOOP, "_write_csv", failing)
    with pytest.raises(ZeroDivisionError):
        go(tmp_path / "cut")
    monkeypatch.undo()
    go(tmp_path / "cut", resume=True)
    assert differences(tmp_path / "whole", tmp_path / "cut") == []


def test_a_finished_run_is_only_read(tmp_path):
    history = go(tmp_path)
    before = content(tmp_path)
    objective = standard()
    assert go(tmp_path, objective=objective, resume=True) == history
    assert objective.calls == 0 and content(tmp_path).keys() == before.keys()


def test_resume_where_nothing_is_begins(tmp_path):
    assert len(go(tmp_path, resume=True)) == 3


def test_without_resume_a_run_begins_anew(tmp_path):
    go(tmp_path)
    objective = standard()
    go(tmp_path, objective=objective)
    assert objective.calls == 9


@pytest.mark.parametrize("other", ["network", "objective", "average"])
def test_a_state_of_another_run_does_not_fit(other, tmp_path):
    go(tmp_path, replace(SHORT, epochs=1))
    parts: dict[str, Any] = {"config": SHORT}
    if other == "network":
        parts["model"] = create(NARROW, classes=CLASSES, channels=1)
    elif other == "objective":
        parts["objective"] = MTARDConfig(steps=1).build(THREAT, teachers())
    else:
        parts["config"] = replace(SHORT, ema=0.5)
    with pytest.raises(Mistake, match=r"training state in .* does not fit"):
        go(tmp_path, resume=True, **parts)


# --- Ctrl-C ---


def test_ctrl_c_saves_after_the_step(tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    objective = standard(lambda step, *_: signal.raise_signal(signal.SIGINT) if step == 5 else None)
    with pytest.raises(Interrupt, match="stopped in epoch 2"):
        go(tmp_path, objective=objective)
    assert signal.getsignal(signal.SIGINT) is handler
    place = read_state(tmp_path / "last")["place"]
    assert (place["epoch"], place["step"]) == (1, 2)


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    handler = signal.getsignal(signal.SIGINT)

    def twice(step, *_):
        if step == 5:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as stopped:
        go(tmp_path, objective=standard(twice))
    assert not isinstance(stopped.value, Interrupt)
    assert signal.getsignal(signal.SIGINT) is handler
    assert read_state(tmp_path / "last")["place"]["epoch"] == 1


PROGRAM = """
import sys
from dataclasses import replace
from pathlib import Path
from awnet.training.optimizer import Constant
from awnet.interrupt import Interrupt
from training.test_train import SHORT, go, planted

def validate(model):
    print("epoch", flush=True)
    return planted(0.5)(model)

try:
    go(Path(sys.argv[1]), replace(SHORT, epochs=100_000, schedule=Constant()), validate=validate)
except Interrupt as interrupt:
    print(interrupt)
    sys.exit(130)
"""


def test_ctrl_c_in_a_process_of_its_own(tmp_path):
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tmp_path / "cut"], env=env, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "epoch\n"
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "saved in" in output and "--resume goes on" in output

    place = read_state(tmp_path / "cut" / "last")["place"]
    config = replace(SHORT, epochs=place["epoch"] + 1, schedule=Constant())
    scores = [0.5] * config.epochs
    go(tmp_path / "cut", config, validate=planted(*scores), resume=True)
    go(tmp_path / "whole", config, validate=planted(*scores))
    assert differences(tmp_path / "whole", tmp_path / "cut") == []


# --- what cannot go on ---


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run(value, tmp_path):
    def poison(step, model, moment):
        if step == 5:
            with torch.no_grad():  # infinite, not yet NaN: the loss is the first to tell
                model.head.bias += torch.tensor([value, 0, 0])

    go(tmp_path / "whole")
    sentence = r"the loss is (nan|inf) in epoch 2, step 2; .*kept.* lower learning rate.*"
    with pytest.raises(Mistake, match=sentence) as said:
        go(tmp_path / "cut", objective=standard(poison))
    assert "\n" not in str(said.value)
    assert about(tmp_path / "cut" / "last")["epoch"] == 1
    for folder in ("best", "last"):
        kept = load_file(tmp_path / "cut" / folder / "model.safetensors")
        assert all(t.isfinite().all() for t in kept.values())
    go(tmp_path / "cut", resume=True)
    assert differences(tmp_path / "whole", tmp_path / "cut") == []


@pytest.mark.parametrize("step", [4, 6])
@pytest.mark.parametrize("save_seconds", [0.0, 60.0])
def test_weights_that_are_no_numbers_are_not_saved(step, save_seconds, tmp_path):
    """A finite loss with an infinite gradient: only the weights tell, before anything is overwritten with them."""

    def break_gradient(number, model, moment):
        if number == step:
            model.head.bias.register_hook(lambda grad: grad * float("inf"))

    config = replace(SHORT, save_seconds=save_seconds)
    with pytest.raises(Mistake, match=r"in epoch 2, step .* kept"):
        go(tmp_path, config, objective=standard(break_gradient))
    for folder in ("best", "last"):
        kept = load_file(tmp_path / folder / "model.safetensors")
        assert all(t.isfinite().all() for t in kept.values())
    go(tmp_path, config, resume=True)
    assert about(tmp_path / "last")["epoch"] == 3


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"batch_size": 1}, {"validate_every": 0}, {"ema": 1.0}, {"ema": -0.1}, {"ema": float("nan")}],
    ids=str,
)
def test_settings_out_of_range(wrong):
    with pytest.raises(Mistake, match="training needs"):
        TrainingConfig(**wrong)


def test_settings_come_back_from_json():
    config = replace(SHORT, ema=0.99, precision="bf16-mixed", clip=0.5)
    assert from_json(json.loads(json.dumps(to_json(config)))) == config
