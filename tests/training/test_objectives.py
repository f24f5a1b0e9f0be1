"""Objectives against their papers' formulas, in numpy and in plain loops, and what every objective promises."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from awnet.config import from_json, to_json
from awnet.errors import Mistake
from awnet.losses import KL, CrossEntropy
from awnet.models import MODELS, AdvMoEResNet, AWNet, Branch, Knob, SeparateNet, create
from awnet.models.adaptive_smoothing import AdaptiveSmoothing, AdaptiveSmoothingConfig
from awnet.noise import Noise
from awnet.threat_model import Linf
from awnet.training import AWPConfig, JointConfig, MTARDConfig, PGDATConfig, StandardConfig, TRADESConfig
from awnet.training.mtard import MTARD
from awnet.training.objective import OBJECTIVES, Moment, Objective
from training.tiny import CLASSES, NARROW, attentive, awnet, batch, own, teachers

THREAT = Linf(0.2)
NOW = Moment(seed=7)
EXACT = {"rtol": 1e-10, "atol": 1e-12}
SINGLE = {"rtol": 1e-6, "atol": 1e-9}  # weights of losses are float32

JOINT = {
    "mtard": JointConfig(over=MTARDConfig(steps=3)),
    "trades": JointConfig(over=TRADESConfig(steps=3)),
    "pgd-at": JointConfig(over=PGDATConfig(steps=3)),
}
each_joint = pytest.mark.parametrize("config", JOINT.values(), ids=JOINT.keys())


def built(config, x: Tensor | None = None) -> Objective:
    return config.build(THREAT, teachers(x))


# --- the formulas, in numpy ---


def log_softmax(z):
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def ce(z, y):
    return -log_softmax(z)[np.arange(len(y)), y]


def kl(p_logits, q_logits):
    """KL(softmax(p_logits) || softmax(q_logits))."""
    log_p, log_q = log_softmax(p_logits), log_softmax(q_logits)
    return (np.exp(log_p) * (log_p - log_q)).sum(1)


def pgd(model, x, loss, config, start):
    """The inner maximisation as a plain loop: `loss` of the logits is raised within THREAT and [0, 1]."""
    low, high = (x - THREAT.eps).clamp(min=0), (x + THREAT.eps).clamp(max=1)
    x_adv = torch.minimum(torch.maximum(x + start, low), high)
    for _ in range(config.steps):
        x_adv = x_adv.detach().requires_grad_()
        (grad,) = torch.autograd.grad(loss(model(x_adv)).sum(), x_adv)
        step = config.step_size * THREAT.eps * grad.sign()
        x_adv = torch.minimum(torch.maximum(x_adv + step, low), high).detach()
    return x_adv


def uniform(x, ids):
    return THREAT.eps * (2 * Noise(NOW.seed, ids).uniform(0, tuple(x.shape[1:])) - 1)


def gaussian(x, ids):
    return 0.001 * Noise(NOW.seed, ids).normal(0, tuple(x.shape[1:]))


def in_order(model, *inputs):
    """Logits of each input in training mode, on a copy of the model, one pass after the other."""
    model = copy.deepcopy(model).train()
    return [model(x).detach().numpy() for x in inputs]


# --- standard, PGD-AT, TRADES ---


def test_standard_by_hand():
    x, y, ids = batch()
    model = own().double().train()
    losses = built(StandardConfig())(copy.deepcopy(model), x, y, ids, NOW)
    (logits,) = in_order(model, x)
    assert losses.terms.keys() == {"clean"}
    np.testing.assert_allclose(losses.terms["clean"].detach().numpy(), ce(logits, y.numpy()), **EXACT)
    np.testing.assert_allclose(losses.total.item(), ce(logits, y.numpy()).mean(), **EXACT)


@pytest.mark.parametrize("clean_weight", [0.0, 0.7])
def test_pgd_at_by_hand(clean_weight):
    x, y, ids = batch()
    model = own().double().train()
    config = PGDATConfig(steps=3, clean_weight=clean_weight)
    x_adv = pgd(copy.deepcopy(model).eval(), x, lambda z: CrossEntropy()(z, y), config, uniform(x, ids))
    adversarial, clean = (ce(z, y.numpy()) for z in in_order(model, x_adv, x))

    losses = built(config)(model, x, y, ids, NOW)
    np.testing.assert_allclose(losses.terms["adversarial"].detach().numpy(), adversarial, **EXACT)
    assert ("clean" in losses.terms) == (clean_weight > 0)
    np.testing.assert_allclose(losses.total.item(), adversarial.mean() + clean_weight * clean.mean(), **EXACT)


def test_trades_by_hand():
    x, y, ids = batch()
    model = own().double().train()
    config = TRADESConfig(steps=3, beta=4.0)
    attacked = copy.deepcopy(model).eval()
    p = attacked(x).softmax(1).detach()
    x_adv = pgd(attacked, x, lambda z: (p * (p.log() - z.log_softmax(1))).sum(1), config, gaussian(x, ids))
    assert (x_adv - x).abs().max() > 0.1
    adversarial, clean = in_order(model, x_adv, x)

    losses = built(config)(model, x, y, ids, NOW)
    np.testing.assert_allclose(losses.terms["clean"].detach().numpy(), ce(clean, y.numpy()), **EXACT)
    np.testing.assert_allclose(losses.terms["stability"].detach().numpy(), kl(clean, adversarial), **EXACT)
    by_hand = ce(clean, y.numpy()).mean() + 4 * kl(clean, adversarial).mean()
    np.testing.assert_allclose(losses.total.item(), by_hand, **EXACT)


def test_trades_pulls_at_both_predictions():
    """The gradient of KL(p || q): p (log p/q - KL) towards the clean logits, q - p towards the adversarial ones."""
    x, y, _ = batch()
    clean, adversarial = (torch.randn(6, CLASSES, dtype=torch.float64, requires_grad=True) for _ in range(2))
    objective = TRADESConfig().build(THREAT, {})
    losses = objective.compare(clean, adversarial, x, x, y, NOW)
    got = torch.autograd.grad(losses.terms["stability"].sum(), (clean, adversarial))
    p, q = (z.softmax(1).detach() for z in (clean, adversarial))
    ratio = p.log() - q.log()
    torch.testing.assert_close(got[0], p * (ratio - (p * ratio).sum(1, keepdim=True)), **EXACT)
    torch.testing.assert_close(got[1], q - p, **EXACT)


# --- MTARD ---


class Says(nn.Module):
    """A teacher that gives these logits whatever it sees."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor) -> Tensor:
        return self.logits


