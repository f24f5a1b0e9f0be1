"""What all tests share: shapes checked at every call, one thread a worker, no network, real images where there are some."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before huggingface_hub is imported: no test may need the network
os.environ.setdefault("MPLBACKEND", "agg")

import jaxtyping
import pytest
import torch

# Before anything of awnet is imported.
jaxtyping.install_import_hook("awnet", "shape_checks.typecheck")

REPO = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)  # workers share the cores


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Weights and images that a test draws are the same in any order and on any worker."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images, in the hub's layout: cifar10/plain_text, cifar100/cifar100, tiny-imagenet-20/data."""
    if given := os.environ.get("AWNET_DATA_DIR"):
        assert Path(given).is_dir(), f"AWNET_DATA_DIR={given} is no folder"
        return Path(given)
    beside = REPO.parent / "shared" / "data"
    if not beside.is_dir():
        pytest.skip(f"no real images: AWNET_DATA_DIR is not set and there is no {beside}")
    return beside
