"""What the networks of the paper's other rows promise beside the contracts: fusing, leaving early, switching."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from awnet.errors import Mistake
from awnet.models import (
    AdvMoEResNet,
    AdvMoEResNetConfig,
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
from awnet.models.advmoe import ExpertConv2d
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


def test_every_exit_can_be_forced():
    model = multi_exit()
    model.calibrate(X)
    exits, forced = model.exits(X), torch.arange(70) % 2 == 0
    assert isinstance(model, Deciding) and len(model.forms) == EXITS
    for k, form in enumerate(model.forms):
        logits, log_odds = model.decide(X, X, form, forced)
        torch.testing.assert_close(logits[forced], exits[k][forced])
        torch.testing.assert_close(logits[~forced], model(X)[~forced])
        assert torch.equal(log_odds > 0, model.leaves(exits) == 0)
    other = X.flip(0)
    logits = model.decide(X, other, "", forced).logits
    for i, k in enumerate(model.leaves(model.exits(other)).tolist()):
        torch.testing.assert_close(logits[i], exits[k, i])


# --- ADVMOE ---


def of_experts(**settings) -> AdvMoEResNet:
    """A narrow network between whose experts the images X are divided."""
    config = replace(AdvMoEResNetConfig().narrow(), **settings)
    model = unsettle(create(config, classes=5).double(), X).eval()
    assert isinstance(model, AdvMoEResNet)
    with torch.no_grad():
        model.router.head.bias.sub_(model.router(X).mean(0))
    assert len(model.router(X).argmax(1).unique()) == model.experts
    return model


def test_an_expert_convolution_in_a_plain_loop():
    layer = ExpertConv2d(3, 4, 2, experts=3).double()
    x, chosen = X[:6], [0, 2, 1, 1, 2, 0]
    out = layer(x, F.one_hot(torch.tensor(chosen), 3))
    for i, k in enumerate(chosen):
        by_hand = F.conv2d(x[i : i + 1], layer.conv.weight[4 * k : 4 * k + 4], None, 2, 1)
        torch.testing.assert_close(out[i : i + 1], by_hand)


@pytest.mark.parametrize("experts", [2, 3])
def test_an_expert_of_full_width_is_the_resnet(experts):
    model = of_experts(base=ResNetConfig(depth=10, width=8), ratio=1.0, experts=experts)
    scores, logits, everybody = model.router(X), model(X), torch.ones(70, dtype=torch.bool)
    for k, form in enumerate(model.forms[:-1]):
        plain = create(ResNetConfig(depth=10, width=8), classes=5).double().eval()
        plain.trunk.conv.load_state_dict(model.stem[0].state_dict())
        plain.trunk.bn.load_state_dict(model.stem[1].state_dict())
        plain.head.load_state_dict(model.head.state_dict())
        for mine, its in zip(model.blocks, (stage[0] for stage in plain.trunk.stages), strict=True):
            for name in ("bn1", "bn2", "shortcut"):
                getattr(its, name).load_state_dict(getattr(mine, name).state_dict())
            for name in ("conv1", "conv2"):
                getattr(its, name).weight.data = getattr(mine, name).conv.weight.data.chunk(experts)[k]
        torch.testing.assert_close(model.decide(X, X, form, everybody).logits, plain(X))
        torch.testing.assert_close(logits[scores.argmax(1) == k], plain(X)[scores.argmax(1) == k])


def test_the_gradient_of_the_choice_is_that_of_the_scores():
    """And there is none where it is not to go through, or where it is denied."""
    model = of_experts()
    x = X[:8].clone().requires_grad_()
    scores, direction = model.router(x), torch.randn(8, 5, dtype=torch.float64)
    gate = F.one_hot(scores.argmax(1), 2).double().requires_grad_()
    (by_gate,) = torch.autograd.grad((model._classify(x, gate) * direction).sum(), gate)
    weights = [p for p in model.router.parameters()]
    expected = torch.autograd.grad(scores, weights, by_gate)
    found = torch.autograd.grad((model(x) * direction).sum(), weights)
    assert all(a.any() for a in found)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    detached = model.decide(x, x, "detached", torch.ones(8, dtype=torch.bool)).logits
    for logits in (model.run(x, straight_through=False).logits, detached):
        none = torch.autograd.grad((logits * direction).sum(), weights, allow_unused=True)
        assert all(gradient is None or not gradient.any() for gradient in none)
        torch.testing.assert_close(logits, model(x))


def test_advmoe_offers_its_experts():
    model = of_experts(experts=3)
    assert isinstance(model, Deciding) and model.forms == ("clean", "adversarial", "expert 3", "detached")
    forced, scores = torch.arange(70) % 2 == 0, model.router(X)
    for form in model.forms:
        logits, log_odds = model.decide(X, X, form, forced)
        torch.testing.assert_close(logits[~forced], model(X)[~forced])
        assert torch.equal(log_odds > 0, scores.argmax(1) == 0)
    nobody = torch.zeros(70, dtype=torch.bool)
    by_other = model.decide(X, X[:1].expand(70, -1, -1, -1), "", nobody).logits
    chosen = model.forms[int(scores[0].argmax())]
    torch.testing.assert_close(by_other, model.decide(X, X, chosen, ~nobody).logits)


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
        lambda: AdvMoEResNetConfig(experts=1),
        lambda: AdvMoEResNetConfig(ratio=0.0),
        lambda: AdvMoEResNetConfig(base=ResNetConfig(width=1)),
    ],
)
def test_settings_out_of_range(make):
    with pytest.raises(Mistake, match=r"needs|expected"):
        make()
