"""The recipe for transformers against plain loops: mixed images, dropped attention, masked perturbations."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from awnet.errors import Mistake
from awnet.models.swin import SwinConfig, WindowAttention
from awnet.noise import Noise
from awnet.training import ViTATConfig
from awnet.training.mixup import MixedCrossEntropy, Mixup, alone
from awnet.training.vit_at import attention_dropped
from training.test_objectives import EXACT, NOW, THREAT, ce, in_order, pgd, uniform
from training.tiny import CLASSES, attentive, batch, own

NEVER = Mixup(probability=0.0)
LATE, EARLY, HALF = (NOW._replace(done=done) for done in (0.9, 0.0, 0.125))


def plain(model, x, y, ids, config):
    """PGD as it is."""
    attacked = copy.deepcopy(model).eval()
    return pgd(attacked, x, lambda z: MixedCrossEntropy()(z, alone(y)), config, uniform(x, ids))


def test_after_the_warm_up_it_is_pgd_training():
    x, y, ids = batch()
    model, config = attentive(), ViTATConfig(steps=3, mixup=NEVER)
    x_adv = plain(model, x, y, ids, config)
    objective = config.build(THREAT, {})
    torch.testing.assert_close(objective.adversarial(model, x, y, ids, LATE), x_adv, **EXACT)
    losses = objective(model, x, y, ids, LATE)
    (logits,) = in_order(model, x_adv)
    np.testing.assert_allclose(losses.terms["adversarial"].detach().numpy(), ce(logits, y.numpy()), **EXACT)


def test_masking_by_hand():
    """Half of the way: half of the four patches are set back before each step, others each time, none at the end."""
    x, y, ids = batch()
    model, config = attentive(), ViTATConfig(steps=3, attention=False)
    attacked = copy.deepcopy(model).eval()
    low, high = (x - THREAT.eps).clamp(min=0), (x + THREAT.eps).clamp(max=1)
    delta = (x + uniform(x, ids)).clamp(low, high) - x
    masks = []
    for step in range(3):
        keys = Noise(HALF.seed, ids).stream(2).bits(step, (4,))
        forgotten = torch.zeros_like(x)
        for i, key in enumerate(keys.tolist()):
            for patch in sorted(range(4), key=key.__getitem__)[:2]:
                top, left = 4 * (patch // 2), 4 * (patch % 2)
                forgotten[i, :, top : top + 4, left : left + 4] = 1
        masks.append(forgotten)
        moved = (x + delta * (1 - forgotten)).requires_grad_()
        (gradient,) = torch.autograd.grad(MixedCrossEntropy()(attacked(moved), alone(y)).sum(), moved)
        delta = (moved + THREAT.eps / 4 * gradient.sign()).clamp(low, high).detach() - x
    x_adv = config.build(THREAT, {}).adversarial(model, x, y, ids, HALF)
    torch.testing.assert_close(x_adv, x + delta, rtol=0, atol=1e-9)
    assert all((mask.mean((1, 2, 3)) == 0.5).all() for mask in masks) and not torch.equal(masks[0], masks[1])


def test_at_first_all_is_masked_but_the_last_step():
    x, y, ids = batch()
    x_adv = ViTATConfig(steps=3, attention=False).build(THREAT, {}).adversarial(attentive(), x, y, ids, EARLY)
    assert (x_adv - x).abs().max().item() == pytest.approx(THREAT.eps / 4)


def test_patches_need_not_divide_the_image():
    x, y, ids = batch()
    for patch in (3, 5, 100):
        x_adv = ViTATConfig(steps=2, patch=patch).build(THREAT, {}).adversarial(attentive(), x, y, ids, HALF)
        assert THREAT.contains(x, x_adv).all()


def gradients(model, x, p):
    x = x.clone().requires_grad_()
    with attention_dropped(model, p, Noise(1, torch.arange(len(x)))):
        (gradient,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    return gradient


def test_attention_is_dropped_from_the_gradient_alone():
    x, _, _ = batch()
    model = attentive().eval()
    logits = model(x)
    with attention_dropped(model, 0.0, Noise(1, torch.arange(6))):
        assert torch.equal(model(x), logits)
    assert all(not m._forward_hooks for m in model.modules())

    cut = copy.deepcopy(model)
    for module in cut.modules():
        if isinstance(module, WindowAttention):
            module.register_forward_hook(lambda module, args, output: output.detach())
    torch.testing.assert_close(gradients(model, x, 0.0), gradients(cut, x, 1.0), **EXACT)
    assert not torch.allclose(gradients(model, x, 0.0), gradients(model, x, 1.0))


def test_each_image_and_block_has_a_coin_of_its_own():
    """Of two blocks there are four gradients; each image has one of them, about as often as the coin says."""
    x = batch().x[:1].expand(400, -1, -1, -1)
    model = attentive().eval()
    found = gradients(model, x, 0.7).flatten(1)
    kinds, counts = found.mul(1e9).round().unique(dim=0, return_counts=True)
    assert len(kinds) == 4
    expected = sorted([400 * p for p in (0.49, 0.21, 0.21, 0.09)])
    assert stats.chisquare(sorted(counts.tolist()), expected).pvalue > 1e-3


def test_dropping_ends_with_an_error():
    model = attentive()
    with pytest.raises(ZeroDivisionError), attention_dropped(model, 0.5, Noise(0, torch.arange(1))):
        raise ZeroDivisionError
    assert all(not m._forward_hooks for m in model.modules())


def test_it_works_on_swin():
    x, y, ids = batch()
    model = SwinConfig().narrow().build(classes=CLASSES, channels=1).double().train()
    losses = ViTATConfig(steps=1).build(THREAT, {})(model, x, y, ids, HALF)
    losses.total.backward()
    assert model.patches.weight.grad is not None and model.patches.weight.grad.any()


def test_it_needs_a_transformer():
    x, y, ids = batch()
    with pytest.raises(Mistake, match=r"trains a transformer \(swin-t, swin-s\), got Own"):
        ViTATConfig().build(THREAT, {})(own().double(), x, y, ids, NOW)


# --- mixed images ---


def mixed(n: int = 2000, **settings):
    """Black images of class 0 and, in the other half of the batch, white ones of class 1: shares can be read off."""
    x = torch.zeros(n, 1, 10, 10)
    x[n // 2 :] = 1
    y = (torch.arange(n) >= n // 2).long()
    images, target = Mixup(**settings)(x, y, Noise(3, torch.arange(n)))
    own = torch.where(y == 0, 1 - images.mean((1, 2, 3)), images.mean((1, 2, 3)))
    return images, y, target, own


def test_labels_are_mixed_as_the_images_are():
    images, y, target, own_share = mixed(probability=1.0)
    torch.testing.assert_close(target[:, 2].float(), own_share, rtol=0, atol=1e-5)
    assert torch.equal(target[:, 0].long(), y) and torch.equal(target[:, 1].long(), 1 - y)
    pasted = ((images == 0) | (images == 1)).flatten(1).all(1)
    assert 0.45 < pasted.float().mean() < 0.55
    for image, label in zip(images[pasted][:50], y[pasted], strict=False):  # a box, nothing else
        inside = image[0] != label
        rows, columns = inside.any(1).sum(), inside.any(0).sum()
        assert inside.sum() == rows * columns


def test_shares_follow_their_distribution():
    images, _, target, _ = mixed(6000, probability=1.0, mixup=0.4)
    blended = ((images > 0) & (images < 1)).flatten(1).any(1)
    assert stats.kstest(target[blended, 2].numpy(), stats.beta(0.4, 0.4).cdf).pvalue > 1e-3


def test_three_in_ten_are_mixed():
    _, _, target, _ = mixed()
    assert 0.25 < (target[:, 2] < 1).float().mean() < 0.32  # some boxes are empty
    images, y, target, _ = mixed(probability=0.0)
    assert torch.equal(target, alone(y).index_copy(1, torch.tensor([1]), (1.0 - y.double())[:, None]))
    assert set(images.unique().tolist()) == {0.0, 1.0}


def test_mixed_cross_entropy_by_hand():
    z = torch.randn(4, CLASSES, dtype=torch.float64)
    target = torch.tensor([[0, 1, 0.25], [2, 2, 0.5], [1, 0, 1.0], [1, 0, 0.0]], dtype=torch.float64)
    soft = torch.zeros(4, CLASSES, dtype=torch.float64)
    for row, (a, b, share) in zip(soft, target.tolist(), strict=True):
        row[int(a)] += share
        row[int(b)] += 1 - share
    torch.testing.assert_close(MixedCrossEntropy()(z, target), -(soft * z.log_softmax(1)).sum(1), **EXACT)


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        (ViTATConfig(), {"warm_up": 1.5}),
        (ViTATConfig(), {"patch": 0}),
        (Mixup(), {"probability": -0.1}),
        (Mixup(), {"cutmix": 0.0}),
    ],
)
def test_settings_out_of_range(settings, wrong):
    with pytest.raises(Mistake):
        replace(settings, **wrong)
