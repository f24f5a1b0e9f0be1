"""What the networks of the paper's other rows promise beside the contracts: fusing, leaving early, switching."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
import torch
from torch import Tensor, nn

from awnet.errors import Mistake
from awnet.models import (
    Deciding,
    Detecting,
    RDIResNetConfig,
    RepVGG,
    RepVGGConfig,
    ResNetConfig,
    SeparateNet,
    SeparateNetConfig,
    SwinConfig,
    VGGConfig,
    create,
    parameter_count,
)
from awnet.models.rdi import EXITS, RDIResNet, entropy
from models.randomised import unsettle

X = torch.rand(70, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_repvgg_fused_is_repvgg():
    """In eval mode, in double precision; and the fused network is the one that its settings say."""
    model = unsettle(create(RepVGGConfig().narrow(), classes=5).double(), X).eval()
    assert isinstance(model, RepVGG)
    fused = model.deployed()
    torch.testing.assert_close(fused(X), model(X))
    assert fused(X).std() > 1e-3 and not model.config.deploy
    again = create(replace(RepVGGConfig().narrow(), deploy=True), classes=5).double()
    again.load_state_dict(fused.state_dict())
    torch.testing.assert_close(again.eval()(X), model(X))
    with torch.device("meta"):
        assert parameter_count(RepVGGConfig(deploy=True).build(classes=10)) == 24_105_034


def multi_exit(**settings) -> RDIResNet:
    model = unsettle(create(replace(RDIResNetConfig().narrow(), **settings), classes=5).double(), X).eval()
    assert isinstance(model, RDIResNet)
    return model


def test_an_image_leaves_at_the_first_sure_exit():
    model = multi_exit()
    exits = model.exits(X)
    assert exits.shape == (EXITS, 70, 5)
    thresholds = entropy(exits[:-1]).quantile(0.3, dim=1)
    model.get_buffer("thresholds").copy_(thresholds)
    logits, leaves = model(X), model.leaves(exits)
    for i in range(70):
        sure = [k for k in range(EXITS - 1) if entropy(exits[k, i]) < thresholds[k]]
        assert leaves[i] == (sure[0] if sure else EXITS - 1)
        torch.testing.assert_close(logits[i], exits[leaves[i], i])
    assert len(leaves.unique()) > 3


def test_without_thresholds_everybody_stays_to_the_end():
    model = multi_exit()
    torch.testing.assert_close(model(X), model.exits(X)[-1])


def test_calibrated_an_equal_share_leaves_at_every_exit():
    model = multi_exit()
    model.calibrate(X)
    assert model.leaves(model.exits(X)).bincount().tolist() == [10] * EXITS


class Says(nn.Module):
    """A network with one answer."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1) + 0 * x.flatten(1).sum(1, keepdim=True)


class Bright(nn.Module):
    """The log-odds of clean are the first pixel, from -5 to 5."""

    def forward(self, x: Tensor) -> Tensor:
        of_clean = 10 * x[:, 0, 0, 0] - 5
        return torch.stack([torch.zeros_like(of_clean), of_clean], dim=1)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("bias", [0.0, 2.0, inf, -inf])
def test_separate_net_by_hand(soft: bool, bias: float):
    x = torch.linspace(0, 1, 8)[:, None, None, None].expand(-1, 1, 2, 2).clone().requires_grad_()
    clean, robust = Says(1.0, 0.0, 2.0), Says(0.0, 3.0, 0.0)
    model = SeparateNet(clean, robust, Bright(), bias=bias, soft=soft)
    logits, p_clean = model.detect(x)
    log_odds = 10 * torch.linspace(0, 1, 8) - 5 + bias
    torch.testing.assert_close(p_clean, log_odds.sigmoid())
    p = log_odds.sigmoid() if soft else (log_odds >= 0).float()
    by_hand = p[:, None] * clean.logits.softmax(0) + (1 - p[:, None]) * robust.logits.softmax(0)
    torch.testing.assert_close(logits.exp(), by_hand)
    torch.testing.assert_close(model(x), logits)
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), x)
    assert gradient.isfinite().all()
    assert bool(gradient.any()) == (soft and abs(bias) < inf)  # no gradient leads through a hard switch


@pytest.mark.parametrize("soft", [False, True])
def test_separate_net_offers_its_forms(soft: bool):
    model = SeparateNet(Says(1.0, 0.0), Says(0.0, 3.0), Bright(), soft=soft)
    assert isinstance(model, Deciding) and isinstance(model, Detecting)
    x = torch.rand(6, 1, 2, 2)
    forced = torch.tensor([True, False] * 3)
    for form, p in (("clean", 1.0), ("adversarial", 0.0), ("half", 0.5)):
        logits, log_odds = model.decide(x, x, form, forced)
        mixed = p * Says(1.0, 0.0).logits.softmax(0) + (1 - p) * Says(0.0, 3.0).logits.softmax(0)
        torch.testing.assert_close(logits.exp()[forced], mixed.expand(3, -1))
        torch.testing.assert_close(logits[~forced], model(x)[~forced])
        torch.testing.assert_close(log_odds, 10 * x[:, 0, 0, 0] - 5)


def test_the_parts_of_separate_net_are_networks_of_their_own():
    narrow = SeparateNetConfig(robust=ResNetConfig(depth=34)).narrow()
    model = create(narrow, classes=5)
    assert isinstance(model, SeparateNet)
    assert model.clean(torch.rand(2, 3, 8, 8)).shape == model.robust(torch.rand(2, 3, 8, 8)).shape == (2, 5)
    assert model.detector(torch.rand(2, 3, 8, 8)).shape == (2, 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: VGGConfig(dropout=1.0),
        lambda: RepVGGConfig(blocks=(1, 1, 0, 1)),
        lambda: SwinConfig(width=100, heads=3),
        lambda: RDIResNetConfig(blocks=1),
        lambda: RDIResNetConfig(thresholds=(0.1,)),
        lambda: SeparateNetConfig(bias=float("nan")),
    ],
)
def test_settings_out_of_range(make):
    with pytest.raises(Mistake, match=r"needs|expected"):
        make()