@pytest.mark.parametrize(("tau", "kd_scale", "reverse"), [(1.0, 0.1, False), (5.0, 0.1, False), (2.0, 1.0, True)])
def test_mtard_by_hand(tau, kd_scale, reverse):
    """Eq. 20-21 with the options, through real networks: the clean teacher on x, the robust one on x_adv."""
    x, y, ids = batch()
    model, networks = own().double().train(), teachers(x)
    config = MTARDConfig(steps=3, tau=tau, kd_scale=kd_scale, reverse=reverse)
    x_adv = pgd(copy.deepcopy(model).eval(), x, lambda z: CrossEntropy()(z, y), config, gaussian(x, ids))
    student = dict(zip(("adversarial", "clean"), in_order(model, x_adv, x), strict=True))
    taught = {
        "adversarial": networks["robust"].eval()(x_adv).detach().numpy(),
        "clean": networks["clean"].eval()(x).detach().numpy(),
    }

    losses = config.build(THREAT, networks)(model, x, y, ids, NOW)
    total = 0.0
    for name in ("adversarial", "clean"):
        pair = (taught[name] / tau, student[name] / tau)
        by_hand = kd_scale * tau**2 * (kl(*reversed(pair)) if reverse else kl(*pair))
        np.testing.assert_allclose(losses.terms[name].detach().numpy(), by_hand, **EXACT)
        total += by_hand.mean() / 2  # the weights of the first step
    np.testing.assert_allclose(losses.total.item(), total, **SINGLE)


