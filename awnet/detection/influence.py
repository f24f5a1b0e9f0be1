"""Influence functions (Koh and Liang, 2017, https://arxiv.org/abs/1703.04730): which training images helped a prediction.

The influence of a training image z on the loss at x is g(x)' H^-1 g(z), with g the gradient of the loss with respect to the
weights and H the mean Hessian over the training images. Left out of n, z would raise the loss at x by about 1/n of it (their
Eq. 2, with the other sign): a positive influence is helpful, a negative one harmful.

Two ways. `HeadInfluence` takes only the weights of the last linear layer, where everything has a closed form and the linear
system is solved exactly: fast, and ours. `LissaInfluence` takes all weights and solves the system by the recursion of Agarwal
et al. (2017, LiSSA), as NNIF does: some hundred backward passes for each image, and no guarantee on a network that is not
convex.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad

from awnet.config import setting
from awnet.detection.detector import in_batches
from awnet.detection.layers import Embedding
from awnet.errors import Mistake
from awnet.noise import fold, permutation
from awnet.types import Images, Labels, Logits, PerExample

Weights: TypeAlias = dict[str, Tensor]  # by name
LARGEST = 12_000  # weights whose Hessian is held and factored: 1.2 GB


class HeadInfluence(nn.Module):
    """Through the weights and biases W of the last layer.

    With features f (a 1 appended for the bias) and p = softmax(W f): g = (p - e_y) f' and
    H = mean (diag(p) - p p') x f f' + damping I, where x is Kronecker's product.

    Args:
        embedding: of the network.
        x, y: training images and labels.
        damping: added to the Hessian's diagonal; the weight decay, and what makes it regular.

    Raises:
        Mistake: the last layer is too large.
    """

    def __init__(self, embedding: Embedding, x: Images, y: Labels, damping: float) -> None:
        super().__init__()
        self.embedding = embedding
        p, f = _head(*embedding.all(x))
        n, k, d = len(f), p.shape[1], f.shape[1]
        if k * d > LARGEST:
            raise Mistake(
                f"the last layer has {k * d:,} weights, more than the {LARGEST:,} of an exact solve; use LiSSA"
            )
        hessian = damping * torch.eye(k * d, dtype=f.dtype, device=f.device)
        for part_p, part_f in zip(in_batches(p), in_batches(f), strict=True):
            curve = torch.diag_embed(part_p) - part_p[:, :, None] * part_p[:, None]
            hessian += torch.einsum("nij,na,nb->iajb", curve, part_f, part_f).reshape(k * d, k * d) / n
        self.register_buffer("root", torch.linalg.cholesky(hessian), persistent=False)
        self.register_buffer("features", f, persistent=False)
        self.register_buffer("residuals", p - F.one_hot(y, k), persistent=False)

    @torch.no_grad()
    def forward(self, x: Images, y: Labels) -> Tensor:
        """Of each training image on the loss at each of x with labels y, shape (b, n)."""
        p, f = _head(*self.embedding(x))
        g = (p - F.one_hot(y, p.shape[1]))[:, :, None] * f[:, None]
        solved = torch.cholesky_solve(g.flatten(1).T, self.get_buffer("root")).T.view_as(g)
        along = torch.einsum("bkd,nd->bnk", solved, self.get_buffer("features"))
        return (along * self.get_buffer("residuals")).sum(2)


def _head(logits: Logits, features: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities, and features with a 1 for the bias, in double precision."""
    return logits.double().softmax(1), F.pad(features.double(), (0, 1), value=1.0)


@setting
@dataclass(frozen=True, kw_only=True)
class Lissa:
    """How long the recursion goes on; NNIF's settings, far fewer steps than it needs to converge.

    Args:
        scale: larger than the Hessian's largest eigenvalue.
        depth: steps.
        repeats: runs, of which the mean is taken.
        batch: images of a step's Hessian.
    """

    scale: float = 200.0
    depth: int = 49
    repeats: int = 5
    batch: int = 200

    def __post_init__(self) -> None:
        if min(self.depth, self.repeats, self.batch) < 1 or not 0 < self.scale < inf:
            raise Mistake(
                "LiSSA needs at least one step, run and image, and a positive scale; got "
                f"depth={self.depth}, repeats={self.repeats}, batch={self.batch} and scale={self.scale:g}"
            )


class LissaInfluence(nn.Module):
    """Through all weights: s = H^-1 g(x) by s_j = g + s_{j-1} - (H_j + damping I) s_{j-1} / scale, finally over `scale`.

    Args:
        model: the network, in eval mode.
        x, y: training images and labels.
        damping: added to the Hessian's diagonal.
        lissa: how long. H_j is the Hessian over the j-th minibatch.
    """

    def __init__(self, model: nn.Module, x: Images, y: Labels, damping: float, lissa: Lissa) -> None:
        super().__init__()
        self.model, self.damping, self.lissa = model, damping, lissa
        self.register_buffer("x", x, persistent=False)
        self.register_buffer("y", y, persistent=False)

    @torch.no_grad()
    def forward(self, x: Images, y: Labels) -> Tensor:
        """Of each training image on the loss at each of x with labels y, shape (b, n)."""
        return torch.stack([self._of(x[i : i + 1], y[i : i + 1]) for i in range(len(x))])

    def _of(self, x: Images, y: Labels) -> Tensor:
        weights = {name: p.detach() for name, p in self.model.named_parameters()}
        g = grad(lambda w: self._losses(w, x, y).mean())(weights)
        runs = [self._solved(weights, g, repeat) for repeat in range(self.lissa.repeats)]
        s = {name: torch.stack([run[name] for run in runs]).mean(0) / self.lissa.scale for name in weights}
        found = []
        for part, labels in zip(in_batches(self.get_buffer("x")), in_batches(self.get_buffer("y")), strict=True):
            # all g(z)' s of a batch at once: sum_i u_i g(z_i)' s is linear in u
            def weighed(u: Tensor, part: Tensor = part, labels: Tensor = labels) -> Tensor:
                return _dot(grad(lambda w: (u * self._losses(w, part, labels)).sum())(weights), s)

            found.append(grad(weighed)(torch.ones_like(labels, dtype=part.dtype)))
        return torch.cat(found)

    def _solved(self, weights: Weights, g: Weights, repeat: int) -> Weights:
        x, y = self.get_buffer("x"), self.get_buffer("y")
        s = g
        for step in range(self.lissa.depth):
            rows = permutation(fold(repeat, step), len(x))[: self.lissa.batch].to(x.device)

            def along(w: Weights, rows: Tensor = rows, s: Weights = s) -> Tensor:
                return _dot(grad(lambda w: self._losses(w, x[rows], y[rows]).mean())(w), s)

            curved = grad(along)(weights)  # H s
            s = {name: g[name] + s[name] - (curved[name] + self.damping * s[name]) / self.lissa.scale for name in s}
        return s

    def _losses(self, weights: Weights, x: Images, y: Labels) -> PerExample:
        return F.cross_entropy(functional_call(self.model, weights, (x,)), y, reduction="none")


def _dot(a: Weights, b: Weights) -> Tensor:
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()
