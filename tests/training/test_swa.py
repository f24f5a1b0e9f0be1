"""The mean of the last epochs' weights by hand, in the loop, and after a stop."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from awnet.errors import Mistake
from awnet.training import TrainingConfig
from awnet.training.swa import SWA
from awnet.training.train import Validation
from training import test_train
from training.test_train import SHORT, STEPS, go, standard
from training.tiny import own


def test_mean_by_hand():
    model = own().double()
    swa = SWA(model, first=2)
    seen = []
    for epoch in range(6):
        with torch.no_grad():
            for p in model.parameters():
                p += torch.randn_like(p)
            model.bn.running_mean += 1
        seen.append([p.detach().clone() for p in model.parameters()])
        swa.update(model, epoch)
        for mine, *weights in zip(swa.model.parameters(), *seen[min(2, epoch) :], strict=True):
            torch.testing.assert_close(mine, torch.stack(weights).mean(0), rtol=1e-12, atol=1e-12)
            assert not mine.requires_grad
        assert torch.equal(swa.model.bn.running_mean, model.bn.running_mean)


@pytest.mark.parametrize(("share", "counted"), [(0.5, 3), (0.01, 1), (1.0, 6)])
def test_the_last_epochs_are_averaged_and_validated(share, counted, tmp_path):
    ends, shown = [], []

    def validate(candidate):
        shown.append(copy.deepcopy(candidate.state_dict()))
        return Validation(0, 0, len(shown))

    def happens(step, model, moment):  # before a step: the weights after the one before
        if step > 1 and (step - 1) % STEPS == 0:
            ends.append([p.detach().clone() for p in model.parameters()])

    model = own()
    go(tmp_path, replace(SHORT, epochs=6, swa=share), model=model, objective=standard(happens), validate=validate)
    ends.append([p.detach() for p in model.parameters()])
    assert len(ends) == len(shown) == 6
    for name, *weights in zip(dict(model.named_parameters()), *ends[-counted:], strict=True):
        torch.testing.assert_close(shown[-1][name], torch.stack(weights).mean(0))
    for name, p in zip(dict(model.named_parameters()), ends[0], strict=True):
        torch.testing.assert_close(shown[0][name], p)  # before the first that counts, and at it: the epoch's own
    if counted > 1:
        assert not torch.allclose(shown[-1]["bn.running_mean"], model.bn.running_mean)  # statistics of the mean's own


@pytest.mark.parametrize(
    "wrong", [{"swa": -0.1}, {"swa": 1.5}, {"swa": float("nan")}, {"swa": 0.5, "ema": 0.9}], ids=str
)
def test_settings_out_of_range(wrong):
    with pytest.raises(Mistake, match="swa is the share of the epochs"):
        TrainingConfig(**wrong)


def test_what_was_not_validated_is_saved_as_it_is_trained(tmp_path, monkeypatch):
    """An average has batch statistics of its own only where they were measured."""
    kept = []
    monkeypatch.setattr(test_train, "save", lambda folder, shown, about: kept.append(copy.deepcopy(shown.state_dict())))
    ends = []

    def happens(step, model, moment):
        if step == STEPS + 1:
            ends.append(copy.deepcopy(model.state_dict()))

    config = replace(SHORT, epochs=2, ema=0.9, validate_every=2)
    go(tmp_path, config, objective=standard(happens), validate=lambda candidate: Validation(0, 0, 1))
    assert len(kept) == 3  # last of each epoch, and best
    assert all(torch.equal(kept[0][name], value) for name, value in ends[0].items())
    assert all(torch.equal(kept[1][name], value) for name, value in kept[2].items()), "the average, fitted"