@pytest.mark.parametrize("balance", [1.0, 2.0])
def test_mtard_weights_over_several_steps(balance):
    """a_nat <- a_nat - lr_w (a_nat - r_nat / (r_nat + r_adv)), moved before it is used, slower with the learning rate."""
    x, y, _ = batch()
    torch.manual_seed(3)
    nat, adv = (torch.randn(6, CLASSES, dtype=torch.float64) for _ in range(2))
    config = MTARDConfig(weight_lr=0.5, balance=balance)
    objective = config.build(THREAT, {"clean": Says(nat), "robust": Says(adv)})
    a_nat, first = 0.5, None
    seen = []
    for step, lr_factor in enumerate([1.0, 1.0, 0.3, 0.3, 0.0]):
        # the clean loss falls fast, the adversarial one slowly
        clean, adversarial = nat + torch.randn_like(nat) * 0.3**step, adv + torch.randn_like(adv) * 0.9**step
        losses = objective.compare(clean, adversarial, x, x, y, Moment(0, lr_factor=lr_factor))
        now = 0.1 * kl(nat.numpy(), clean.numpy()).mean(), 0.1 * kl(adv.numpy(), adversarial.numpy()).mean()
        first = first or now
        r_nat, r_adv = ((loss / begun) ** balance for loss, begun in zip(now, first, strict=True))
        a_nat -= 0.5 * lr_factor * (a_nat - r_nat / (r_nat + r_adv))
        seen.append(a_nat)
        np.testing.assert_allclose(objective.a_nat.item(), a_nat, rtol=1e-9)
        np.testing.assert_allclose(losses.total.item(), a_nat * now[0] + (1 - a_nat) * now[1], rtol=1e-6)
        assert not any(isinstance(w, Tensor) and w.requires_grad for w in losses.weights.values())
    assert seen[0] == 0.5, "the first step leaves the weights at one half"
    assert seen[3] < 0.3, "the loss that falls less gets more"
    assert seen[4] == seen[3], "lr_w falls with the learning rate"


def test_mtard_weights_rest_in_eval_mode_and_return_from_a_state():
    x, y, _ = batch()
    pair = {"clean": Says(torch.randn(6, CLASSES)), "robust": Says(torch.randn(6, CLASSES))}
    objective, other = (MTARDConfig(weight_lr=0.5).build(THREAT, pair) for _ in range(2))
    looks = [(torch.randn(6, CLASSES), torch.randn(6, CLASSES)) for _ in range(3)]
    for clean, adversarial in looks[:2]:
        objective.compare(clean, adversarial, x, x, y, NOW)
    weight = objective.a_nat.item()
    assert weight != 0.5
    objective.eval().compare(*looks[2], x, x, y, NOW)
    assert objective.a_nat.item() == weight
    other.load_state_dict(objective.state_dict())
    for each in (objective.train(), other):
        each.compare(*looks[2], x, x, y, NOW)
    assert other.a_nat.item() == objective.a_nat.item() != weight


def test_teachers_are_asked_and_left_alone():
    x, y, ids = batch()
    networks = teachers(x)
    networks["clean"].train()
    before = {role: copy.deepcopy(network.state_dict()) for role, network in networks.items()}
    objective = JointConfig(over=MTARDConfig(steps=2)).build(THREAT, networks)
    objective.train()
    assert not any(module.training for network in networks.values() for module in network.modules())
    assert list(objective.parameters()) == []
    assert set(objective.state_dict()) == {"over.a_nat", "over.first_nat", "over.first_adv"}
    objective(awnet(x), x, y, ids, NOW).total.backward()
    for role, network in networks.items():
        assert all(p.grad is None and p.requires_grad for p in network.parameters())
        assert all(torch.equal(value, before[role][name]) for name, value in network.state_dict().items())
        assert not any(module.training for module in network.modules())


def test_teachers_move_with_their_objective():
    networks = teachers()
    objective = JointConfig(over=MTARDConfig()).build(THREAT, networks)
    objective.to("meta")
    assert all(t.is_meta for network in networks.values() for t in network.state_dict().values())


# --- joint training ---


