"""Small sets for the tests, in memory and on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from awnet.data import Dataset
from awnet.noise import Noise


def scan(seed: int, mode: str = "RGB", width: int = 12, height: int = 12) -> Image.Image:
    """Pixels drawn by `seed`, in one of Pillow's modes."""
    bits = Noise(seed, torch.arange(1)).bits(0, (height, width, 4))[0].numpy()
    rgba = (bits & 255).astype(np.uint8)
    if mode == "RGBA":
        return Image.fromarray(rgba)
    return Image.fromarray(rgba[..., :3]).convert(mode)


def class_folders(root: Path, images: Mapping[str, Sequence[Image.Image]]) -> Path:
    """`root` with a folder for each class, of lossless files."""
    for name, members in images.items():
        (root / name).mkdir(parents=True)
        for i, image in enumerate(members):
            image.save(root / name / f"{i}.png")
    return root


def small_set(n: int = 10, size: int = 8, channels: int = 3, classes: int = 2) -> Dataset:
    """n images of drawn pixels."""
    ids = torch.arange(n)
    images = (Noise(0, ids).bits(0, (channels, size, size)) & 255).to(torch.uint8)
    return Dataset("small", "train", images, ids % classes, ids, tuple("abcdefgh"[:classes]))


def hub_files(
    folder: Path, *, names: Sequence[str] = ("cat", "dog"), **splits: Sequence[tuple[Image.Image, int]]
) -> Path:
    """`folder` with a parquet file for each split, as the hub serves a set with columns img and label."""
    import datasets

    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=list(names))})
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        columns = {"img": [image for image, _ in rows], "label": [label for _, label in rows]}
        table = datasets.Dataset.from_dict(columns, features=features)
        table.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder
