"""What all tests share: shapes checked, one thread a worker, no network, real images where there are some."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before huggingface_hub is imported: no test may need the network
os.environ.setdefault("MPLBACKEND", "agg")

import pytest
import torch

import shape_checks

shape_checks.install()  # before anything of awnet is imported

REPO = Path(__file__).resolve().parents[1]
TINY = ["--training.epochs", "1", "--model.width", "4", "--data.validation", "0.9"]


def pytest_configure() -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)  # workers share the cores


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # half a minute long: begun first, nobody waits for it at the end
    items.sort(key=lambda item: "test_killed_and_gone_on" not in item.name)
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Weights and images that a test draws are the same in any order and on any worker."""
    torch.manual_seed(0)
    shape_checks.calls.clear()


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


@pytest.fixture(scope="session")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a static network after one epoch; to be copied before it is changed."""
    from awnet.cli import main

    out = tmp_path_factory.mktemp("runs") / "static"
    main(["train", "digits/standard", *TINY, "--out", str(out)])
    return out


@pytest.fixture(scope="session")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an AW-Net after one epoch over PGD-AT; to be copied before it is changed."""
    from awnet.cli import main

    out = tmp_path_factory.mktemp("runs") / "dynamic"
    widths = ["--model.base.width", "4", "--model.router.backbone.width", "4", "--objective.over.steps", "1"]
    rest = ["--training.epochs", "1", "--data.validation", "0.9", "--selection.limit", "20"]
    main(["train", "digits/awnet-hard", *widths, *rest, "--out", str(out)])
    return out
