"""The average of weights by hand, and batch statistics that are those of the averaged network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from awnet.threat_model import Linf
from awnet.training import AWPConfig, JointConfig, MTARDConfig, PGDATConfig, StandardConfig, TRADESConfig
from awnet.training.ema import EMA, fit_statistics
from awnet.training.objective import Losses, Moment, Objective
from training.tiny import CLASSES, awnet, batch, own, teachers

EXACT = {"rtol": 1e-9, "atol": 1e-12}
THREAT = Linf(0.2)
OBJECTIVES = {
    "standard": StandardConfig(),
    "pgd-at": PGDATConfig(steps=2),
    "trades": TRADESConfig(steps=2),
    "mtard": MTARDConfig(steps=2, weight_lr=0.5),
    "joint-mtard": JointConfig(over=MTARDConfig(steps=2, weight_lr=0.5)),
    "joint-pgd-at": JointConfig(over=PGDATConfig(steps=2)),
}
each = pytest.mark.parametrize("name", OBJECTIVES)


def test_average_by_hand():
    model = own().double()
    ema = EMA(model, 0.6)
    average = {name: p.detach().clone() for name, p in model.named_parameters()}
    for step in range(12):
        with torch.no_grad():
            for p in model.parameters():
                p += torch.randn_like(p)
            model.bn.running_mean += 1
            model.bn.num_batches_tracked += 1
        ema.update(model, step)
        decay = [0.1, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 9 / 18, 10 / 19, 11 / 20, 12 / 21][step]
        decay = min(0.6, decay)  # (1 + step) / (10 + step): random first weights are forgotten quickly
        for name, p in model.named_parameters():
            average[name] = decay * average[name] + (1 - decay) * p.detach()
    for name, p in ema.model.named_parameters():
        torch.testing.assert_close(p, average[name], **EXACT)
        assert not p.requires_grad and not torch.equal(p, dict(model.named_parameters())[name])
    for name, buffer in ema.model.named_buffers():
        assert torch.equal(buffer, dict(model.named_buffers())[name])


def test_late_steps_use_the_decay_itself():
    model = own().double()
    ema = EMA(model, 0.9)
    before = model.head.weight.detach().clone()
    with torch.no_grad():
        model.head.weight += 1
    ema.update(model, 10_000)
    torch.testing.assert_close(ema.model.head.weight, before + 0.1, **EXACT)


def batches(count: int = 3):
    return [batch(6, seed=seed) for seed in range(count)]


def a_model(name: str) -> nn.Module:
    return awnet(batch().x) if name.startswith("joint") else own().double().train()


@each
def test_statistics_are_the_average_over_all_that_passed(name):
    """Every batch norm's inputs are caught on their way, in training mode; the plain average of their moments is expected."""
    model, objective = a_model(name), OBJECTIVES[name].build(THREAT, teachers(batch().x))
    seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for layer, norm in model.named_modules():
        if isinstance(norm, _BatchNorm):

            def catch(module, args, layer=layer):
                if module.training:
                    pi = args[0].detach()
                    seen.setdefault(layer, []).append((pi.mean((0, 2, 3)), pi.var((0, 2, 3))))

            norm.register_forward_pre_hook(catch)
    norms = {layer: norm for layer, norm in model.named_modules() if isinstance(norm, _BatchNorm)}
    for norm in norms.values():
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked += 100  # of the training before
    fit_statistics(model, objective, batches(), 0)
    assert seen.keys() == norms.keys()
    passes = 2 if name in ("trades", "mtard") else 1  # the adversarial images, then the clean ones
    for layer, norm in norms.items():
        assert len(seen[layer]) == 3 * passes
        means, variances = (torch.stack(moment) for moment in zip(*seen[layer], strict=True))
        torch.testing.assert_close(norm.running_mean, means.mean(0), **EXACT)
        torch.testing.assert_close(norm.running_var, variances.mean(0), **EXACT)


def test_each_branch_gets_the_statistics_of_its_images():
    model = awnet(batch().x)
    conv = model.stem.conv
    fit_statistics(model, OBJECTIVES["joint-pgd-at"].build(THREAT, {}), batches(), 0)
    clean = torch.stack([conv(b.x).mean((0, 2, 3)) for b in batches()]).mean(0).detach()
    torch.testing.assert_close(model.stem.bn.nat.running_mean, clean, **EXACT)
    apart = (model.stem.bn.adv.running_mean - clean).abs().max()
    assert 1e-4 < apart < THREAT.eps * conv.weight.abs().sum((1, 2, 3)).max()


@each
def test_nothing_else_moves(name):
    model, objective = a_model(name), OBJECTIVES[name].build(THREAT, teachers(batch().x))
    b = batch()
    objective(model, b.x, b.y, b.ids, Moment(0))  # MTARD's weights have begun to move
    model.eval()
    next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).train()
    next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).momentum = 0.37
    objective.train()

    def all_else():
        return (
            {n: p.tolist() for n, p in model.named_parameters()},
            [module.training for module in model.modules()],
            [norm.momentum for norm in model.modules() if isinstance(norm, _BatchNorm)],
            [p.requires_grad for p in model.parameters()],
            [p.grad for p in model.parameters()],
            {n: value.tolist() for n, value in objective.state_dict().items()},
            [module.training for module in objective.modules()],
        )

    before, statistics = all_else(), copy.deepcopy(dict(model.named_buffers()))
    fit_statistics(model, objective, batches(), 0)
    assert all_else() == before
    changed = {name for name, value in model.named_buffers() if not torch.equal(value, statistics[name])}
    assert {n for n in statistics if n.endswith(("running_mean", "running_var"))} <= changed


@pytest.mark.parametrize("over", [PGDATConfig(steps=2), TRADESConfig(steps=2)], ids=["pgd-at", "trades"])
def test_statistics_fit_the_weights_as_they_are(over):
    """AWP trains at perturbed weights; the average's statistics are those of the average."""
    found = []
    for config in (over, AWPConfig(over=over, gamma=0.5)):
        model = own().double().train()
        fit_statistics(model, config.build(THREAT, {}), batches(), 0)
        found.append(model.state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_fitting_again_changes_nothing():
    """What was there before does not count, and the attack's random numbers are those of the seed."""
    found = []
    for shift in (0.0, 3.0):
        model = own().double()
        model.bn.running_mean += shift
        fit_statistics(model, OBJECTIVES["standard"].build(THREAT, {}), batches(), 0)
        found.append(model.bn.running_mean.clone())
    assert torch.equal(*found)


class Never(Objective):
    """An objective that must not be asked, or breaks."""

    def forward(self, model, x, y, ids, moment) -> Losses:
        raise ZeroDivisionError


def test_without_batch_norm_nothing_happens():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))
    before = copy.deepcopy(model.state_dict())
    fit_statistics(model, Never(), batches(), 0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


def test_modes_and_momenta_come_back_after_an_error():
    model, objective = own().eval(), Never()
    model.bn.momentum = 0.37
    with pytest.raises(ZeroDivisionError):
        fit_statistics(model, objective, batches(), 0)
    assert model.bn.momentum == 0.37 and not model.bn.training and objective.training
