"""MixedNUTS against its equations in plain arithmetic, its gradient against that of the soft mixture, its search by hand."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from awnet.errors import Mistake
from awnet.evaluation.mixed_nuts import Search, margins, search
from awnet.models import MixedNUTS, MixedNUTSConfig, ResNetConfig, Transform, create
from awnet.models.mixed_nuts import mixed, normalised
from models.test_static_mixture import Says

X = torch.zeros(2, 3, 8, 8)
CLEAN, ROBUST = (1.0, -2.0, 0.5, 0.0), (-0.3, 0.7, 1.1, -2.0)


def by_hand(logits, transform):
    mean, std = statistics.mean(logits), statistics.stdev(logits)
    out = []
    for z in logits:
        v = (z - mean) / std + transform.offset
        v = {
            "gelu": v * (1 + math.erf(v / math.sqrt(2))) / 2,
            "relu": max(v, 0.0),
            "none": v,
        }[transform.clamp]
        out.append(transform.scale * math.copysign(abs(v) ** transform.power, v))
    return out


def softmax(z):
    total = sum(math.exp(a) for a in z)
    return [math.exp(a) / total for a in z]


TRANSFORMS = [
    Transform(),
    Transform(scale=2.0, power=3.0, offset=-0.4),
    Transform(scale=0.7, power=1.5, offset=0.3, clamp="relu"),
    Transform(scale=1.3, power=2.0, offset=-0.2, clamp="none"),
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
@pytest.mark.parametrize("alpha", [0.5, 0.9])
def test_the_value_is_the_papers(transform, alpha):
    logits = MixedNUTS(Says(*CLEAN), Says(*ROBUST), alpha=alpha, transform=transform)(X)
    expected = [alpha * p for p in softmax(by_hand(ROBUST, transform))]
    expected[0] += 1 - alpha  # where the clean network's largest logit is
    torch.testing.assert_close(
        logits.exp(), torch.tensor([expected, expected], dtype=torch.float64), rtol=1e-7, atol=1e-7
    )


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_the_gradient_is_that_of_the_soft_mixture(transform):
    clean, robust = (torch.tensor([z], dtype=torch.float64, requires_grad=True) for z in (CLEAN, ROBUST))
    weigh = torch.tensor([[0.3, -1.0, 2.0, 0.1]], dtype=torch.float64)
    found = torch.autograd.grad((mixed(clean, robust, 0.7, transform) * weigh).sum(), (clean, robust))
    soft = torch.log(0.3 * clean.softmax(1) + 0.7 * transform(robust).softmax(1))
    expected = torch.autograd.grad((soft * weigh).sum(), (clean, robust))
    torch.testing.assert_close(found, expected)
    assert all(gradient.abs().min() > 0 for gradient in found)


def test_only_the_largest_logits_are_normalised_by():
    logits = torch.randn(3, 300, dtype=torch.float64)
    top = logits.sort(1).values[:, -250:]
    expected = (logits - top.mean(1, keepdim=True)) / top.std(1, keepdim=True)
    torch.testing.assert_close(normalised(logits), expected)


def test_nothing_breaks_where_a_network_is_sure():
    clean, robust = Says(1e4, -1e4, 0.0), Says(-1e4, 1e4, 0.0)
    logits = MixedNUTS(clean, robust, alpha=0.75, transform=Transform(scale=5.0, power=4.0))(X)
    logits.sum().backward()
    assert logits.isfinite().all()
    assert clean.logits.grad.isfinite().all() and robust.logits.grad.isfinite().all()
    flat = MixedNUTS(Says(0.0, 0.0), Says(0.0, 0.0), alpha=0.75, transform=Transform())(X)
    torch.testing.assert_close(flat[0].exp(), torch.tensor([0.25 + 0.375, 0.375], dtype=torch.float64))


def test_the_robust_network_overrules_where_its_margin_reaches_the_cutoff():
    transform = Transform(scale=2.0, power=2.0, offset=0.3)
    robust = torch.randn(4000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    second = robust.topk(2, dim=1).indices[:, 1]
    clean = torch.nn.functional.one_hot(second, 5).double()  # it says what is hardest to overrule
    alpha = 0.6
    says = mixed(clean, robust, alpha, transform).argmax(1)
    sure = margins(robust, transform) > (1 - alpha) / alpha
    assert 0.2 < sure.double().mean() < 0.8
    assert torch.equal(says == transform(robust).argmax(1), sure) and torch.equal(says == second, ~sure)


def test_search_by_hand():
    """Nine grid points, each in plain loops; margins of classes, not of tensors."""
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(400) % 4
    hint = torch.nn.functional.one_hot(y, 4).double()
    clean = torch.randn(400, 4, generator=generator, dtype=torch.float64) + 1.5 * hint
    attacked = torch.randn(400, 4, generator=generator, dtype=torch.float64) + 1.0 * hint
    config = Search(keep=0.9, scales=(0.5, 2.0, 4.0), powers=(1.0, 2.0, 3.0), offsets=(-0.3,))
    found = search(clean, attacked, y, config)

    def margin(z, transform):
        first, second = sorted(softmax(by_hand(z, transform)), reverse=True)[:2]
        return first - second

    scores = {}
    for transform in config.transforms():
        right = [z for z, k in zip(attacked.tolist(), y.tolist(), strict=True) if z.index(max(z)) == k]
        wrong = [z for z, k in zip(clean.tolist(), y.tolist(), strict=True) if z.index(max(z)) != k]
        under = sorted(margin(z, transform) for z in right)
        cutoff = under[math.floor(0.1 * len(under) + 1e-9)]  # nine tenths are here or above
        overruled = sum(margin(z, transform) >= cutoff for z in wrong) / len(wrong)
        scores[transform] = (overruled, -cutoff)
    best = min(scores, key=lambda t: scores[t])
    assert found.transform == best and len({score[0] for score in scores.values()}) > 1
    assert found.overruled == pytest.approx(scores[best][0])
    assert found.alpha == pytest.approx(1 / (1 - scores[best][1])) and 0.5 <= found.alpha < 1
    assert 0.9 <= found.kept < 0.91


def test_search_keeps_what_it_promises():
    """The mixture is as right under attack as the robust network alone, but for the share that was given up."""
    generator = torch.Generator().manual_seed(2)
    y = torch.arange(500) % 10
    hint = torch.nn.functional.one_hot(y, 10).double()
    clean = torch.randn(500, 10, generator=generator, dtype=torch.float64) + 1.5 * hint
    attacked = torch.randn(500, 10, generator=generator, dtype=torch.float64) + 1.5 * hint
    found = search(clean, attacked, y, Search(keep=0.95))
    worst = -hint + torch.rand(500, 10, generator=generator, dtype=torch.float64) / 2  # never right
    alone = (attacked.argmax(1) == y).double().mean()
    together = (mixed(worst, attacked, found.alpha, found.transform).argmax(1) == y).double().mean()
    assert together >= 0.95 * alone - 1e-9
    accurate = 5 * hint
    unattacked = (mixed(accurate, clean, found.alpha, found.transform).argmax(1) == y).double().mean()
    assert unattacked > (clean.argmax(1) == y).double().mean() + 0.02


@pytest.mark.parametrize("scales", [(0.5, 2.0), (2.0, 0.5)])
def test_of_several_best_the_accurate_network_keeps_the_largest_weight(scales):
    right, wrong = torch.tensor([[3.0, 0.0, 0.0, -1.0]]), torch.tensor([[0.0, 1.0, 1.0 - 1e-3, 0.0]])
    y = torch.tensor([0, 0])
    found = search(
        torch.cat([right, wrong]), right.repeat(2, 1), y, Search(scales=scales, powers=(1.0,), offsets=(0.0,))
    )
    assert found.overruled == 0 and found.transform.scale == 2
    assert 1 - found.alpha > 0.3


def test_search_needs_both_sorts_of_images():
    y = torch.arange(4)
    right = torch.eye(4)
    with pytest.raises(Mistake, match="4 right under attack and 0 wrong unattacked"):
        search(right, right, y)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Transform(power=0.5),
        lambda: Transform(scale=0.0),
        lambda: Transform(offset=float("inf")),
        lambda: MixedNUTSConfig(alpha=0.4),
        lambda: MixedNUTSConfig(alpha=1.0),
        lambda: Search(keep=0.0),
        lambda: Search(powers=()),
    ],
)
def test_settings_out_of_range(make):
    with pytest.raises(Mistake, match=r"MixedNUTS|alpha|keep"):
        make()


def test_the_surrogate_is_the_mixture_without_the_transform():
    narrow = ResNetConfig(width=4)
    model = create(MixedNUTSConfig(clean=narrow, robust=narrow, alpha=0.8), classes=5).eval()
    x = torch.rand(2, 3, 8, 8)
    expected = 0.2 * model.clean(x).softmax(1) + 0.8 * model.robust(x).softmax(1)
    torch.testing.assert_close(model.surrogate(x).exp(), expected)
    assert model.surrogate.robust is model.robust
