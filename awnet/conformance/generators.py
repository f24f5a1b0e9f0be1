"""The global generators that code may draw from, and should not seed: torch's, NumPy's and Python's.

NumPy's old one is what others' code uses, so it is looked at here, and nowhere else.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """All of them from a seed while it lasts, and afterwards as they were."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        random.setstate(before[2])


def generator_states() -> dict[str, object]:
    """Where each of them stands, to be compared."""
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": np.random.get_state(legacy=False)["state"]["key"].tobytes(),  # noqa: NPY002
        "random": random.getstate(),
    }
