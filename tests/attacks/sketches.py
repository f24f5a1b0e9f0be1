"""Three attacks that look nothing like PGD, to prove that one protocol and one engine are enough for all of them.

APGD changes its step size example by example, remembers its best point and attacks several targets in turn; Square asks for
forward passes only; FAB walks outside the ball. They are sketches: complete enough to be strong, not checked line by line
against their authors' code, and their numbers are for no table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from awnet.attacks import Answer, Attack, Forward, Gradient
from awnet.attacks.attack import select
from awnet.losses import Margin
from awnet.noise import Noise
from awnet.threat_model import Linf, ThreatModel
from awnet.types import Hits, Images, Labels, Logits, PerExample

margin = Margin()


def raised_ce(logits: Logits, y: Labels, t: Labels) -> PerExample:
    """Cross-entropy of the label; the other class is not looked at."""
    return F.cross_entropy(logits, y, reduction="none")


def targeted_margin(logits: Logits, y: Labels, t: Labels) -> PerExample:
    """z_t - z_y."""
    return (logits.gather(1, t[:, None]) - logits.gather(1, y[:, None]))[:, 0]


def targeted_dlr(logits: Logits, y: Labels, t: Labels) -> PerExample:
    """-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2), the same whatever the scale of the logits (Eq. 6 of the APGD paper)."""
    top = logits.sort(dim=1, descending=True).values
    return targeted_margin(logits, y, t) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def runners_up(logits: Logits, y: Labels, count: int) -> Labels:
    """The `count` most likely classes besides the label, shape (b, count)."""
    return logits.scatter(1, y[:, None], float("-inf")).topk(count, dim=1).indices


def checkpoints(steps: int) -> tuple[int, ...]:
    """w_j = ceil(p_j steps) with p_0 = 0, p_1 = .22 and p_{j+1} = p_j + max(p_j - p_{j-1} - .03, .06), in hundredths."""
    before, p = 0, 22
    found = []
    while p <= 100:
        found.append(ceil(p * steps / 100))
        before, p = p, p + max(p - before - 3, 6)
    return tuple(found)


def column(t: Tensor) -> Tensor:
    return t[:, None, None, None]


class APGDState(NamedTuple):
    x: Images
    y: Labels
    targets: Labels  # (b, runs)
    run: Tensor
    step: Tensor  # of this run; -1: the first look at the clean image
    now: Images
    before: Images
    size: PerExample
    loss: PerExample  # at the point before this one
    raised: Tensor  # how often the loss rose since the last checkpoint
    checkpoint: Tensor  # the step of the last checkpoint
    halved: Hits  # whether the step was halved there
    best_then: PerExample  # the best loss there
    best: Images
    best_loss: PerExample
    best_gradient: Images
    answer: Images  # closest to misclassified, or furthest beyond, in any run
    answer_margin: PerExample


@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """Auto-PGD (Croce and Hein, 2020, https://arxiv.org/abs/2003.01690), section 3 and Algorithm 1.

    Halving happens when the answer at the checkpoint arrives, and the step from the best point is taken at once with the
    gradient remembered from there; Algorithm 1 returns to it first, which costs another query.

    Args:
        loss: (logits, y, target class) -> (b,), to be raised.
        targets: how many runs, each with the next most likely class of the clean image as its target.
        steps: of a run.
    """

    threat: ThreatModel
    loss: Callable[[Logits, Labels, Labels], PerExample] = raised_ce
    targets: int = 1
    steps: int = 100
    rho: float = 0.75
    momentum: float = 0.75
    stop_on_success: bool = True

    @property
    def queries(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 1 + self.targets * (self.steps + 1)

    def start(self, x: Images, target: Tensor, noise: Noise) -> APGDState:
        none, zero = torch.full((len(x),), -torch.inf, device=x.device), torch.zeros_like(target)
        looking = self._begin(x, target, zero, torch.zeros(len(x), self.targets).to(target), noise)
        return looking._replace(step=zero - 1, now=x, answer=x, answer_margin=none)

    def _begin(self, x: Images, y: Labels, run: Tensor, targets: Labels, noise: Noise) -> APGDState:
        """A run's state before its first query: a random point at distance eps, moved by no step yet."""
        delta = self.threat.uniform(noise, run, tuple(x.shape[1:]))
        length = self.threat.distance(torch.zeros_like(x), delta).clamp(min=1e-30)
        x_0 = self.threat.project(x + self.threat.eps * delta / column(length), x)
        none, zero = torch.full((len(x),), -torch.inf, device=x.device), torch.zeros_like(y)
        size = torch.full_like(none, 2 * self.threat.eps)
        no = torch.zeros_like(y, dtype=torch.bool)
        return APGDState(
            x, y, targets, run, zero, x_0, x_0, size, -none, zero, zero, no, none, x_0, none, x_0, x_0, none
        )

    def query(self, state: APGDState) -> Gradient:
        t = state.targets.gather(1, state.run.clamp(max=self.targets - 1)[:, None])[:, 0]
        return Gradient(state.now, lambda logits: self.loss(logits, state.y, t))

    def update(self, state: APGDState, answer: Answer, noise: Noise) -> APGDState:
        assert answer.loss is not None and answer.gradient is not None
        beyond = margin(answer.logits, state.y)
        further = beyond > state.answer_margin
        found = select(further, state.now, state.answer), select(further, beyond, state.answer_margin)

        looked = state.step < 0
        targets = select(looked, runners_up(answer.logits, state.y, self.targets), state.targets)
        ended = state.step >= self.steps
        begun = self._begin(state.x, state.y, state.run + ended, targets, noise)
        state = select(looked | ended, begun, self._climb(state, answer.logits, answer.loss, answer.gradient))
        return state._replace(answer=found[0], answer_margin=found[1])

    def _climb(self, state: APGDState, logits: Logits, loss: PerExample, gradient: Images) -> APGDState:
        better = loss > state.best_loss
        best = select(better, state.now, state.best)
        best_loss = select(better, loss, state.best_loss)
        best_gradient = select(better, gradient, state.best_gradient)

        raised = state.raised + (loss > state.loss)
        at_checkpoint = torch.isin(state.step, torch.tensor(checkpoints(self.steps), device=loss.device))
        rarely = raised < self.rho * (state.step - state.checkpoint)
        stuck = ~state.halved & (best_loss <= state.best_then)
        halve = at_checkpoint & (rarely | stuck)

        size = select(halve, state.size / 2, state.size)
        here, before = select(halve, best, state.now), select(halve, best, state.before)
        ascent = self.threat.ascend(select(halve, best_gradient, gradient))
        z = self.threat.project(here + column(size) * ascent, state.x)
        a = column(torch.where(state.step == 0, 1.0, self.momentum))
        new = self.threat.project(here + a * (z - here) + (1 - a) * (here - before), state.x)
        return state._replace(
            step=state.step + 1,
            now=new,
            before=here,
            size=size,
            loss=loss,
            raised=raised * ~at_checkpoint,
            checkpoint=select(at_checkpoint, state.step, state.checkpoint),
            halved=select(at_checkpoint, halve, state.halved),
            best_then=select(at_checkpoint, best_loss, state.best_then),
            best=best,
            best_loss=best_loss,
            best_gradient=best_gradient,
        )

    def done(self, state: APGDState) -> Hits:
        return state.run >= self.targets

    def adversarial(self, state: APGDState) -> Images:
        return state.answer


class SquareState(NamedTuple):
    x: Images
    y: Labels
    step: Tensor
    best: Images
    best_margin: PerExample
    candidate: Images


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """The Square Attack in Linf (Andriushchenko et al., 2020, https://arxiv.org/abs/1912.00049), Algorithms 1 and 2.

    Args:
        queries: forward passes an example.
        p: the share of the pixels that the first squares change.
    """

    threat: Linf
    queries: int = 5000
    p: float = 0.8
    stop_on_success: bool = True

    def start(self, x: Images, target: Tensor, noise: Noise) -> SquareState:
        b, c, _, w = x.shape
        signs = noise.uniform(0, (c, 1, w)).sub(0.5).sign()  # stripes one pixel wide
        none = torch.full((b,), -torch.inf, device=x.device)
        first = self.threat.project(x + self.threat.eps * signs, x)
        return SquareState(x, target, torch.zeros_like(target), x, none, first)

    def query(self, state: SquareState) -> Forward:
        return Forward(state.candidate)

    def update(self, state: SquareState, answer: Answer, noise: Noise) -> SquareState:
        beyond = margin(answer.logits, state.y)
        better = beyond > state.best_margin
        best = select(better, state.candidate, state.best)
        step = state.step + 1
        candidate = self.threat.project(best + self._square(step, state.x.shape, noise), state.x)
        return SquareState(state.x, state.y, step, best, select(better, beyond, state.best_margin), candidate)

    def side(self, step: Tensor, width: int) -> Tensor:
        """sqrt(p width^2), p halved at 0.1, 0.5, 2, 5, 10, 20, 40, 60 and 80 % of the queries (section 4.1)."""
        halvings = torch.tensor([10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000], device=step.device)
        passed = (step[:, None] * 10_000 >= halvings * self.queries).sum(1)
        return ((self.p * 0.5**passed) ** 0.5 * width).round().clamp(1, width)

    def _square(self, step: Tensor, shape: torch.Size, noise: Noise) -> Images:
        """+-2 eps in every channel of one random square, 0 elsewhere."""
        _, c, h, w = shape
        side = self.side(step, min(h, w))[:, None]
        corner = noise.uniform(step, (2,)) * (torch.tensor([h, w], device=step.device) - side + 1)
        low, high = corner.floor(), corner.floor() + side
        rows, columns = torch.arange(h, device=step.device), torch.arange(w, device=step.device)
        in_rows = (rows >= low[:, :1]) & (rows < high[:, :1])
        in_columns = (columns >= low[:, 1:]) & (columns < high[:, 1:])
        signs = noise.stream(1).uniform(step, (c, 1, 1)).sub(0.5).sign()
        return 2 * self.threat.eps * signs * (in_rows[:, None, :, None] & in_columns[:, None, None, :])

    def done(self, state: SquareState) -> Hits:
        return state.step >= self.queries

    def adversarial(self, state: SquareState) -> Images:
        return state.best


class FABState(NamedTuple):
    x: Images
    y: Labels
    targets: Labels  # (b, runs)
    run: Tensor
    step: Tensor  # of this run; -1: the first look at the clean image
    now: Images
    best: Images
    distance: PerExample


@dataclass(frozen=True, kw_only=True)
class FAB(Attack):
    """The targeted Fast Adaptive Boundary attack in Linf (Croce and Hein, 2020, https://arxiv.org/abs/1907.02044).

    It looks for the nearest misclassified image, so its queries may be further than eps from x; without random restarts
    and without the final search.

    Args:
        targets: how many runs, each towards the next most likely class of the clean image.
        steps: queries a run.
        alpha: the largest weight of the point near x.
        eta: how far beyond the boundary a step goes.
        beta: how far a misclassified point is pulled back to x.
    """

    threat: Linf
    targets: int = 9
    steps: int = 100
    alpha: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    stop_on_success: bool = True

    @property
    def queries(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 1 + self.targets * self.steps

    def start(self, x: Images, target: Tensor, noise: Noise) -> FABState:
        zero = torch.zeros_like(target)
        far = torch.full((len(x),), torch.inf, device=x.device)
        return FABState(x, target, torch.zeros(len(x), self.targets).to(target), zero, zero - 1, x, x, far)

    def query(self, state: FABState) -> Gradient:
        t = state.targets.gather(1, state.run.clamp(max=self.targets - 1)[:, None])[:, 0]
        return Gradient(state.now, lambda logits: targeted_margin(logits, state.y, t))

    def update(self, state: FABState, answer: Answer, noise: Noise) -> FABState:
        assert answer.loss is not None and answer.gradient is not None
        x, now = state.x, state.now
        wrong = answer.logits.argmax(1) != state.y
        distance = self.threat.distance(x, now)
        nearer = wrong & (distance < state.distance)

        # z_t - z_y is loss + gradient (z - now) around now: the nearest points of this plane to now and to x
        level = answer.loss - (answer.gradient * now).flatten(1).sum(1)
        z, z_x = (nearest_on_plane(point, answer.gradient, level) for point in (now, x))
        d, d_x = self.threat.distance(now, z), self.threat.distance(x, z_x)
        alpha = column((d / (d + d_x).clamp(min=1e-12)).clamp(max=self.alpha))
        towards = (1 - alpha) * (now + self.eta * (z - now)) + alpha * (x + self.eta * (z_x - x))
        new = torch.where(column(wrong), x + self.beta * (now - x), towards.clamp(0, 1))

        looked, ended = state.step < 0, state.step + 1 >= self.steps
        return FABState(
            x,
            state.y,
            select(looked, runners_up(answer.logits, state.y, self.targets), state.targets),
            state.run + ended,
            select(looked | ended, torch.zeros_like(state.step), state.step + 1),
            select(looked | ended, x, new),
            select(nearer, now, state.best),
            select(nearer, distance, state.distance),
        )

    def done(self, state: FABState) -> Hits:
        return state.run >= self.targets

    def adversarial(self, state: FABState) -> Images:
        return select(self.threat.contains(state.x, state.best), state.best, state.x)


def nearest_on_plane(point: Images, normal: Images, level: PerExample) -> Images:
    """The nearest image in Linf and in the box with normal · z + level = 0, or the furthest one towards that plane.

    z(s) = clip(point + s direction) moves every pixel by s towards the plane; normal · z(s) is monotone in s, so bisection
    finds s.
    """
    height = (normal * point).flatten(1).sum(1) + level
    direction = -normal.sign() * column(height.sign())
    low, high = torch.zeros_like(height), torch.ones_like(height)
    for _ in range(24):
        middle = (low + high) / 2
        z = (point + column(middle) * direction).clamp(0, 1)
        crossed = ((normal * z).flatten(1).sum(1) + level) * height <= 0
        low, high = torch.where(crossed, low, middle), torch.where(crossed, middle, high)
    return (point + column(high) * direction).clamp(0, 1)
