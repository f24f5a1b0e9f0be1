"""LNG-style: a latent neighbourhood graph (after Abusnaina et al., ICCV 2021, "Adversarial example detection using latent
neighborhood graph").

No code of LNG is public and its text was not at hand. What is known, from its abstract and from those who restate it: the
image's embedding and those of clean and attacked reference images near it are the nodes of a graph; edges come from distances
through parameters that are learned; a graph attention network decides. The rest is our choice, so a figure of this detector is
not one of LNG: references are the pairs the detector is fitted on (an image's own pair is hidden from it then), the nearest
clean ones and their attacked versions; edges are sigmoid(a - b distance), those of the image itself are 1; two layers of graph
attention (Velickovic et al., 2018, https://arxiv.org/abs/1710.10903) with one head, to whose scores log(edge) is added; Adam on
the cross-entropy.

With the references as they are, all is differentiable.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from awnet.config import setting
from awnet.detection.detector import DETECTORS, Detector, DetectorConfig, Known
from awnet.detection.layers import Embedding
from awnet.errors import Mistake
from awnet.noise import fold
from awnet.types import Images, PerExample

KINDS = 3  # of nodes: the image, clean references, attacked references


@setting
@dataclass(frozen=True, kw_only=True)
class LNG(DetectorConfig):
    """A graph of neighbours, and a small network that reads it.

    Args:
        neighbours: clean references, each with its attacked version; 20 make about the 40 nodes that LNG is said to have.
        hidden: features of a node within the network.
        steps: of Adam, each over all images.
        lr: of Adam.
        seed: of the network's first weights.
    """

    neighbours: int = 20
    hidden: int = 16
    steps: int = 200
    lr: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.neighbours, self.hidden, self.steps) < 1 or not 0 < self.lr < inf:
            raise Mistake(
                "LNG needs at least one neighbour, hidden feature and step, and a positive lr; got "
                f"neighbours={self.neighbours}, hidden={self.hidden}, steps={self.steps} and lr={self.lr:g}"
            )

    def fitted(self, model: nn.Module, known: Known) -> Detector:
        if len(known.clean) <= self.neighbours:
            raise Mistake(f"LNG looks for {self.neighbours} other images among {len(known.clean)}; give it more")
        embedding = Embedding(model, known.clean)
        clean, attacked = (embedding.all(x)[1] for x in (known.clean, known.attacked))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(fold(self.seed) % 2**63)
            reader = GraphReader(clean.shape[1], self.hidden).to(clean.device)
        detector = LNGDetector(model, embedding, clean, attacked, self.neighbours, reader)
        detector.learn(self.steps, self.lr)
        return detector


class GraphReader(nn.Module):
    """Graph attention over nodes (b, m, f), of which the first is judged by its log-odds of clean."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.edge = nn.Parameter(torch.tensor([1.0, 1.0]))
        self.layers = nn.ModuleList(Attention(n, hidden) for n in (features + KINDS, hidden))
        self.head = nn.Linear(hidden, 1)

    def forward(self, nodes: Tensor, distances: Tensor) -> PerExample:
        near, slope = self.edge
        log_edges = F.logsigmoid(near - slope * distances)
        joined = torch.ones_like(log_edges[0], dtype=torch.bool).fill_diagonal_(False)
        joined[0], joined[:, 0] = False, False
        log_edges = log_edges * joined  # log 1 for the image itself and for each node with itself
        m = nodes.shape[1]
        kind = torch.tensor([0] + [1] * (m // 2) + [2] * (m // 2), device=nodes.device)
        out = torch.cat([nodes, F.one_hot(kind, KINDS).to(nodes).expand(len(nodes), -1, -1)], dim=2)
        for layer in self.layers:
            out = layer(out, log_edges)
        return self.head(out[:, 0])[:, 0]


def apart(nodes: Tensor) -> Tensor:
    """How far the nodes of a graph are from each other, root mean square, (b, m, m)."""
    return torch.cdist(nodes, nodes, compute_mode="donot_use_mm_for_euclid_dist") / nodes.shape[2] ** 0.5


class Attention(nn.Module):
    """elu(sum_j a_ij W h_j), a_i = softmax_j(leaky(u' W h_i + v' W h_j) + log edge_ij)."""

    def __init__(self, n: int, hidden: int) -> None:
        super().__init__()
        self.project = nn.Linear(n, hidden)
        self.scores = nn.Linear(hidden, 2, bias=False)

    def forward(self, nodes: Tensor, log_edges: Tensor) -> Tensor:
        h = self.project(nodes)
        own, other = self.scores(h).unbind(2)
        scores = F.leaky_relu(own[:, :, None] + other[:, None], 0.2) + log_edges
        return F.elu(scores.softmax(2) @ h)


class LNGDetector(Detector):
    """Reads the graph around an image, once it has learned to."""

    def __init__(
        self,
        model: nn.Module,
        embedding: Embedding,
        clean: Tensor,
        attacked: Tensor,
        neighbours: int,
        reader: GraphReader,
    ) -> None:
        super().__init__(model)
        self.embedding, self.neighbours, self.reader = embedding, neighbours, reader
        self.register_buffer("centre", clean.mean(0), persistent=False)
        self.register_buffer("scale", clean.std(0).clamp(min=1e-6), persistent=False)
        self.register_buffer("clean", self._standard(clean), persistent=False)
        self.register_buffer("attacked", self._standard(attacked), persistent=False)

    def learn(self, steps: int, lr: float) -> None:
        """Train the reader on the references themselves, each without its own pair."""
        clean, attacked = self.get_buffer("clean"), self.get_buffer("attacked")
        own = torch.arange(len(clean), device=clean.device)
        nodes = torch.cat([self.graph(clean, own), self.graph(attacked, own)])
        distances = apart(nodes)
        is_clean = torch.cat([torch.ones(len(clean)), torch.zeros(len(attacked))]).to(nodes)
        optimizer = torch.optim.Adam(self.reader.parameters(), lr=lr)
        with torch.enable_grad():
            for _ in range(steps):
                optimizer.zero_grad()
                F.binary_cross_entropy_with_logits(self.reader(nodes, distances), is_clean).backward()
                optimizer.step()
        self.reader.requires_grad_(False)

    def score(self, x: Images) -> PerExample:
        nodes = self.graph(self._standard(self.embedding(x)[1]))
        return self.reader(nodes, apart(nodes))

    def graph(self, embedded: Tensor, own: Tensor | None = None) -> Tensor:
        """The image, its nearest clean references in order, and their attacked versions, (b, 1 + 2 neighbours, f).

        Args:
            embedded: shape (b, f).
            own: which reference each is itself, to be left out.
        """
        clean, attacked = self.get_buffer("clean"), self.get_buffer("attacked")
        distances = torch.cdist(embedded.detach(), clean)
        if own is not None:
            distances[torch.arange(len(own), device=own.device), own] = inf
        nearest = distances.topk(self.neighbours, largest=False).indices
        return torch.cat([embedded[:, None], clean[nearest], attacked[nearest]], dim=1)

    def _standard(self, embedded: Tensor) -> Tensor:
        return (embedded - self.get_buffer("centre")) / self.get_buffer("scale")


DETECTORS.register("lng-style")(LNG())
