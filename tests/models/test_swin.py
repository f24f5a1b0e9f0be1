"""Swin's window attention against its definition in plain loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from awnet.models.swin import WindowAttention


def by_loops(attention: WindowAttention, x: Tensor, shift: int) -> Tensor:
    """Each token attends to those of its window that are its neighbours in the image, with a bias by how they lie."""
    b, h, w, width = x.shape
    side, heads = attention.window, attention.heads
    rows, columns = min(side, h), min(side, w)
    high, wide = h + -h % rows, w + -w % columns

    def place(i: int, j: int) -> tuple[tuple[int, int, bool, bool], tuple[int, int]]:
        """The window, told apart by what the roll has brought over the edge, and the place in it."""
        row, column = (i - shift) % high, (j - shift) % wide
        return (row // rows, column // columns, i < shift, j < shift), (row % rows, column % columns)

    q, k, v = attention.qkv(x).unflatten(-1, (3, heads, -1)).permute(3, 0, 1, 2, 4, 5)
    out = torch.zeros(b, h, w, heads, width // heads, dtype=x.dtype)
    tokens = [(i, j, *place(i, j)) for i in range(h) for j in range(w)]
    for i, j, window, (row, column) in tokens:
        near = [(m, n, at) for m, n, other, at in tokens if other == window]
        scores = []
        for m, n, (down, right) in near:
            bias = attention.bias[(row - down + side - 1) * (2 * side - 1) + column - right + side - 1]
            scores.append((q[:, i, j] * k[:, m, n]).sum(-1) / (width // heads) ** 0.5 + bias)
        weights = torch.stack(scores, -1).softmax(-1)
        out[:, i, j] = sum((weights[..., t, None] * v[:, m, n] for t, (m, n, _) in enumerate(near)), torch.zeros(()))
    return attention.out(out.flatten(3))


@pytest.mark.parametrize(
    ("h", "w", "window", "shift"), [(8, 8, 4, 0), (8, 8, 4, 2), (6, 10, 4, 2), (3, 3, 4, 0), (5, 7, 3, 1)]
)
def test_attention_by_loops(h: int, w: int, window: int, shift: int):
    attention = WindowAttention(8, 2, window).double()
    nn.init.normal_(attention.bias, generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, h, w, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(attention(x, shift), by_loops(attention, x, shift))


def test_it_keeps_nothing_of_where_it_was_first_asked():
    """Tensors of inference mode, or those with which an export traces, would serve nobody else."""
    attention = WindowAttention(8, 2, 3)
    x = torch.rand(1, 5, 7, 8)
    with torch.inference_mode():
        attention(x, 1)
    torch.export.export(attention, (x, 1))
    out = attention(x, 1)
    out.sum().backward()
    assert type(out) is Tensor and all(p.grad is not None for p in attention.parameters())
