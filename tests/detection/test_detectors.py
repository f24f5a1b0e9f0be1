"""What every detector must do, and each by its closed form.

A detector that is registered gets the contract tests for free; `pytest -k name` runs those of one detector.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import median_filter as scipy_median
from scipy.stats import rankdata
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor, nn

from attacks.nets import Linear, lively, small_net
from awnet.attacks import PGD, fgsm, frozen_for_attack
from awnet.config import from_json, to_json
from awnet.conformance.traces import traces
from awnet.detection import (
    DETECTORS,
    LID,
    LNG,
    NNIF,
    DetectorConfig,
    FeatureSqueezing,
    Guarded,
    Known,
    Mahalanobis,
    MaxSoftmax,
    OwnDecision,
)
from awnet.detection.feature_squeezing import fewer_bits, median_filter
from awnet.detection.influence import HeadInfluence, Lissa, LissaInfluence
from awnet.detection.layers import Embedding, activations, blocks_of
from awnet.detection.lid import dimension
from awnet.detection.lng import GraphReader, apart
from awnet.detection.mahalanobis import ClassMeans
from awnet.detection.nnif import ranks
from awnet.detection.own_decision import OwnDecisionDetector, deciding, tells
from awnet.detection.regression import Regression
from awnet.errors import Mistake
from awnet.evaluation import auc
from awnet.models import MODELS, AWNetConfig, ResNetConfig, create
from awnet.models.model import Deciding
from awnet.threat_model import Linf

SMALL = {"lid": LID(neighbours=5, minibatch=20), "nnif": NNIF(most=5), "lng-style": LNG(neighbours=4, steps=10)}
EVERY = {
    **{name: SMALL.get(name, config) for name, config in DETECTORS.items()},
    "mahalanobis, preprocessed": Mahalanobis(preprocess=0.002, layers=("blocks.0", "blocks.3")),
}
CLASSES = 4


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def network(*, routes: bool) -> nn.Module:
    small = ResNetConfig(depth=10, width=4)
    config = replace(AWNetConfig().narrow(), base=small) if routes else small
    return lively(create(config, classes=CLASSES), images(16))


def known(model: nn.Module, n: int = 40) -> Known:
    clean = images(12, 1)
    attacked = fgsm(Linf(0.1))(model, clean, torch.arange(12) % CLASSES)
    return Known(images(n, 2), torch.arange(n) % CLASSES, clean, attacked)


@pytest.mark.parametrize("name", EVERY)
def test_every_detector(name: str):
    model = network(routes=True).train()
    before = traces(model)
    detector = EVERY[name].fit(
        model, known(model, 200)
    )  # of fewer, covariances are nearly singular, and magnify rounding
    assert traces(model) == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())

    x = images(6, 3)
    with frozen_for_attack(detector):
        with torch.no_grad():
            score = detector.score(x)
            alone = torch.cat([detector.score(x[i : i + 1]) for i in range(len(x))])
        start = x.clone().requires_grad_()
        climbing = detector.score(start)
        (gradient,) = torch.autograd.grad(climbing.sum(), start)
    assert score.shape == (6,) and score.isfinite().all() and score.std() > 0
    torch.testing.assert_close(alone, score, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(climbing.detach(), score, atol=1e-4, rtol=1e-4)  # whatever is passed back
    assert gradient.isfinite().all() and (gradient.flatten(1).norm(dim=1) > 0).all()
    assert (traces(model) == before and not detector.training) or model.training


@pytest.mark.parametrize("name", EVERY)
def test_settings_come_back_from_json(name: str):
    assert from_json(to_json(EVERY[name]), DetectorConfig) == EVERY[name]


@pytest.mark.parametrize("name", MODELS)
def test_every_network_has_layers_to_listen_to(name: str):
    model = create(MODELS[name].narrow(), classes=CLASSES).eval()
    layers = blocks_of(model)
    with torch.no_grad():
        logits, vectors = activations(model, torch.rand(2, 3, 32, 32), layers)
    assert logits.shape == (2, CLASSES) and len(vectors) == len(layers) >= 2
    assert all(vector.ndim == 2 and len(vector) == 2 and vector.isfinite().all() for vector in vectors)


def test_layers_by_hand():
    model = small_net().eval()
    x = images(3)
    assert blocks_of(model) == ("0", "2")
    _, (first, second) = activations(model, x, ("0", "2"))
    torch.testing.assert_close(first, model[0](x).mean((2, 3)))
    torch.testing.assert_close(second, model[2](F.relu(model[0](x))).mean((2, 3)))
    _, (whole,) = activations(model, x, ("0",), pooled=False)
    torch.testing.assert_close(whole, model[0](x).flatten(1))
    logits, features = Embedding(model, x)(x)
    torch.testing.assert_close(model[-1](features), logits)
    resnet = create(ResNetConfig(depth=10, width=4), classes=CLASSES)
    assert blocks_of(resnet) == tuple(f"trunk.stages.{i}.0" for i in range(4))
    assert len(blocks_of(network(routes=True))) == 4 + len(blocks_of(create("resnet18", classes=2)))  # its router's too


def test_what_cannot_be_used_is_told():
    model = network(routes=False)
    good = known(model)
    for config, what, why in [
        (OwnDecision(), good, "does not tell"),
        (Mahalanobis(layers=("trunk.nowhere",)), good, "no layer 'trunk.nowhere'"),
        (Mahalanobis(layers=("trunk.stages",)), good, "is not called"),
        (LID(), good, "neighbours among 100"),
        (NNIF(), good, "twice 50"),
        (LNG(neighbours=12), good, "12 other images"),
        (Mahalanobis(), good._replace(attacked=good.attacked[:5]), "in pairs"),
        (Mahalanobis(), good._replace(clean=good.clean[:2], attacked=good.attacked[:2]), "3 clean and 3 attacked"),
    ]:
        with pytest.raises(Mistake, match=why):
            config.fit(model, what)
    for name in ("rdi-resnet38", "advmoe-resnet18"):  # which exit, which expert: decisions about something else
        with pytest.raises(Mistake, match="does not tell"):
            OwnDecision().fit(create(MODELS[name].narrow(), classes=CLASSES).eval(), good)
    linear = Linear(torch.rand(2, 3, 8, 8))
    with pytest.raises(Mistake, match="ends in a linear layer"):
        NNIF(most=2, layers=("",)).fit(linear, good)
    with pytest.raises(Mistake, match="neither blocks nor convolutions"):
        Mahalanobis().fit(linear, good)
    for settings in (
        lambda: LID(neighbours=1),
        lambda: LID(neighbours=30, minibatch=20),
        lambda: NNIF(most=0),
        lambda: NNIF(damping=0),
        lambda: Lissa(depth=0),
        lambda: LNG(steps=0),
        lambda: FeatureSqueezing(bits=0, median=0),
        lambda: FeatureSqueezing(bits=9),
        lambda: FeatureSqueezing(median=1),
        lambda: Mahalanobis(preprocess=-1),
    ):
        with pytest.raises(Mistake):
            settings()


def test_max_softmax_orders_as_the_probability_does_and_does_not_saturate():
    model = Linear(torch.randn(3, 1, 2, 2))
    x = torch.rand(50, 1, 2, 2)
    none = Known(x, torch.zeros(50).long(), x, x)
    score = MaxSoftmax().fit(model, none).score(x)
    p = model(x).softmax(1).amax(1)
    torch.testing.assert_close(score.sigmoid(), p)
    sure = Linear(model.w.detach() * 1e3)
    score = MaxSoftmax().fit(sure, none).score(x)
    assert len(score.unique()) == 50 and (sure(x).softmax(1).amax(1) == 1).any()


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_median_filter_is_scipys(size: int):
    x = images(2)[:, :, :7]  # not square
    expected = np.stack([[scipy_median(channel, size=size, mode="reflect") for channel in one] for one in x.numpy()])
    assert torch.equal(median_filter(x, size), torch.from_numpy(expected))


def test_squeezing_by_hand():
    assert fewer_bits(torch.tensor([[[[0.0, 0.4, 0.6, 1.0]]]]), 1).tolist() == [[[[0, 0, 1, 1]]]]
    x = torch.full((1, 1, 2, 2), 0.4, requires_grad=True)
    fewer_bits(x, 1).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))  # the identity's gradient
    model = Linear(torch.randn(3, 1, 2, 2))
    detector = FeatureSqueezing(bits=1, median=0).fit(model, Known(x, torch.zeros(1).long(), x, x))
    moved = (model(x).softmax(1) - model(torch.zeros_like(x)).softmax(1)).abs().sum(1)
    torch.testing.assert_close(detector.score(x), -moved)


def test_mahalanobis_is_the_discriminant_of_fisher():
    """With equal priors the differences of -d^2/2 between classes are those of LDA's decision functions."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(300) % 3
    mix = torch.randn(5, 5, generator=generator)
    f = torch.randn(300, 5, generator=generator) @ mix + 4 * torch.randn(3, 5, generator=generator)[y]
    means = ClassMeans(f, y)
    at = torch.randn(20, 5, generator=generator) * 3
    white = (at - means.get_buffer("centre")) @ means.get_buffer("whiten")
    ours = -0.5 * ((white[:, None] - means.get_buffer("means")) ** 2).sum(2).double()
    # LDA's covariance is the mean within classes, as here for classes of one size
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(f.double().numpy(), y.numpy()).decision_function(at.double())
    theirs = torch.from_numpy(theirs)
    torch.testing.assert_close(ours - ours[:, :1], theirs - theirs[:, :1], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(means(at).double(), 2 * ours.amax(1), atol=1e-3, rtol=1e-3)


def test_mahalanobis_leaves_out_directions_without_variance():
    f = torch.randn(60, 2)
    y = torch.arange(60) % 2
    flat = torch.cat([f, f[:, :1] + f[:, 1:], torch.ones(60, 1)], dim=1)
    torch.testing.assert_close(ClassMeans(flat, y)(flat), ClassMeans(f, y)(f), atol=1e-3, rtol=1e-3)


def test_preprocessing_moves_towards_confidence():
    model = network(routes=False)
    what = known(model)
    plain, moved = (Mahalanobis(preprocess=size).fit(model, what) for size in (0.0, 1e-4))
    x = images(6, 3)
    with frozen_for_attack(model):
        assert (moved.confidences(x) >= plain.confidences(x) - 1e-4).all()
        assert (moved.confidences(x) > plain.confidences(x)).float().mean() > 0.9


@pytest.mark.parametrize("d", [1, 2, 5, 10])
def test_lid_of_uniform_points_is_their_dimension(d: int):
    """Uniform in a ball of d dimensions around each point: r^d is uniform, and LID is k / (k - 1) d in the mean, almost."""
    generator = torch.Generator().manual_seed(d)
    turn = torch.linalg.qr(torch.randn(12, 12, generator=generator)).Q[:d]  # embedded in twelve
    found = []
    for _ in range(40):
        way = F.normalize(torch.randn(1000, d, generator=generator))
        points = way * torch.rand(1000, 1, generator=generator) ** (1 / d)
        found.append(dimension(torch.zeros(1, 12), points @ turn, 100))
    assert torch.cat(found).mean().item() == pytest.approx(d, rel=0.05)


def test_lid_by_hand():
    references = torch.tensor([[1.0], [2.0], [-4.0], [9.0]])
    found = dimension(torch.zeros(1, 1), references, 3)
    assert found.item() == pytest.approx(-3 / (np.log(1 / 4) + np.log(2 / 4)))


def test_influence_is_leaving_one_out():
    """A logistic regression trained again without each image: its loss elsewhere rises by 1/n of the influence."""
    generator = torch.Generator().manual_seed(0)
    n, damping = 40, 0.1
    x, at = torch.randn(n, 1, 1, 4, generator=generator), torch.randn(8, 1, 1, 4, generator=generator)
    w = torch.randn(3, 4, generator=generator)
    y, y_at = ((t.flatten(1) @ w.T + torch.randn(len(t), 3, generator=generator)).argmax(1) for t in (x, at))
    whole = trained(x, y, torch.ones(n), damping)
    influence = HeadInfluence(Embedding(whole, x), x, y, damping)(at, y_at).float()

    def rise(less: float) -> Tensor:
        """Of the losses at `at`, (8, n), when each image in turn counts that much less."""
        weights = torch.ones(n) - less * torch.eye(n)
        return (
            torch.stack([losses(trained(x, y, w, damping, whole), at, y_at) for w in weights], dim=1) - start[:, None]
        )

    start = losses(whole, at, y_at)
    torch.testing.assert_close(rise(0.01) / 0.01, influence / n, atol=1e-3, rtol=0.03)
    assert torch.corrcoef(torch.stack([influence.flatten(), rise(1.0).flatten()]))[0, 1] > 0.98


def trained(x: Tensor, y: Tensor, weights: Tensor, damping: float, start: nn.Sequential | None = None) -> nn.Sequential:
    """The minimum of (1/n) sum_i weight_i loss_i + damping/2 |w|^2, by Newton's steps in double precision."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 3))

    def objective(flat: Tensor) -> Tensor:
        w, b = flat[:-3].view(3, -1), flat[-3:]
        loss = F.cross_entropy(F.linear(x.double().flatten(1), w, b), y, reduction="none")
        return (weights * loss).sum() / len(x) + damping / 2 * (flat**2).sum()

    flat = torch.zeros(model[1].weight.numel() + 3, dtype=torch.float64)
    if start is not None:
        flat = torch.cat([start[1].weight.detach().flatten(), start[1].bias.detach()]).double()
    for _ in range(4 if start else 7):
        slope = torch.func.grad(objective)(flat)
        flat = flat - torch.linalg.solve(torch.autograd.functional.hessian(objective, flat), slope)
    assert torch.func.grad(objective)(flat).norm() < 1e-8
    with torch.no_grad():
        model[1].weight.copy_(flat[:-3].view(3, -1))
        model[1].bias.copy_(flat[-3:])
    return model


def losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return F.cross_entropy(model(x), y, reduction="none")


def test_lissa_is_the_exact_solve_where_it_converges():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 1, 1, 4, generator=generator), torch.arange(30) % 3
    model = trained(x, y, torch.ones(30), 0.3).eval()
    exact = HeadInfluence(Embedding(model, x), x, y, 0.3)(x[:3], y[:3])
    lissa = LissaInfluence(model, x, y, 0.3, Lissa(scale=1.5, depth=60, repeats=1, batch=30))(x[:3], y[:3])
    torch.testing.assert_close(lissa, exact.float(), atol=1e-3, rtol=1e-3)


def test_nnif_by_lissa_goes_through_a_convolutional_network():
    model = network(routes=False)
    what = known(model)
    detector = NNIF(most=3, lissa=Lissa(depth=2, repeats=1, batch=12), layers=("trunk.stages.3.0",))
    detector = detector.fit(
        model, what._replace(x=what.x[:12], y=what.y[:12], clean=what.clean[:3], attacked=what.attacked[:3])
    )
    with frozen_for_attack(detector):
        assert detector.score(images(2)).isfinite().all()


def test_ranks_count_those_who_are_nearer():
    distances = torch.rand(3, 20)
    chosen = torch.tensor([[0, 5], [7, 7], [19, 1]])
    expected = torch.from_numpy(rankdata(distances.numpy(), axis=1) - 1).gather(1, chosen) / 20
    torch.testing.assert_close(ranks(distances, chosen).double(), expected)
    start = distances.clone().requires_grad_()
    found = ranks(start, chosen)
    torch.testing.assert_close(found.detach().double(), expected)
    (slope,) = torch.autograd.grad(found[0, 0], start)
    assert slope[0, 0] > 0 and (slope[0, 1:] <= 0).all() and not slope[1:].any()  # who moves away is overtaken


def test_graph_reader_does_not_mind_the_order_of_neighbours():
    torch.manual_seed(0)

    def reader(nodes: Tensor) -> Tensor:
        return net(nodes, apart(nodes))

    net = GraphReader(5, 8)
    nodes = torch.randn(4, 7, 5)  # the image, three clean, three attacked
    swapped = nodes[:, [0, 2, 3, 1, 5, 4, 6]]
    torch.testing.assert_close(reader(swapped), reader(nodes))
    exchanged = nodes[:, [0, 4, 5, 6, 1, 2, 3]]
    assert (reader(exchanged) - reader(nodes)).abs().min() > 1e-4  # but which are attacked matters


def test_lng_hides_an_images_own_pair_while_it_learns():
    model = network(routes=False)
    detector = LNG(neighbours=3, steps=1).fit(model, known(model))
    clean = detector.get_buffer("clean")
    nodes = detector.graph(clean, torch.arange(len(clean)))
    assert (nodes[:, 1:4] - nodes[:, :1]).norm(dim=2).min() > 0
    assert (detector.graph(clean)[:, 1] - clean).abs().max() == 0


def test_regression_finds_the_log_odds_of_gaussians():
    """Of unit variance and means +1 and -1: log-odds 2 f."""
    generator = torch.Generator().manual_seed(0)
    clean, attacked = (torch.randn(4000, 1, generator=generator) + m for m in (1.0, -1.0))
    at = torch.tensor([[-2.0], [0.0], [1.5]])
    torch.testing.assert_close(Regression(clean, attacked)(at), 2 * at[:, 0], atol=0.25, rtol=0.1)


def test_a_guarded_classifier_decides():
    model = network(routes=False)
    guarded = Guarded(Mahalanobis().fit(model, known(model)))
    assert isinstance(guarded, Deciding)
    x = images(5, 3)
    logits, odds = guarded.decide(x, x.flip(0), "", torch.zeros(5, dtype=torch.bool))
    torch.testing.assert_close(logits, model(x))
    torch.testing.assert_close(odds, guarded.detector.score(x.flip(0)))


@pytest.mark.parametrize(
    ("config", "least"),
    [(Mahalanobis(), 0.95), (LID(), 0.75), (NNIF(), 0.65), (LNG(neighbours=10, steps=60), 0.8)],
    ids=str,
)
def test_detectors_tell_what_is_easily_told(config: DetectorConfig, least: float):
    """Digits, and digits attacked far beyond what is subtle."""
    ink, digits = load_digits(return_X_y=True)
    x, y = torch.from_numpy(ink).float().view(-1, 1, 8, 8) / 16, torch.from_numpy(digits)
    torch.manual_seed(0)
    model = small_net(channels=1, width=8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(x[:300]), y[:300]).backward()
        optimizer.step()
    attack = PGD(threat=Linf(0.3), steps=5)
    clean, test = x[600:700], x[700:800]
    attacked, test_attacked = attack(model, clean, y[600:700]), attack(model, test, y[700:800])
    detector = config.fit(model, Known(x[:300], y[:300], clean, attacked))
    with torch.no_grad(), frozen_for_attack(detector):
        assert auc(detector.score(test), detector.score(test_attacked)) > least


class Says(nn.Module):
    """P(clean) is a function of the first pixel."""

    def __init__(self, told):
        super().__init__()
        self.told = told

    def detect(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x), self.told(x[:, 0, 0, 0])

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :2]


def test_the_log_odds_of_a_plain_detector_are_finite_and_have_its_slope():
    x = torch.zeros(5, 1, 2, 2)
    x[:, 0, 0, 0] = torch.tensor([-40.0, -20.0, 0.5, 3.0, 200.0])
    x.requires_grad_()
    score = OwnDecisionDetector(Says(torch.sigmoid)).score(x)
    torch.testing.assert_close(score[:4], x[:4, 0, 0, 0], atol=1e-4, rtol=1e-4)
    (gradient,) = torch.autograd.grad(score[:4].sum(), x)
    torch.testing.assert_close(gradient[:4, 0, 0, 0], torch.ones(4), atol=1e-3, rtol=0)
    assert 16 < score[4] < 17 and gradient.isfinite().all()

    sure = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).requires_grad_()
    score = OwnDecisionDetector(Says(lambda p: p)).score(sure)
    (gradient,) = torch.autograd.grad(score.sum(), sure)
    assert score[0] < -60 and score[1] > 16 and gradient.isfinite().all() and (gradient > 0).all()


def test_what_is_no_probability_of_clean_is_refused():
    x = torch.linspace(0, 1, 12).view(3, 1, 2, 2)

    def fails(p: Tensor) -> Tensor:
        raise RuntimeError("boom")

    def not_alone(p: Tensor) -> Tensor:
        return p if len(p) > 1 else fails(p)

    for told, sentence in [
        (lambda p: 3 * p, "from 0 to 2.182, expected probabilities"),
        (lambda p: p - 1, "return the sigmoid"),
        (lambda p: p[:, None], r"shape \(8, 1\) for 8 images"),
        (fails, "detect raises RuntimeError on images of shape .*boom"),
        (lambda p: p + torch.nan, "does not tell clean images"),
    ]:
        with pytest.raises(Mistake, match=sentence):
            deciding(Says(told), x)
    assert tells(Says(not_alone), x[:1]) and isinstance(deciding(Says(not_alone), x[:1]), Guarded)


def test_a_classifier_that_normalises_in_place_is_watched_as_it_is():
    class Normalises(Says):
        def detect(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x.sub_(0.5).div_(0.5)
            return x.flatten(1)[:, :2], x[:, 0, 0, 0].sigmoid()

        def forward(self, x: Tensor) -> Tensor:
            return self.detect(x)[0]

    x = torch.rand(4, 1, 2, 2)
    given, nobody = x.clone(), torch.zeros(4, dtype=torch.bool)
    said = Guarded(OwnDecisionDetector(Normalises(torch.sigmoid))).decide(x, x, "", nobody)
    assert torch.equal(x, given)
    torch.testing.assert_close(said.log_odds, 2 * x[:, 0, 0, 0] - 1, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(said.logits, 2 * x.flatten(1)[:, :2] - 1)