@each_joint
@pytest.mark.parametrize("type_weight", [1.0, 0.3])
def test_joint_by_hand(config, type_weight):
    """Eq. 22: what the objective underneath says of the two halves, and L_type over all 2b examples with 1 = clean."""
    x, y, ids = batch()
    model, networks = awnet(x), teachers(x)
    objective = replace(config, type_weight=type_weight).build(THREAT, networks)
    x_adv = objective.adversarial(model, x, y, ids, NOW)
    output = copy.deepcopy(model).run(torch.cat([x, x_adv]), Branch.HALVES)
    clean, adversarial = output.logits.detach().numpy()[:6], output.logits.detach().numpy()[6:]
    over = config.over
    if isinstance(over, MTARDConfig):
        t_nat, t_adv = (
            networks[role].eval()(images).detach().numpy() for role, images in (("clean", x), ("robust", x_adv))
        )
        under = 0.1 * (kl(t_nat, clean).mean() + kl(t_adv, adversarial).mean()) / 2
    elif isinstance(over, TRADESConfig):
        under = ce(clean, y.numpy()).mean() + 6 * kl(clean, adversarial).mean()
    else:
        under = ce(clean, y.numpy()).mean() + ce(adversarial, y.numpy()).mean()
    y_type = np.array([1] * 6 + [0] * 6)
    l_type = ce(output.routing.type_logits.detach().numpy(), y_type)

    losses = objective(model, x, y, ids, NOW)
    np.testing.assert_allclose(losses.terms["type"].mean().item(), l_type.mean(), **EXACT)
    np.testing.assert_allclose(losses.total.item(), under + type_weight * l_type.mean(), **SINGLE)
    p = np.exp(-ce(output.routing.type_logits.detach().numpy(), np.ones(12, int)))
    np.testing.assert_allclose(losses.watched["p_type_clean"].item(), p[:6].mean(), **EXACT)
    np.testing.assert_allclose(losses.watched["p_type_adversarial"].item(), p[6:].mean(), **EXACT)


@each_joint
@pytest.mark.parametrize("inner", ["adversarial", "mixture"])
def test_inner_attack_sees_the_branch_that_is_asked_for(config, inner):
    """By a plain loop over model(x, branch) in eval mode; BN_nat and BN_adv of this network are far apart."""
    x, y, ids = batch()
    model = awnet(x)
    over = config.over
    answers = {}
    for branch in (Branch.ADVERSARIAL, Branch.MIXTURE, Branch.CLEAN):
        attacked = copy.deepcopy(model).eval()

        def through(x_adv, attacked=attacked, branch=branch):
            return attacked(x_adv, branch)

        if isinstance(over, TRADESConfig):
            target = attacked(x, Branch.CLEAN if branch is Branch.ADVERSARIAL else branch).detach()
            answers[branch.value] = pgd(through, x, lambda z, t=target: KL()(z, t), over, gaussian(x, ids))
        else:
            start = (uniform if isinstance(over, PGDATConfig) else gaussian)(x, ids)
            answers[branch.value] = pgd(through, x, lambda z: CrossEntropy()(z, y), over, start)
    x_adv = built(replace(config, inner_branch=inner), x).adversarial(model, x, y, ids, NOW)
    for branch, answer in answers.items():
        same = torch.isclose(x_adv, answer, rtol=0, atol=1e-9).double().mean()
        assert (same == 1) == (branch == inner), f"{same:.0%} of the pixels are as through {branch}"


def test_joint_asks_for_the_adversarial_branch_by_default():
    assert JointConfig().inner_branch == "adversarial"


@each_joint
def test_signals_follow_the_image_in_the_inner_attack(config):
    """White box: the gradient goes through the router, so with its signals cut off the attack is another one."""
    x, y, ids = batch()
    model = awnet(x)
    objective = built(config, x)
    x_adv = objective.adversarial(model, x, y, ids, NOW)
    cut = model.router.signal_heads.register_forward_hook(lambda module, args, output: output.detach())
    other = objective.adversarial(model, x, y, ids, NOW)
    cut.remove()
    assert (x_adv - other).abs().max() > 0.01


@each_joint
def test_the_router_sees_both_halves_in_one_batch(config):
    x, y, ids = batch()
    model = awnet(x)
    objective = built(config, x)
    bn = model.router.backbone.bn
    assert bn.running_mean is not None and bn.running_var is not None and bn.num_batches_tracked is not None
    mean, var, tracked = bn.running_mean.clone(), bn.running_var.clone(), bn.num_batches_tracked.item()
    x_adv = objective.adversarial(model, x, y, ids, NOW)
    objective(model, x, y, ids, NOW)
    seen = model.router.backbone.conv(torch.cat([x, x_adv])).detach()
    torch.testing.assert_close(bn.running_mean, 0.9 * mean + 0.1 * seen.mean((0, 2, 3)), **EXACT)
    torch.testing.assert_close(bn.running_var, 0.9 * var + 0.1 * seen.var((0, 2, 3)), **EXACT)
    assert bn.num_batches_tracked.item() == tracked + 1


