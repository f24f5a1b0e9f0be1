"""The losses against torch, SciPy and plain loops, values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, rel_entr, softmax
from torch import Tensor

from awnet.losses import DLR, KL, CrossEntropy, Loss, Margin, TargetedDLR, TargetedMargin


def some(n: int = 12, k: int = 5, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    return (scale * torch.randn(n, k, dtype=torch.float64)).requires_grad_(), torch.arange(n) % k


def gradient(loss: Loss, logits: Tensor, target: Tensor) -> Tensor:
    (g,) = torch.autograd.grad(loss(logits, target).sum(), logits)
    return g


def test_cross_entropy():
    logits, y = some()
    expected = [-log_softmax(logits.detach().numpy()[i])[y[i]] for i in range(12)]
    torch.testing.assert_close(CrossEntropy()(logits, y), torch.tensor(expected))
    onehot = F.one_hot(y, 5)
    torch.testing.assert_close(gradient(CrossEntropy(), logits, y), logits.softmax(1) - onehot)


@pytest.mark.parametrize("kappa", [float("inf"), 50.0, 1.0, 0.0])
def test_margin(kappa: float):
    logits, y = some()
    margins = Margin(kappa)(logits, y)
    slopes = gradient(Margin(kappa), logits, y)
    for i in range(12):
        z = logits[i].tolist()
        best = max((k for k in range(5) if k != y[i]), key=lambda k: z[k])
        by_hand = z[best] - z[int(y[i])]
        # the Madry challenge writes it -relu(z_y - max z_k + kappa), which is the same less kappa
        assert margins[i].item() == pytest.approx(min(by_hand, kappa))
        if kappa < float("inf"):
            challenge = -max(-by_hand + kappa, 0)
            assert margins[i].item() - kappa == pytest.approx(challenge)
        slope = torch.zeros(5, dtype=torch.float64)
        if by_hand < kappa:
            slope[best], slope[y[i]] = 1, -1
        assert torch.equal(slopes[i], slope)
    assert torch.equal(Margin()(logits, y) > 0, logits.argmax(1) != y), "positive exactly where misclassified"
    assert (margins.detach() == kappa).any() == (kappa in (0, 1)), "the case where the loss is flat is among them"


def aimed(y: Tensor, k: int) -> Tensor:
    """The labels, each with another class beside it."""
    return torch.stack([y, (y + 1 + torch.arange(len(y)) % (k - 1)) % k], dim=1)


@pytest.mark.parametrize("k", [2, 3, 4, 10])
def test_dlr(k: int):
    """By hand from sorted logits; with too few classes the margin alone."""
    logits, y = some(k=k)
    pairs = aimed(y, k)
    plain, targeted, margins = DLR()(logits, y), TargetedDLR()(logits, pairs), TargetedMargin()(logits, pairs)
    for i in range(12):
        z = logits[i].tolist()
        top, own, aim = sorted(z, reverse=True), z[int(y[i])], z[int(pairs[i, 1])]
        other = max(value for j, value in enumerate(z) if j != int(y[i]))
        assert margins[i].item() == pytest.approx(aim - own)
        assert plain[i].item() == pytest.approx((other - own) / (top[0] - top[2] if k >= 3 else 1))
        assert targeted[i].item() == pytest.approx((aim - own) / (top[0] - (top[2] + top[3]) / 2 if k >= 4 else 1))
    if k >= 4:  # neither scale nor offset of the logits matters
        for loss, target in ((DLR(), y), (TargetedDLR(), pairs)):
            torch.testing.assert_close(loss(50 * logits - 7, target), loss(logits, target))
    assert torch.equal(plain > 0, logits.argmax(1) != y), "positive exactly where misclassified"
    for loss, target in ((DLR(), y), (TargetedDLR(), pairs), (TargetedMargin(), pairs)):
        assert torch.autograd.gradcheck(lambda z, loss=loss, target=target: loss(z, target), logits)


@pytest.mark.parametrize("tau", [1.0, 5.0])
@pytest.mark.parametrize("reverse", [False, True])
def test_kl(tau: float, reverse: bool):
    logits, _ = some()
    target = 2 * torch.randn(12, 5, dtype=torch.float64)
    p, q = softmax(target.numpy() / tau, axis=1), softmax(logits.detach().numpy() / tau, axis=1)
    expected = rel_entr(q, p) if reverse else rel_entr(p, q)
    torch.testing.assert_close(KL(tau, reverse)(logits, target), torch.tensor(expected.sum(1)))
    if not reverse:
        theirs = F.kl_div((logits / tau).log_softmax(1), (target / tau).softmax(1), reduction="none").sum(1)
        torch.testing.assert_close(KL(tau)(logits, target), theirs)
        torch.testing.assert_close(gradient(KL(tau), logits, target), torch.tensor(q - p) / tau)


def test_kl_is_zero_between_equals_and_positive_elsewhere():
    logits, _ = some()
    shifted = logits.detach() + torch.randn(12, 1)  # softmax does not notice
    for loss in (KL(), KL(tau=5.0), KL(reverse=True)):
        torch.testing.assert_close(loss(logits, shifted), torch.zeros(12, dtype=torch.float64), rtol=0, atol=1e-12)
        assert (loss(logits, logits.detach().roll(1, 0)) > 0).all()
        assert gradient(loss, logits, shifted).abs().max() < 1e-12


@pytest.mark.parametrize("loss", [CrossEntropy(), Margin(), Margin(kappa=2), KL(), KL(tau=5.0, reverse=True)], ids=str)
def test_gradients_are_right_and_each_example_has_its_own(loss: Loss):
    logits, y = some(n=6)
    target = torch.randn(6, 5, dtype=torch.float64) if isinstance(loss, KL) else y
    assert torch.autograd.gradcheck(lambda z: loss(z, target), logits)
    assert loss(logits, target).shape == (6,)
    for i in range(6):
        alone = loss(logits[i : i + 1], target[i : i + 1])
        torch.testing.assert_close(alone, loss(logits, target)[i : i + 1])


@pytest.mark.parametrize("loss", [CrossEntropy(), Margin(), KL(), KL(tau=5.0, reverse=True)], ids=str)
def test_extreme_logits_give_finite_losses(loss: Loss):
    """A network at 1000 times its logits, as attackers meet it."""
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], requires_grad=True)
    target = logits.detach().flip(0) if isinstance(loss, KL) else torch.tensor([0, 0])
    value = loss(logits, target)
    assert value.isfinite().all()
    assert gradient(loss, logits, target).isfinite().all()


def test_losses_are_values():
    assert CrossEntropy() == CrossEntropy() and Margin(50) == Margin(kappa=50.0) != Margin()
    assert len({KL(), KL(), KL(tau=5.0), KL(reverse=True)}) == 3
