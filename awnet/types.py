"""Shapes as types. They document, and are checked while the tests run (see tests/conftest.py)."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

Images = Float[Tensor, "b c h w"]  # pixels in [0, 1]
Labels = Int[Tensor, " b"]
Logits = Float[Tensor, "b k"]
PerExample = Float[Tensor, " b"]  # a loss, a score, a probability
Hits = Bool[Tensor, " b"]
Signals = Float[Tensor, "b c"]  # one omega for each output filter of one convolution
