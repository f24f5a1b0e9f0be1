"""MART, HAT, one-step training and AWP against their papers' formulas, in numpy and in plain loops."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from awnet.errors import Mistake
from awnet.losses import CrossEntropy
from awnet.training import AWPConfig, FastATConfig, HATConfig, MARTConfig, MTARDConfig, PGDATConfig, TRADESConfig
from awnet.training.mart import less_the_runner_up
from awnet.training.objective import OBJECTIVES
from training.test_objectives import EXACT, NOW, THREAT, ce, gaussian, in_order, kl, pgd, uniform
from training.tiny import CLASSES, attentive, batch, own, teachers


def softmax(z):
    return np.exp(z - np.log(np.exp(z).sum(1, keepdims=True)))


def test_mart_by_hand():
    x, y, ids = batch()
    model = own().double().train()
    config = MARTConfig(steps=3, beta=4.0)
    x_adv = pgd(copy.deepcopy(model).eval(), x, lambda z: CrossEntropy()(z, y), config, gaussian(x, ids))
    adversarial, clean = in_order(model, x_adv, x)
    losses = config.build(THREAT, {})(model, x, y, ids, NOW)

    p, of = softmax(adversarial), np.arange(len(y))
    others = p.copy()
    others[of, y] = 0
    boosted = -np.log(p[of, y]) - np.log(1 - others.max(1))
    unsure = 1 - softmax(clean)[of, y]
    np.testing.assert_allclose(losses.terms["adversarial"].detach().numpy(), boosted, **EXACT)
    np.testing.assert_allclose(losses.terms["stability"].detach().numpy(), kl(clean, adversarial) * unsure, **EXACT)
    np.testing.assert_allclose(
        losses.total.item(), boosted.mean() + 4 * (kl(clean, adversarial) * unsure).mean(), **EXACT
    )


def test_mart_is_finite_where_the_network_is_sure_of_the_wrong_class():
    logits = torch.tensor([[0.0, 200.0, 0.0]], requires_grad=True)
    loss = less_the_runner_up(logits, torch.tensor([0]))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.item() == pytest.approx(200 - np.log(2), rel=1e-5) and gradient.isfinite().all()


@pytest.mark.parametrize("reach", [2.0, 3.0])
def test_hat_by_hand(reach):
    x, y, ids = batch()
    model, helper = own().double().train(), teachers(x)["clean"]
    config = HATConfig(steps=3, reach=reach, beta=1.5, gamma=0.7)
    attacked = copy.deepcopy(model).eval()
    p = attacked(x).softmax(1).detach()
    x_adv = pgd(attacked, x, lambda z: (p * (p.log() - z.log_softmax(1))).sum(1), config, gaussian(x, ids))
    clean, adversarial, helped = in_order(model, x, x_adv, x + reach * (x_adv - x))
    y_helper = helper.eval()(x_adv).argmax(1).numpy()

    losses = config.build(THREAT, {"helper": helper.train()})(model, x, y, ids, NOW)
    np.testing.assert_allclose(losses.terms["clean"].detach().numpy(), ce(clean, y.numpy()), **EXACT)
    np.testing.assert_allclose(losses.terms["stability"].detach().numpy(), kl(clean, adversarial), **EXACT)
    np.testing.assert_allclose(losses.terms["helper"].detach().numpy(), ce(helped, y_helper), **EXACT)
    by_hand = ce(clean, y.numpy()).mean() + 1.5 * kl(clean, adversarial).mean() + 0.7 * ce(helped, y_helper).mean()
    np.testing.assert_allclose(losses.total.item(), by_hand, **EXACT)


@pytest.mark.parametrize("project", [False, True])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_one_step_by_hand(project, mode):
    x, y, ids = batch()
    model = own().double().train()
    config = FastATConfig(project=project, start=1.0 if project else 2.0, step_size=1.25, mode=mode)
    attacked = copy.deepcopy(model).train(mode == "train")
    start = x + config.start * uniform(x, ids).double()
    low, high = (x - THREAT.eps).clamp(min=0), (x + THREAT.eps).clamp(max=1)
    start = start.clamp(low, high) if project else start.clamp(0, 1)
    start.requires_grad_()
    before = CrossEntropy()(attacked(start), y)
    (gradient,) = torch.autograd.grad(before.sum(), start)
    x_adv = (start + 1.25 * THREAT.eps * gradient.sign()).detach()
    x_adv = x_adv.clamp(low, high) if project else x_adv.clamp(0, 1)
    if not project:
        assert (x_adv - x).abs().max() > 2 * THREAT.eps
    after = attacked.train()(x_adv).detach().numpy()

    flags = [p.requires_grad for p in model.parameters()]
    losses = config.build(THREAT, {})(model, x, y, ids, NOW)
    np.testing.assert_allclose(losses.terms["adversarial"].detach().numpy(), ce(after, y.numpy()), **EXACT)
    abnormal = (ce(after, y.numpy()) < before.detach().numpy()).mean()
    assert losses.watched["abnormal"].item() == pytest.approx(abnormal)
    assert model.training and [p.requires_grad for p in model.parameters()] == flags
    losses.total.backward()
    assert all(p.grad is not None for p in model.parameters())


class Watching(nn.Module):
    """A linear network that keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.seen = nn.Linear(64, CLASSES), []

    def forward(self, x):
        self.seen.append(x.detach())
        return self.head(x.flatten(1))


