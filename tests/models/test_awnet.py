"""AW-Net against its equations: in double precision, with nothing at a value where terms would vanish or agree."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from awnet.errors import Mistake
from awnet.models import (
    MODELS,
    Averaging,
    AWNet,
    AWNetConfig,
    Branch,
    Deciding,
    Holding,
    Knob,
    ResNetConfig,
    RouterConfig,
    Routing,
    create,
)
from awnet.models.dynamic_conv import DynamicConv2d, filters_per_image
from awnet.models.mix_batch_norm import MixBatchNorm2d, MixConv2d, Route
from awnet.models.router import tapped
from models.randomised import randomise, unsettle

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def images(n=4, channels=3, size=16):
    return torch.rand(n, channels, size, size, dtype=torch.float64)


def awnet(x, *, depth=18, width=None, taps="stem+stages", beta=3.0, **settings) -> AWNet:
    """A narrow AW-Net as if trained, in eval mode, for images like x."""
    width = width or (8 if depth == 50 else 4)  # four channels of a bottleneck may all be dead
    router = RouterConfig(backbone=ResNetConfig(width=width), taps=taps)
    config = AWNetConfig(base=ResNetConfig(depth=depth, width=width), router=router, beta=beta, **settings)
    model = unsettle(create(config, classes=5, channels=x.shape[1]).double(), x)
    routing = model.run(x).routing
    assert routing.p_clean.std() > 0.02 and all(omega.std() > 0.1 * beta for omega in routing.signals)
    return model.eval()


def equal(a, b):
    """Whether tensors, or tuples of them, agree to ten digits of the largest number in each."""
    if isinstance(a, torch.Tensor):
        scale = b.abs().max().clamp(min=1e-6)
        return a.shape == b.shape and bool(((a - b).abs().max() / scale) < 1e-10)
    return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))


# --- the fast way is the definition ---

BASES = [(10, False), (18, False), (18, True), (34, True), (50, False), (50, True)]
CASES = [(True, b) for b in (Branch.CLEAN, Branch.ADVERSARIAL, Branch.HALVES)] + [(False, b) for b in Branch]


@pytest.mark.parametrize(("depth", "modulate_shortcuts"), BASES)
@pytest.mark.parametrize(
    ("training", "branch"), CASES, ids=[f"{'training' if t else 'eval'}-{b.value}" for t, b in CASES]
)
def test_fast_way_is_the_definition(depth, modulate_shortcuts, training, branch):
    x = images().requires_grad_()
    model = awnet(x.detach(), depth=depth, modulate_shortcuts=modulate_shortcuts, knob=Knob(type_bias=0.3, p_max=0.8))
    direction = torch.randn(4, 5, dtype=torch.float64)
    answers = []
    for definition in (True, False):
        this = copy.deepcopy(model).train(training)
        output = this.run(x, branch, definition=definition)
        inputs = [x, *this.parameters()]
        grads = torch.autograd.grad((output.logits * direction).sum(), inputs, allow_unused=True)
        names = ["x", *(name for name, _ in this.named_parameters())]
        found = {f"gradient of {name}": grad for name, grad in zip(names, grads, strict=True) if grad is not None}
        found |= {name: buffer.double() for name, buffer in this.named_buffers()}
        answers.append({"logits": output.logits, **found})
    assert answers[0].keys() == answers[1].keys()
    assert [name for name, slow in answers[0].items() if not equal(answers[1][name], slow)] == []
    if branch in (Branch.MIXTURE, Branch.HALVES):
        expected = {f"gradient of {name}" for name, _ in model.named_parameters()}
        # P_type does not act in HALVES
        missing = {name for name in expected - answers[0].keys() if not name.startswith("gradient of router.type_head")}
        assert missing == set()


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_filters_per_image_in_a_plain_loop(kernel, stride):
    layer = DynamicConv2d(3, 5, kernel, stride).double()
    x = torch.randn(4, 3, 7, 9, dtype=torch.float64)
    omega = torch.rand(4, 5, dtype=torch.float64) * 8
    one_by_one = []
    for i in range(4):
        filters = [omega[i, m] * layer.conv.weight[m] for m in range(5)]  # omega_m K_m, Eq. 12
        one_by_one.append(F.conv2d(x[i : i + 1], torch.stack(filters), None, stride, kernel // 2))
    torch.testing.assert_close(filters_per_image(x, layer.conv, omega), torch.cat(one_by_one), **EXACT)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("omega", [False, True])
def test_one_dynamic_convolution(training, omega):
    """Fast and slow in one layer, every branch, with and without signals, p from 0 to 1."""
    layer = randomise(DynamicConv2d(3, 5, 3, 2)).double().train(training)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    signals = torch.rand(4, 5, dtype=torch.float64) * 8 if omega else None
    p = torch.tensor([0.0, 0.2, 0.9, 1.0], dtype=torch.float64)
    for branch in set(Branch) - ({Branch.MIXTURE} if training else set()):
        fast, slow = (layer(x, signals, Route(branch, p, definition)) for definition in (False, True))
        torch.testing.assert_close(fast, slow, **EXACT)


# --- without signals and types it is the network that it was made from ---


def layers_of_resnet(model):
    yield model.trunk.conv, model.trunk.bn
    for block in itertools.chain(*model.trunk.stages):
        yield from (
            (getattr(block, f"conv{i}"), getattr(block, f"bn{i}")) for i in (1, 2, 3) if hasattr(block, f"bn{i}")
        )
        if len(block.shortcut):
            yield tuple(block.shortcut)


def layers_of_awnet(model, branch):
    for layer in [model.stem, *(m for block in model.blocks for m in (*block.convs, block.shortcut) if m is not None)]:
        yield layer.conv, layer.bn.nat if branch is Branch.CLEAN else layer.bn.adv


@pytest.mark.parametrize("branch", [Branch.CLEAN, Branch.ADVERSARIAL])
@pytest.mark.parametrize(("depth", "modulate_shortcuts"), BASES)
def test_with_signals_of_one_a_branch_is_the_base(depth, modulate_shortcuts, branch):
    x = images()
    model = awnet(x, depth=depth, modulate_shortcuts=modulate_shortcuts).turned(Knob(omega=False))
    plain = randomise(create(ResNetConfig(depth=depth, width=model.stem.conv.out_channels), classes=5), seed=2).double()
    pairs = zip(layers_of_awnet(model, branch), layers_of_resnet(plain), strict=True)
    for mine, its in [*itertools.chain(*(zip(*pair, strict=True) for pair in pairs)), (model.head, plain.head)]:
        mine.load_state_dict(its.state_dict())
    for training in (False, True):
        assert equal(model.train(training)(x, branch), plain.train(training)(x))


# --- the signals ---


def test_signals_are_one_in_the_beginning():
    x = images()
    model = create(AWNetConfig().narrow(), classes=5).double().eval()
    routing = model.run(x).routing
    assert len(routing.signals) == 16
    assert all(torch.equal(omega, torch.ones_like(omega)) for omega in routing.signals)
    assert torch.equal(model(x), model.turned(Knob(omega=False))(x))


TAPS = {"last": [8], "stages": [2, 4, 6, 8], "stem+stages": [0, 2, 4, 6, 8], "blocks": [1, 2, 3, 4, 5, 6, 7, 8]}


@pytest.mark.parametrize(
    ("taps", "beta", "depth", "modulate_shortcuts"),
    [
        ("last", 3.0, 18, False),
        ("stages", 2.5, 18, True),
        ("stem+stages", 3.0, 34, True),
        ("stem+stages", 0.5, 50, False),
        ("blocks", 3.0, 50, True),
    ],
)
def test_signals_by_hand(taps, beta, depth, modulate_shortcuts):
    x = images()
    model = awnet(x, taps=taps, beta=beta, depth=depth, modulate_shortcuts=modulate_shortcuts)
    outputs = model.router.backbone(model.normalize(x))
    psi = torch.cat([outputs[i].sum((2, 3)) / outputs[i][0, 0].numel() for i in TAPS[taps]], dim=1)
    weight, bias = model.router.signal_heads.weight, model.router.signal_heads.bias
    routing = model.run(x).routing
    first = 0
    convs = [m for m in model.modules() if isinstance(m, DynamicConv2d)]  # in each block, the shortcut's last
    for omega, layer in zip(routing.signals, convs, strict=True):
        rows = slice(first, first + layer.conv.out_channels)
        by_hand = (torch.tanh(psi @ weight[rows].T + bias[rows]) + 1) ** beta  # Eq. 19
        torch.testing.assert_close(omega, by_hand, **EXACT)
        first = rows.stop
    assert first == len(weight)
    odds = psi @ model.router.type_head.weight.T + model.router.type_head.bias
    torch.testing.assert_close(routing.p_clean, odds.exp()[:, 1] / odds.exp().sum(1), **EXACT)  # Eq. 18


@pytest.mark.parametrize("beta", [3.0, 1.0, 2.5, 0.5])
def test_signals_keep_their_range_and_a_finite_gradient_at_its_ends(beta):
    x = images()
    model = awnet(x, beta=beta)
    heads = model.router.signal_heads
    with torch.no_grad():
        heads.bias[::2], heads.bias[1::2] = -100, 100
    omega = torch.cat(model.run(x).routing.signals, dim=1)
    assert ((omega[:, ::2] >= 0) & (omega[:, ::2] < 1e-2)).all()
    torch.testing.assert_close(omega[:, 1::2], torch.full_like(omega[:, 1::2], 2**beta))
    omega.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.router.parameters() if p.grad is not None)


@torch.no_grad()
def test_every_convolution_uses_its_own_signals():
    x = images(size=8)
    for depth in (18, 50):
        model = awnet(x, depth=depth, modulate_shortcuts=True)
        routing = model.run(x).routing
        for i, omega in enumerate(routing.signals):
            signals = list(routing.signals)
            signals[i] = omega * 2
            changed = model.classify(x, Routing(routing.type_logits, tuple(signals)), Branch.MIXTURE)
            assert not equal(changed, model(x)), f"signal {i} of depth {depth} does nothing"


@pytest.mark.parametrize(
    ("depth", "taps", "d"),
    [
        *[(18, "last", 512), (18, "stages", 960), (18, "stem+stages", 1024), (18, "blocks", 1920)],
        *[(34, "last", 512), (34, "stem+stages", 1024), (34, "blocks", 3 * 64 + 4 * 128 + 6 * 256 + 3 * 512)],
        *[(50, "last", 2048), (50, "stages", 3840), (50, "stem+stages", 3904)],
    ],
)
def test_widths_of_the_taps(depth, taps, d):
    config = RouterConfig(backbone=ResNetConfig(depth=depth), taps=taps)
    with torch.device("meta"):
        model = AWNetConfig(router=config).build(classes=10)
        assert model.router.type_head.in_features == model.router.signal_heads.in_features == d
        outputs = model.router.backbone(torch.empty(2, 3, 8, 8))
    assert sum(outputs[i].shape[1] for i in tapped(config)) == d


# --- the batch norms ---


def by_hand(bn, pi):
    scaled = (pi - bn.running_mean[:, None, None]) / (bn.running_var[:, None, None] + bn.eps).sqrt()
    return scaled * bn.weight[:, None, None] + bn.bias[:, None, None]


@pytest.mark.parametrize("definition", [False, True])
def test_mixture_of_one_layer_by_hand(definition):
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    p = torch.tensor([0.0, 0.3, 0.9, 1.0], dtype=torch.float64)
    omega = torch.rand(4, 5, dtype=torch.float64) * 8
    route = Route(Branch.MIXTURE, p, definition)

    plain = randomise(MixConv2d(3, 5, 3, 1)).double().eval()
    nat, adv = by_hand(plain.bn.nat, plain.conv(x)), by_hand(plain.bn.adv, plain.conv(x))
    expected = torch.stack([p[i] * nat[i] + (1 - p[i]) * adv[i] for i in range(4)])  # Eq. 14
    torch.testing.assert_close(plain(x, route), expected, **EXACT)

    dynamic = randomise(DynamicConv2d(3, 5, 3, 1)).double().eval()
    pi = dynamic.conv(x) * omega[:, :, None, None]
    nat, adv = by_hand(dynamic.bn.nat, pi), by_hand(dynamic.bn.adv, pi)
    expected = torch.stack([p[i] * nat[i] + (1 - p[i]) * adv[i] for i in range(4)])
    torch.testing.assert_close(dynamic(x, omega, route), expected, **EXACT)


def halves(model, name):
    """The parameters and buffers of BN_nat or BN_adv, all layers."""
    return {key: value for key, value in model.state_dict().items() if f".bn.{name}." in key}


@pytest.mark.parametrize(("branch", "own", "other"), [(Branch.CLEAN, "nat", "adv"), (Branch.ADVERSARIAL, "adv", "nat")])
def test_a_branch_in_eval_mode_knows_its_own_batch_norms_only(branch, own, other):
    x = images()
    model = awnet(x)
    before = model(x, branch)
    model.load_state_dict({**model.state_dict(), **{k: v + 1 for k, v in halves(model, other).items()}})
    assert torch.equal(model(x, branch), before)
    model.load_state_dict({**model.state_dict(), **{k: v + 1 for k, v in halves(model, own).items()}})
    assert not equal(model(x, branch), before)


def test_mode_never_chooses_the_branch():
    x = images()
    model = awnet(x)
    logits = {branch: model(x, branch) for branch in Branch}
    assert torch.equal(model(x), logits[Branch.MIXTURE]), "the mixture is the default"
    for a, b in itertools.combinations(Branch, 2):
        assert not equal(logits[a], logits[b]), (a, b)
    expected = torch.cat([logits[Branch.CLEAN][:2], logits[Branch.ADVERSARIAL][2:]])
    assert equal(logits[Branch.HALVES], expected)
    model.train()
    for call in (model, model.run, lambda x: model(x, Branch.MIXTURE), model.detect):
        with pytest.raises(Mistake, match="in training mode"):
            call(x)


def test_halves_are_halves():
    x = images(5)
    model = awnet(x)
    for mode in (True, False):
        with pytest.raises(ValueError, match="as many clean images as adversarial ones, got 5"):
            model.train(mode)(x, Branch.HALVES)


@pytest.mark.parametrize(
    ("branch", "updated"), [(Branch.CLEAN, {"nat"}), (Branch.ADVERSARIAL, {"adv"}), (Branch.HALVES, {"nat", "adv"})]
)
def test_each_batch_norm_learns_from_its_own_type_only(branch, updated):
    x = images()
    model = awnet(x).train()
    before = {name: copy.deepcopy(halves(model, name)) for name in ("nat", "adv")}
    assert before["nat"] and before["nat"].keys() != before["adv"].keys()
    model(x, branch).square().sum().backward()
    parameters = dict(model.named_parameters())
    for name in ("nat", "adv"):
        for key, value in halves(model, name).items():
            if key in parameters:
                assert (parameters[key].grad is not None) == (name in updated), key
            else:
                assert torch.equal(value, before[name][key]) == (name not in updated), key


def test_running_statistics_are_those_of_the_own_images():
    bn = randomise(MixBatchNorm2d(3)).double().train()
    pi = torch.randn(6, 3, 4, 4, dtype=torch.float64) * 2 + 1
    old = {name: (part.running_mean.clone(), part.running_var.clone()) for name, part in bn.named_children()}
    out = bn(pi, Route(Branch.HALVES))
    for name, half, normalised in (("nat", pi[:3], out[:3]), ("adv", pi[3:], out[3:])):
        part, (mean, var) = getattr(bn, name), old[name]
        torch.testing.assert_close(part.running_mean, 0.9 * mean + 0.1 * half.mean((0, 2, 3)), **EXACT)
        torch.testing.assert_close(part.running_var, 0.9 * var + 0.1 * half.var((0, 2, 3)), **EXACT)
        torch.testing.assert_close(normalised.mean((0, 2, 3)), part.bias.detach(), **EXACT)


@pytest.mark.parametrize(("depth", "modulate_shortcuts"), [(18, True), (34, False), (50, True)])
def test_one_pass_of_halves_is_two_passes(depth, modulate_shortcuts):
    """[x; x_adv] at once and one type after the other, under the same routing: logits, gradients, statistics."""
    x = images()
    together = awnet(x, depth=depth, modulate_shortcuts=modulate_shortcuts)
    type_logits, signals = together.run(x).routing
    signals = tuple(omega.detach() for omega in signals)
    separate = copy.deepcopy(together)
    direction = torch.randn(4, 5, dtype=torch.float64)

    together.train()
    logits = together.classify(x, Routing(type_logits, signals), Branch.HALVES)
    (logits * direction).sum().backward()

    separate.train()
    parts = []
    for half, branch in ((slice(2, 4), Branch.ADVERSARIAL), (slice(0, 2), Branch.CLEAN)):
        routing = Routing(type_logits[half], tuple(omega[half] for omega in signals))
        parts.insert(0, separate.classify(x[half], routing, branch))
        (parts[0] * direction[half]).sum().backward()

    assert equal(logits, torch.cat(parts))
    pairs = list(zip(together.named_parameters(), separate.named_parameters(), strict=True))
    learnt = [(name, p.grad, q.grad) for (name, p), (_, q) in pairs if p.grad is not None]
    assert len(learnt) == sum(not name.startswith("router.") for (name, _), _ in pairs)
    assert [name for name, grad, other in learnt if not equal(grad, other)] == []
    buffers = zip(together.named_buffers(), separate.named_buffers(), strict=True)
    assert [name for (name, a), (_, b) in buffers if not equal(a.double(), b.double())] == []


# --- the knob ---


def test_weight_of_the_clean_batch_norms_by_hand():
    odds = torch.tensor([[1.0, -2.0], [0.5, 0.25], [-1.0, 2.0]], dtype=torch.float64)  # adversarial, clean
    routing = Routing(odds, ())
    torch.testing.assert_close(Knob().weigh(routing), odds.softmax(1)[:, 1])
    torch.testing.assert_close(Knob().weigh(routing), routing.p_clean)
    for bias in (-1.5, 0.7):
        expected = 1 / (1 + torch.exp(odds[:, 0] - odds[:, 1] - bias))
        torch.testing.assert_close(Knob(type_bias=bias).weigh(routing), expected)
        torch.testing.assert_close(Knob(type_bias=bias, p_max=0.4).weigh(routing), expected.clamp(max=0.4))


@pytest.mark.parametrize("p_max", [-0.1, 1.1, float("nan")])
def test_a_cap_is_a_probability(p_max):
    with pytest.raises(Mistake, match="expected 0 <= p_max <= 1"):
        Knob(p_max=p_max)


def test_the_knob_leads_from_one_branch_to_the_other():
    x = images()
    model = awnet(x)
    assert equal(model.turned(Knob(type_bias=1e3))(x), model(x, Branch.CLEAN))
    assert equal(model.turned(Knob(type_bias=-1e3))(x), model(x, Branch.ADVERSARIAL))
    assert torch.equal(model.turned(Knob(p_max=0.0))(x), model(x, Branch.ADVERSARIAL))
    assert not equal(model.turned(Knob(type_bias=1.0))(x), model(x))
    assert torch.equal(model.turned(Knob(p_max=1.0))(x), model(x))


@pytest.mark.parametrize("p_max", [0.0, 0.25, 0.6])
@pytest.mark.parametrize("type_bias", [0.0, 3.0, 1e4])
def test_no_image_gets_past_the_cap(p_max, type_bias):
    x = images(16)
    knob = Knob(type_bias=type_bias, p_max=p_max)
    assert (knob.weigh(awnet(x).run(x).routing) <= p_max).all()


def test_without_omega_every_signal_is_one():
    x = images()
    for modulate_shortcuts in (False, True):
        model = awnet(x, modulate_shortcuts=modulate_shortcuts)
        routing = model.run(x).routing
        ones = Routing(routing.type_logits, tuple(torch.ones_like(omega) for omega in routing.signals))
        off = model.turned(Knob(omega=False))
        for branch in Branch:
            for definition in (False, True):
                logits = off.run(x, branch, definition=definition).logits
                assert equal(logits, model.classify(x, ones, branch)), (branch, definition)
                assert not equal(logits, model(x, branch))


def test_turning_shares_the_weights_and_leaves_the_original_alone():
    x = images()
    model = awnet(x)
    before = model(x)
    turned = model.turned(Knob(type_bias=-2.0, p_max=0.3, omega=False))
    assert model.knob == Knob() and turned.knob == Knob(type_bias=-2.0, p_max=0.3, omega=False)
    assert not equal(turned(x), before) and torch.equal(model(x), before)
    assert all(a is b for a, b in zip(model.parameters(), turned.parameters(), strict=True))
    with torch.no_grad():
        model.head.weight.mul_(2)
        model.head.bias.mul_(2)
    assert equal(model(x), before * 2)
    assert not equal(turned(x), before * 2)
    assert torch.equal(turned.turned(Knob())(x), model(x))


def test_the_knob_of_the_settings_is_the_knob_of_the_network():
    x = images()
    knob = Knob(type_bias=1.5, p_max=0.7)
    assert awnet(x, knob=knob).knob == knob
    assert equal(awnet(x, knob=knob)(x), awnet(x).turned(knob)(x))


def test_the_detector_speaks_before_bias_and_cap():
    x = images()
    model = awnet(x)
    logits, p_clean = model.turned(Knob(type_bias=-5.0, p_max=0.1)).detect(x)
    assert torch.equal(p_clean, model.run(x).routing.p_clean) and p_clean.max() > 0.3
    assert torch.equal(logits, model.turned(Knob(type_bias=-5.0, p_max=0.1))(x))


# --- gradients, precision, settings ---


@pytest.mark.parametrize("beta", [3.0, 2.5])
def test_gradient_of_the_images_by_finite_differences(beta):
    x = images(8, channels=1, size=8)
    model = awnet(x, beta=beta, knob=Knob(type_bias=0.2)).requires_grad_(False)
    x, y = x[:1], torch.tensor([3])

    def loss(x):
        return F.cross_entropy(model(x), y, reduction="none")

    x.requires_grad_()
    assert torch.autograd.gradcheck(loss, (x,), eps=1e-7, atol=1e-6, rtol=1e-4)

    # The router carries a part of it: an attacker who forgets the router has another gradient.
    (whole,) = torch.autograd.grad(loss(x).sum(), x)
    type_logits, signals = model.run(x).routing
    for routing in (
        Routing(type_logits.detach(), signals),
        Routing(type_logits, tuple(omega.detach() for omega in signals)),
    ):
        logits = model.classify(model.normalize(x), routing, Branch.MIXTURE)
        (part,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), x, retain_graph=True)
        assert (part - whole).norm() > 0.01 * whole.norm()


@pytest.mark.parametrize("branch", Branch)
def test_autocast_in_every_branch(branch):
    x = images(8)
    model, x = awnet(x).float(), x.float()
    for training in (False, True) if branch is not Branch.MIXTURE else (False,):
        exact = copy.deepcopy(model).train(training)(x, branch)
        this = copy.deepcopy(model).train(training)
        with torch.autocast("cpu", torch.bfloat16):
            rough = this(x, branch)
        assert rough.dtype == torch.bfloat16
        rough.float().square().sum().backward()
        assert all(p.grad.isfinite().all() for p in this.parameters() if p.grad is not None)
        assert (rough - exact).norm() < 0.5 * exact.norm()


def test_signals_and_types_reach_every_layer_of_the_large_ones():
    assert MODELS["awnet-l"] == AWNetConfig(base=ResNetConfig(depth=34))
    with torch.device("meta"):
        filters = {name: MODELS[name].build(classes=10).router.filters for name in ("awnet", "awnet-l", "awnet50")}
    assert {name: (len(f), sum(f)) for name, f in filters.items()} == {
        "awnet": (16, 3840),
        "awnet-l": (32, 7552),
        "awnet50": (48, 22656),
    }


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan")])
def test_beta_is_positive(beta):
    with pytest.raises(Mistake, match="must be positive"):
        AWNetConfig(beta=beta)


@pytest.mark.parametrize("part", ["base", "router"])
def test_normalisation_belongs_to_the_whole(part):
    normalised = ResNetConfig(mean=(0.5,) * 3, std=(0.2,) * 3)
    settings = {"base": normalised, "router": RouterConfig(backbone=normalised)}
    with pytest.raises(Mistake, match="fields of AWNetConfig itself"):
        AWNetConfig(**{part: settings[part]})


def test_narrow_keeps_the_settings():
    config = AWNetConfig(
        base=ResNetConfig(depth=34), router=RouterConfig(taps="blocks"), beta=2.0, knob=Knob(p_max=0.5)
    )
    narrow = config.narrow()
    assert narrow == replace(config, base=ResNetConfig(depth=34, width=8), router=narrow.router)
    assert narrow.router == RouterConfig(backbone=ResNetConfig(width=8), taps="blocks")


# --- what an attacker is offered ---


def test_a_decision_that_nobody_forces_is_the_model():
    x = images()
    model = awnet(x, depth=10, knob=Knob(type_bias=0.3, p_max=0.8))
    assert isinstance(model, Deciding)
    logits, log_odds = model.decide(x, x)
    assert equal(logits, model(x))
    assert equal(model.decide(x, x, "clean", torch.zeros(4, dtype=torch.bool)).logits, logits)
    assert equal((log_odds - 0.3).sigmoid(), model.detect(x)[1])


def test_each_frozen_form_is_the_network_with_that_in_place_of_the_decision():
    x = images()
    model = awnet(x, depth=10, knob=Knob(p_max=0.6))
    routing, everybody = model.run(x).routing, torch.ones(4, dtype=torch.bool)
    forced = {form: model.decide(x, x, form, everybody).logits for form in model.forms}
    p = {"clean": 0.6, "half": 0.3, "adversarial": 0.0}
    for form, weight in p.items():
        weights = torch.full((4,), weight, dtype=x.dtype)
        assert equal(forced[form], model.classify(x, routing, Branch.MIXTURE, p=weights)), form
    assert equal(forced["adversarial"], model(x, Branch.ADVERSARIAL))
    assert equal(forced["unmodulated"], model.turned(Knob(p_max=0.6, omega=False))(x))
    assert equal(forced["detached"], model(x))
    assert "unmodulated" not in model.turned(Knob(omega=False)).forms


def test_omega_at_its_mean_is_a_form_where_the_mean_is_known():
    x = images()
    model = awnet(x, depth=10, modulate_shortcuts=True, knob=Knob(type_bias=0.3, p_max=0.8))
    means = {layer: omega.mean(0) for layer, omega in model.signals(images()).items()}
    assert isinstance(model, Averaging) and "averaged" not in model.forms
    told = model.averaged(means)
    assert told.forms == (*model.forms, "averaged") and "averaged" not in model.forms
    assert "averaged" not in told.turned(Knob(omega=False)).forms
    assert equal(told(x), model(x)) and told.state_dict().keys() == model.state_dict().keys()
    everybody = torch.ones(4, dtype=torch.bool)
    assert equal(told.decide(x, x, "averaged", everybody).logits, model.hold(x, means))
    some = torch.tensor([True, False, False, True])
    mixed = told.decide(x, x, "averaged", some).logits
    assert equal(mixed[some], model.hold(x, means)[some]) and equal(mixed[~some], model(x)[~some])


def test_signals_can_be_held():
    """At its own it is the model, at one the model without any; at others their gradient has none of the signals' own."""
    x = images().requires_grad_()
    model = awnet(x.detach(), depth=10, modulate_shortcuts=True, knob=Knob(type_bias=0.3, p_max=0.8))
    assert isinstance(model, Holding)
    own = {layer: omega.detach() for layer, omega in model.signals(x).items()}
    assert equal(model.hold(x, own), model(x))
    ones = {layer: torch.ones_like(omega[0]) for layer, omega in own.items()}
    assert equal(model.hold(x, ones), model.turned(Knob(type_bias=0.3, p_max=0.8, omega=False))(x))
    assert equal(model.hold(x, {}), model(x)) and equal(
        model.turned(Knob(omega=False)).hold(x, {}), model.turned(Knob(omega=False))(x)
    )
    (gradient,) = torch.autograd.grad(model.hold(x, own)[:, 0].sum(), x)
    (whole,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    d, e = torch.randn_like(x).sign(), 1e-6
    slope = (model.hold(x.detach() + e * d, own) - model.hold(x.detach() - e * d, own))[:, 0].sum() / (2 * e)
    assert torch.allclose((gradient * d).sum(), slope, rtol=1e-3) and not torch.allclose(gradient, whole)


def test_images_are_forced_one_by_one():
    x = images()
    model = awnet(x, depth=10)
    forced = torch.tensor([True, False, True, False])
    for form in model.forms:
        some, all_ = model.decide(x, x, form, forced).logits, model.decide(x, x, form, forced | True).logits
        assert equal(some[forced], all_[forced]) and equal(some[~forced], model(x)[~forced]), form


def test_the_decision_may_look_at_another_image():
    x, seen = images().requires_grad_(), images()
    model = awnet(x.detach(), depth=10)
    logits, log_odds = model.decide(x, seen)
    assert equal(logits, model.classify(x, model.run(seen).routing, Branch.MIXTURE))
    assert equal(log_odds, model.knob.log_odds(model.run(seen).routing))


def test_the_detached_form_denies_the_gradient_of_the_decision():
    """omega still follows the image; with it off, the gradient is that of the experts at a fixed weight."""
    x = images().requires_grad_()
    model = awnet(x.detach(), depth=10, knob=Knob(omega=False))
    (gradient,) = torch.autograd.grad(
        model.decide(x, x, "detached", torch.ones(4, dtype=torch.bool)).logits[:, 0].sum(), x
    )
    routing = model.run(x.detach()).routing
    (fixed,) = torch.autograd.grad(model.classify(x, routing, Branch.MIXTURE)[:, 0].sum(), x)
    (full,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    assert equal(gradient, fixed) and not equal(gradient, full)


# --- Table 3's ablations ---


def ablation(name, x, **knob) -> AWNet:
    config = replace(MODELS[name].narrow(), knob=Knob(p_max=0.0, **knob))
    return unsettle(create(config, classes=5, channels=x.shape[1]).double(), x).eval()


def test_without_a_type_head_every_image_goes_through_bn_adv():
    x = images()
    model = ablation("awnet-mixbn", x)
    assert equal(model(x), model(x, Branch.ADVERSARIAL)) and not equal(model(x), model(x, Branch.CLEAN))
    assert model.detect(x)[1].isnan().all() and model.forms == ("unmodulated",)
    assert not any("type_head" in name for name in model.state_dict())


@pytest.mark.parametrize("training", [False, True])
def test_with_signals_alone_there_is_one_batch_norm(training):
    """Which branch is asked for is all the same; the fast way is the definition; with omega = 1 it is a ResNet."""
    x = images()
    model = ablation("awnet-signals", x).train(training)
    expected = copy.deepcopy(model).run(x, Branch.HALVES, definition=True).logits
    for branch in set(Branch) - ({Branch.MIXTURE} if training else set()):
        assert equal(copy.deepcopy(model)(x, branch), expected)
    still = ablation("awnet-signals", x, omega=False).train(training)
    plain = randomise(create(ResNetConfig(width=8), classes=5), seed=2).double().train(training)
    layers = [still.stem, *(m for block in still.blocks for m in (*block.convs, block.shortcut) if m is not None)]
    pairs = zip(((layer.conv, layer.bn.all) for layer in layers), layers_of_resnet(plain), strict=True)
    for mine, its in [*itertools.chain(*(zip(*pair, strict=True) for pair in pairs)), (still.head, plain.head)]:
        mine.load_state_dict(its.state_dict())
    assert equal(still(x, Branch.HALVES), plain(x))  # both halves are one batch
    assert not equal(expected, plain(x))


def test_without_a_type_head_nothing_is_weighed():
    with pytest.raises(Mistake, match="without a type head nobody can tell"):
        AWNetConfig(router=RouterConfig(type_head=False))
