"""The watch for catastrophic overfitting: on networks whose accuracies are known, and in the loop."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch
from torch import nn

from awnet.data import Dataset, Loader
from awnet.errors import Mistake
from awnet.threat_model import Linf
from awnet.training import StandardConfig, train
from awnet.training.overfitting import Overfitting, OverfittingConfig, Watched
from awnet.training.progress import Progress
from training.test_train import SHORT, about, accuracy, save
from training.tiny import dataset, own

EPS = 0.1


class Bent(nn.Module):
    """Right at a grey of 1/2, with a dip on one side: FGSM, which looks at the slope there, goes the other way.

    z_0 - z_1 = 1 near 1/2 and falls below 0 between 0.52 and 0.58 only; the slope at 1/2 points to darker greys.
    """

    def forward(self, x):
        grey = x.flatten(1).mean(1)
        dip = 3 * torch.exp(-(((grey - 0.55) / 0.02) ** 2))
        return torch.stack([1 + 2 * (grey - 0.5) - dip, torch.zeros_like(grey)], dim=1)


class Line(nn.Module):
    def forward(self, x):
        grey = x.flatten(1).mean(1)
        return torch.stack([grey - 0.45, torch.zeros_like(grey)], dim=1)


def grey(n: int = 40) -> Dataset:
    images = torch.full((n, 1, 1, 1), 128, dtype=torch.uint8)
    return Dataset("grey", "train", images, torch.zeros(n, dtype=torch.int64), torch.arange(n), ("a", "b"))


def test_a_bent_network_raises_the_alarm():
    seen = Overfitting(OverfittingConfig(images=30), Linf(EPS), grey(), 0)(Bent())
    assert seen.numbers["training_fgsm"] == 1.0 and seen.numbers["training_pgd"] < 0.7
    assert "overfits to one step: 100.0% right under FGSM" in seen.alarm and not seen.stop
    assert Overfitting(OverfittingConfig(images=30, stop=True), Linf(EPS), grey(), 0)(Bent()).stop
    assert not Overfitting(OverfittingConfig(images=30, gap=1.0), Linf(EPS), grey(), 0)(Bent()).alarm


def test_one_step_suffices_against_a_line():
    seen = Overfitting(OverfittingConfig(images=30), Linf(EPS), grey(), 0)(Line())
    assert seen == Watched({"training_fgsm": 0.0, "training_pgd": 0.0})


def test_the_same_images_each_time_and_no_trace():
    watch = Overfitting(OverfittingConfig(images=10, steps=2), Linf(EPS), dataset(), 3)
    assert len(watch.images) == 10
    model = own().train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    assert watch(model) == watch(model)
    assert model.training and all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def go(out, watch, *, resume: bool = False):
    loader = Loader(dataset(), batch_size=8, seed=2)
    objective = StandardConfig().build(Linf(EPS), {})
    return train(
        own(), objective, loader, SHORT, out=out, save=save, validate=accuracy, watch=watch, resume=resume, quiet=True
    )


def planted(*found: Watched):
    waiting = list(found)
    return lambda model: waiting.pop(0)


FINE, BAD = Watched({"training_pgd": 0.5}), Watched({"training_pgd": 0.0}, "it overfits")


def test_the_alarm_is_said_and_logged(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(Progress, "say", lambda self, text: said.append(text))
    history = go(tmp_path, planted(FINE, BAD, FINE))
    assert said == ["it overfits"]
    assert [row["training_pgd"] for row in history] == [0.5, 0.0, 0.5]
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [float(row["training_pgd"]) for row in rows] == [0.5, 0.0, 0.5]


def test_it_may_end_the_training_which_can_go_on(tmp_path):
    with pytest.raises(Mistake, match=r"stopped after epoch 2: it overfits; saved in .*; --resume goes on"):
        go(tmp_path, planted(FINE, BAD._replace(stop=True)))
    assert about(tmp_path / "last")["epoch"] == 2
    history = go(tmp_path, planted(FINE), resume=True)
    assert history == go(tmp_path / "whole", planted(FINE, BAD, FINE))


@pytest.mark.parametrize("wrong", [{"images": -1}, {"steps": 0}, {"gap": 0.0}, {"gap": float("nan")}], ids=str)
def test_settings_out_of_range(wrong):
    with pytest.raises(Mistake, match="the watch for overfitting"):
        replace(OverfittingConfig(), **wrong)