def test_n_fgsm_leaves_the_ball_and_not_the_box():
    """On black and on white images half of the noise points out of [0, 1], as do half of the steps."""
    x, y, ids = batch()
    model = Watching().double()
    FastATConfig().build(THREAT, {})(model, x.round(), y, ids, NOW)
    start, x_adv = model.seen
    for images in (start, x_adv):
        assert images.min() == 0 and images.max() == 1
        assert (images - x.round()).abs().max() > THREAT.eps


class Bent(nn.Module):
    """Whose cross-entropy of class 0 falls along its own gradient: a bump narrower than a step."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        height = self.scale * torch.cos(40 * x.flatten(1).sum(1))
        return torch.stack([-height, height], dim=1)


def test_abnormal_images_are_seen():
    """At the foot of a bump a step of eps leads over it; a linear network has no such images."""
    x, y = torch.full((4, 1, 1, 1), 0.5), torch.zeros(4, dtype=torch.int64)
    step = FastATConfig(start=0.0, step_size=1.0).build(replace(THREAT, eps=3.14159 / 40), {})
    assert step(Bent(), x, y, torch.arange(4), NOW).watched["abnormal"] == 1.0
    line = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    assert step(line, x, y, torch.arange(4), NOW).watched["abnormal"] == 0.0


@pytest.mark.parametrize("over", [PGDATConfig(steps=2), TRADESConfig(steps=2, beta=3.0), MARTConfig(steps=2)])
def test_awp_by_hand(over):
    """As the published code does it: a copy's SGD step uphill, its difference scaled, added, descended, taken off."""
    x, y, ids = batch()
    model = own().double().train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    objective = over.build(THREAT, {})
    x_adv = objective.adversarial(model, x, y, ids, NOW)

    def loss(network):
        adversarial = network(x_adv)
        clean = network(x) if objective.uses_clean else None
        return objective.compare(clean, adversarial, x, x_adv, y, NOW).total

    proxy = copy.deepcopy(model)
    sgd = torch.optim.SGD(proxy.parameters(), lr=0.3)
    (-loss(proxy)).backward()
    sgd.step()
    at = copy.deepcopy(model)
    for (name, p), moved in zip(at.named_parameters(), proxy.parameters(), strict=True):
        if p.ndim > 1 and "weight" in name:
            difference = moved.data - p.data
            p.data += 0.02 * p.data.norm() / difference.norm() * difference
    expected = loss(at)
    expected.backward()

    losses = AWPConfig(over=over, gamma=0.02).build(THREAT, {})(model, x, y, ids, NOW)
    losses.total.backward()
    torch.testing.assert_close(losses.total, expected, **EXACT)
    for p, q in zip(model.parameters(), at.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-8, atol=1e-10)
    for name, t in model.state_dict().items():  # weights as before, statistics of the perturbed passes alone
        torch.testing.assert_close(t, at.state_dict()[name] if "running" in name or "tracked" in name else before[name])


def moved(objective, model, x, y, ids, moment) -> list[torch.Tensor]:
    """The gradients of a step."""
    model = copy.deepcopy(model)
    objective(model, x, y, ids, moment).total.backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize(("epoch", "perturbed"), [(1, False), (9, False), (10, True), (200, True)])
def test_trades_awp_perturbs_from_its_tenth_epoch(epoch, perturbed):
    """Published: `epoch >= 10`, where the 200 epochs are counted from 1."""
    x, y, ids = batch()
    model, steps = own().double().train(), 7
    config = replace(OBJECTIVES["trades-awp"], over=TRADESConfig(steps=1))
    last = steps - 1 if epoch == 9 else 0
    moment = NOW._replace(done=((epoch - 1) * steps + last) / (200 * steps))
    plain, awp = (moved(c.build(THREAT, {}), model, x, y, ids, moment) for c in (config.over, config))
    assert all(torch.equal(p, q) for p, q in zip(plain, awp, strict=True)) == (not perturbed)


def test_awp_over_pgd_at_perturbs_from_the_first_step():
    x, y, ids = batch()
    model, config = own().double().train(), AWPConfig(over=PGDATConfig(steps=1))
    plain, awp = (moved(c.build(THREAT, {}), model, x, y, ids, NOW._replace(done=0.0)) for c in (config.over, config))
    assert not all(torch.equal(p, q) for p, q in zip(plain, awp, strict=True))


def test_awp_leaves_a_table_of_biases_alone():
    """Swin's is a parameter of two dimensions, and not called a weight."""
    x, y, ids = batch()
    model, raised = attentive(), {}

    def catch(module, args, output):
        raised.update({name: p.detach().clone() for name, p in module.named_parameters()})

    handle = model.register_forward_hook(catch)
    AWPConfig(over=PGDATConfig(steps=1), gamma=0.1).build(THREAT, {})(model, x, y, ids, NOW)
    handle.remove()
    for name, p in model.named_parameters():
        assert torch.equal(raised[name], p) == (p.ndim == 1 or name.endswith("attention.bias")), name
    assert any(p.ndim == 2 and name.endswith("attention.bias") for name, p in model.named_parameters())


def test_awp_goes_over_what_keeps_nothing():
    with pytest.raises(Mistake, match="keeps nothing between steps"):
        AWPConfig(over=MTARDConfig()).build(THREAT, teachers())


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_awp_begins_in_the_training(share):
    with pytest.raises(Mistake, match="between 0 and 1"):
        AWPConfig(perturbed_from=share)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MARTConfig(beta=-1.0),
        lambda: HATConfig(reach=0.0),
        lambda: FastATConfig(step_size=0.0),
        lambda: AWPConfig(gamma=float("inf")),
    ],
)
def test_settings_out_of_range(make):
    with pytest.raises(Mistake, match="or more"):
        make()
