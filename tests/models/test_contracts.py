"""What every network promises, whoever wrote it. A network that is registered is tested here without another line."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from awnet.config import from_json, to_json
from awnet.errors import Mistake
from awnet.models import (
    MODELS,
    OAT,
    AdaptiveSmoothingConfig,
    AdvMoEResNet,
    Architecture,
    AWNet,
    Branch,
    Detecting,
    MixedNUTSConfig,
    Normalize,
    RDIResNet,
    RDIResNetConfig,
    SeparateNet,
    SeparateNetConfig,
    StaticMixtureConfig,
    SwinConfig,
    create,
    judge,
    parameter_count,
)
from models.randomised import unsettle

NETWORKS = {name: MODELS[name].narrow() for name in MODELS}
NETWORKS["static mixture"] = StaticMixtureConfig(weight=0.3, sharpness=2.0).narrow()  # has no name of its own
NETWORKS["mixed nuts"] = MixedNUTSConfig(alpha=0.6).narrow()
NETWORKS["adaptive smoothing"] = AdaptiveSmoothingConfig(low=0.2, high=0.9).narrow()

each = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())


def trained(network: Architecture, *, n=8, channels=3, classes=5, size=(12, 12)):
    """A network in double precision as if trained, in eval mode, and n images."""
    x = torch.rand(n, channels, *size, dtype=torch.float64)
    model = create(network, classes=classes, channels=channels).double()
    return unsettle(model, x).eval(), x


@each
def test_every_parameter_gets_a_gradient(network):
    model, x = trained(network)
    model.train()
    if isinstance(model, AWNet):
        output = model.run(x, Branch.HALVES)
        logits = torch.cat([output.logits, output.routing.type_logits], dim=1)
    elif isinstance(model, RDIResNet):
        logits = model.exits(x)
    elif isinstance(model, OAT):
        logits = model(x, torch.arange(len(x)) % len(model.lambdas))
    elif isinstance(model, (SeparateNet, AdvMoEResNet)):
        half = torch.arange(len(x)) < len(x) // 2  # to each network or expert its share
        decision = model.decide(x, x, "clean", half)
        decision = decision.logits + model.decide(x, x, "adversarial", half).logits, decision.log_odds[:, None]
        logits = torch.cat(decision, dim=1)
    else:
        logits = model(x)
    (logits * torch.randn_like(logits)).sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@each
def test_an_image_is_judged_by_itself(network):
    model, x = trained(network)
    with torch.no_grad():
        logits = model(x)
        assert logits.std(0).min() > 1e-6, "the images should differ"
        order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
        assert torch.equal(model(x[order]), logits[order])
        others = torch.rand_like(x) * 5
        others[:2] = x[:2]
        assert torch.equal(model(others)[:2], logits[:2])
        for size in (1, 3):
            torch.testing.assert_close(model(x[:size]), logits[:size], rtol=1e-9, atol=1e-9)


@each
@pytest.mark.parametrize(
    ("size", "channels", "classes"),
    [((8, 8), 1, 2), ((9, 9), 3, 2), ((11, 13), 1, 7), ((33, 33), 3, 7)],
    ids=lambda value: "x".join(map(str, value)) if isinstance(value, tuple) else str(value),
)
def test_any_size_from_8_pixels_any_channels_any_classes(network, size, channels, classes):
    model, x = trained(network, n=4, channels=channels, classes=classes, size=size)
    x.requires_grad_()
    logits = model(x)
    assert logits.shape == (4, classes) and logits.isfinite().all()
    (grad,) = torch.autograd.grad((logits * torch.randn_like(logits)).sum(), x)
    assert grad.abs().amax(0).gt(0).all(), "every pixel counts: pooling leaves out no border"
    model.train()
    logits = model(x, Branch.HALVES) if isinstance(model, AWNet) else model(x)
    assert logits.shape == (4, classes) and logits.isfinite().all()


@each
def test_every_place_of_the_last_map_weighs_the_same(network):
    """Pooling is the mean of the whole map, however large: a bump far above all else moves the logits wherever it is."""
    if isinstance(network, (SwinConfig, SeparateNetConfig, AdaptiveSmoothingConfig, RDIResNetConfig)):
        pytest.skip("what pools last is attention, or another network or exit than the one whose convolution runs last")
    model, x = trained(network, size=(20, 20))
    ran = []
    hooks = [
        module.register_forward_hook(lambda module, args, out: ran.append((module, out.shape[2:])))
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        model(x)
        for hook in hooks:
            hook.remove()
        last, (h, w) = ran[-1]
        assert min(h, w) > 1
        bumps = 1e6 * torch.eye(h * w, dtype=torch.float64).view(h * w, 1, h, w)  # each place in an image of its own
        last.register_forward_hook(lambda module, args, out: out + bumps)
        logits = model(x[:1].expand(h * w, -1, -1, -1))
    assert logits[0].abs().max() > 1e3 or isinstance(network, (StaticMixtureConfig, MixedNUTSConfig))
    torch.testing.assert_close(logits, logits[:1].expand(h * w, -1), rtol=1e-2, atol=1e-2 * float(logits.abs().max()))


@each
def test_settings_and_weights_come_back_from_a_file(network, tmp_path):
    network = replace(network, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))
    model, x = trained(network)
    (tmp_path / "settings.json").write_text(json.dumps(to_json(network)))
    torch.save(model.state_dict(), tmp_path / "weights.pt")

    again = from_json(json.loads((tmp_path / "settings.json").read_text()), Architecture)
    assert again == network
    copied = create(again, classes=5, seed=1).double().eval()
    assert not torch.equal(copied(x), model(x))
    copied.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(copied(x), model(x))


@each
def test_weights_are_a_function_of_the_seed(network):
    def weights(seed):
        return torch.cat([p.flatten() for p in create(network, classes=5, seed=seed).parameters()])

    before = torch.get_rng_state()
    first = weights(0)
    assert torch.equal(torch.get_rng_state(), before), "the global generator is left as it was"
    torch.rand(3)
    assert torch.equal(weights(0), first)
    assert not torch.equal(weights(1), first)


@each
def test_evaluation_leaves_no_trace(network):
    model, x = trained(network)
    state, images, modes = copy.deepcopy(model.state_dict()), x.clone(), [m.training for m in model.modules()]
    fields = {name: set(vars(module)) for name, module in model.named_modules()}
    judge(model, x)
    if isinstance(model, AWNet):
        for branch in Branch:
            model.run(x, branch)
            model.run(x, branch, definition=True)
    assert torch.equal(x, images)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())
    assert {name: set(vars(module)) for name, module in model.named_modules()} == fields


@each
def test_normalisation_is_the_first_layer(network):
    mean, std = (0.5, 0.25, 0.75), (0.5, 2.0, 0.25)  # exact in binary
    model, x = trained(network)
    inside = create(replace(network, mean=mean, std=std), classes=5).double().eval()
    inside.load_state_dict(model.state_dict())
    outside = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert torch.equal(inside(x), model(outside))
    assert not torch.equal(inside(x), model(x))


@each
def test_narrow_keeps_all_but_the_width(network):
    assert network.narrow() == network, "narrower than narrow there is nothing"
    assert parameter_count(create(network, classes=10)) < 5_000_000  # WRN-70-16 is deep


@each
def test_a_copy_is_the_same_network(network):
    model, x = trained(network)
    assert torch.equal(copy.deepcopy(model)(x), model(x))


@each
def test_half_precision_stays_near(network):
    model, x = create(network, classes=5).eval(), torch.rand(8, 3, 12, 12)
    exact = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(x).float()
    assert not torch.equal(rough, exact)
    assert (rough - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("name", MODELS)
def test_a_name_misspelt_brings_its_close_matches(name):
    with pytest.raises(Mistake, match=f"no model is named '{name}s'; did you mean .*{name}"):
        create(f"{name}s", classes=10)


def test_a_classifier_has_two_classes_or_more():
    with pytest.raises(Mistake, match="at least 2 classes, got 1"):
        create("resnet18", classes=1)


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.5,)), ((0.5,) * 3, ()), ((), (0.5,) * 3)])
def test_normalisation_needs_a_mean_and_std_for_each_channel(mean, std):
    with pytest.raises(Mistake, match="for each of 3 channels"):
        create(replace(NETWORKS["resnet18"], mean=mean, std=std), classes=10)


def test_normalisation_by_hand():
    x = torch.rand(2, 2, 3, 3)
    out = Normalize((0.1, 0.2), (0.5, 0.25), channels=2)(x)
    for c, (mean, std) in enumerate([(0.1, 0.5), (0.2, 0.25)]):
        torch.testing.assert_close(out[:, c], (x[:, c] - mean) / std)


def test_judge_asks_those_that_can_tell_and_admits_what_the_others_cannot():
    for name in ("resnet18", "awnet"):
        model, x = trained(NETWORKS[name])
        logits, p_clean = judge(model, x)
        assert torch.equal(logits, model(x))
        assert p_clean.shape == (8,)
        if isinstance(model, Detecting):
            assert ((p_clean > 0) & (p_clean < 1)).all()
        else:
            assert p_clean.isnan().all()
    assert isinstance(create(NETWORKS["awnet"], classes=2), Detecting)
    assert not isinstance(create(NETWORKS["resnet18"], classes=2), Detecting)


def test_parameter_count():
    assert parameter_count(nn.Sequential(nn.Conv2d(3, 4, 5, bias=False), nn.BatchNorm2d(4), nn.Linear(4, 2))) == 318