@each_joint
def test_each_batch_norm_is_moved_by_its_own_images_only(config):
    x, y, ids = batch()
    model = awnet(x, knob=Knob(omega=False))  # without signals, which know the whole batch in training mode
    conv = model.stem.conv
    objective = built(config, x)
    x_adv = objective.adversarial(model, x, y, ids, NOW)
    old, other = copy.deepcopy(model), copy.deepcopy(model)
    objective(model, x, y, ids, NOW)
    objective(other, x, y, ids, NOW._replace(eps_factor=0.3))
    for name in ("nat", "adv"):
        bn, before = getattr(model.stem.bn, name), getattr(old.stem.bn, name)
        seen = conv(x if name == "nat" else x_adv).detach()
        torch.testing.assert_close(bn.running_mean, 0.9 * before.running_mean + 0.1 * seen.mean((0, 2, 3)), **EXACT)
    found, changed = (dict(m.named_buffers()) for m in (model, other))
    for name, value in found.items():
        if name.endswith(("running_mean", "running_var")):
            assert not torch.equal(value, dict(old.named_buffers())[name]), name
            # with other adversarial images only the adversarial half and the router move differently
            same = torch.allclose(value, changed[name], rtol=1e-9)
            assert same == (".nat." in name), name


def test_pgd_at_over_awnet_trains_bn_nat_too():
    """Madry's loss alone has no clean images, and BN_nat, which weighs most at test time on them, would stay as it was."""
    x, y, ids = batch()
    model = awnet(x)
    losses = built(JointConfig(over=PGDATConfig(steps=2)), x)(model, x, y, ids, NOW)
    assert losses.weights["clean"] == losses.weights["adversarial"] == 1
    losses.total.backward()
    for bn in (model.stem.bn.nat, model.stem.bn.adv):
        assert bn.weight.grad is not None and bn.weight.grad.abs().min() > 0


def test_joint_refuses_what_it_cannot_train():
    x, y, ids = batch()
    with pytest.raises(Mistake, match="adversarial images"):
        JointConfig(over=StandardConfig()).build(THREAT, {})
    with pytest.raises(Mistake, match="trains an AW-Net, got Own"):
        built(JointConfig(over=PGDATConfig()))(own().double(), x, y, ids, NOW)


@pytest.mark.parametrize("config", [StandardConfig(), PGDATConfig(steps=1)], ids=["standard", "pgd-at"])
def test_a_static_objective_on_awnet_is_the_users_mistake(config):
    x, y, ids = batch()
    with pytest.raises(Mistake, match="joint"):
        built(config)(awnet(x), x, y, ids, NOW)


# --- what every objective promises ---


SYSTEMS = {  # trained by their own objectives alone
    "rdi": "rdi-resnet38",
    "type-detector": "separate-net",
    "advmoe": "advmoe-resnet18",
    "oat": "oat-resnet18",
}


def network_for(name: str, x: Tensor) -> nn.Module:
    if name.startswith("joint"):
        return awnet(x)
    if name in SYSTEMS:
        network = create(MODELS[SYSTEMS[name]].narrow(), classes=CLASSES, channels=1).double()
        if isinstance(network, AdvMoEResNet):  # both experts are in use
            network.router.head.bias.data -= network.eval().router(x).mean(0)
        return network.train()
    if name == "mixing":
        mixture = AdaptiveSmoothingConfig(clean=NARROW, robust=NARROW, mixer=NARROW)
        return create(mixture, classes=CLASSES, channels=1).double().train()
    if name == "vit-at":
        return attentive()
    model = create(NARROW, classes=CLASSES, channels=1).double()
    return model.train()


each = pytest.mark.parametrize("name", OBJECTIVES)


def small(name: str):
    """The objective of that name with two inner steps."""
    config = OBJECTIVES[name]
    if isinstance(config, (JointConfig, AWPConfig)):
        return replace(config, over=replace(config.over, steps=2))
    return replace(config, steps=2) if hasattr(config, "steps") else config


@each
def test_terms_are_per_example_and_finite(name):
    x, y, ids = batch()
    losses = built(small(name), x)(network_for(name, x), x, y, ids, NOW)
    assert losses.terms.keys() == losses.weights.keys()
    for term in losses.terms.values():
        assert term.shape == (6,) and term.isfinite().all() and (term >= -1e-12).all()
    assert all(value.shape == () and not value.requires_grad for value in losses.watched.values())
    by_hand = sum(float(losses.weights[k]) * losses.terms[k].mean().item() for k in losses.terms)
    assert losses.total.shape == () and losses.total.item() == pytest.approx(by_hand, rel=1e-6)


@each
def test_gradients_reach_every_parameter(name):
    x, y, ids = batch()
    model = network_for(name, x)
    built(small(name), x)(model, x, y, ids, NOW).total.backward()
    trained = model  # but for the networks behind it that are finished
    if isinstance(model, (SeparateNet, AdaptiveSmoothing)):
        trained = model.detector if isinstance(model, SeparateNet) else model.mixer
    assert [n for n, p in trained.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@each
def test_a_step_is_a_function_of_its_seed(name):
    x, y, ids = batch()
    model = network_for(name, x)

    def once(moment):
        torch.rand(1)  # the global generator is of no consequence
        losses = built(small(name), x)(copy.deepcopy(model), x, y, ids, moment)
        return torch.stack([losses.terms[k] for k in sorted(losses.terms)])

    before = torch.get_rng_state()
    first = once(NOW)
    assert torch.equal(once(NOW), first)
    if name != "standard":
        assert not torch.equal(once(NOW._replace(seed=8)), first)
    torch.set_rng_state(before)


@each
def test_the_inner_attack_leaves_no_trace(name):
    x, y, ids = batch()
    model = network_for(name, x)
    part = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    part.eval()
    part.weight.requires_grad_(False)
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1].weight
    head.grad = torch.ones_like(head)

    def traces():
        return (
            [module.training for module in model.modules()],
            [p.requires_grad for p in model.parameters()],
            [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
            {key: (id(value), value.tolist()) for key, value in model.state_dict(keep_vars=True).items()},
        )

    before, images = traces(), x.clone()
    x_adv = built(small(name), x).adversarial(model, x, y, ids, NOW)
    assert traces() == before and torch.equal(x, images)
    assert (x_adv is None) == (name == "standard")
    if x_adv is not None:
        assert not x_adv.requires_grad
        threat = Linf(3 * THREAT.eps) if name == "n-fgsm" else THREAT  # which leaves the ball
        assert threat.contains(x, x_adv).all()


@each
def test_after_a_step_modes_and_flags_are_as_before(name):
    x, y, ids = batch()
    model = network_for(name, x)
    next(model.parameters()).requires_grad_(False)
    modes, flags = ([m.training for m in model.modules()], [p.requires_grad for p in model.parameters()])
    built(small(name), x)(model, x, y, ids, NOW)
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())


@each
def test_the_radius_warms_up(name):
    if name == "standard":
        return
    x, y, ids = batch()
    model = network_for(name, x)
    objective = built(small(name), x)
    attacked = [objective.adversarial(model, x, y, ids, NOW._replace(eps_factor=f)) for f in (0.0, 0.5, 1.0)]
    distances = [(x_adv - x).abs().max().item() for x_adv in attacked if x_adv is not None]
    assert distances[0] == 0
    reach = 3 if name == "n-fgsm" else 1  # which begins 2 eps away
    assert 0.04 < distances[1] <= reach * 0.1 + 1e-9
    assert 0.08 < distances[2] <= reach * 0.2 + 1e-9
    # half the radius in the objective is the objective of half the threat
    halved = small(name).build(Linf(0.1), teachers(x)).adversarial(model, x, y, ids, NOW)
    assert torch.equal(halved, attacked[1])


@each
def test_settings_come_back_from_json(name):
    config = OBJECTIVES[name]
    assert from_json(to_json(config)) == config
    assert to_json(config)["kind"] == type(config).__name__
    needed = {"hat": {"helper"}, "rslad": {"robust"}, "ard": {"robust"}}
    both = "mtard" in name or name in ("type-detector", "mixing")
    assert set(config.teachers) == ({"clean", "robust"} if both else needed.get(name, set()))


def test_mtard_is_what_joint_mtard_stands_on():
    objective = built(OBJECTIVES["joint-mtard"])
    assert isinstance(objective.over, MTARD) and isinstance(objective.over.config, MTARDConfig)
    assert isinstance(awnet(batch().x), AWNet)
