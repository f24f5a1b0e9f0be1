"""The handwritten digits that come with scikit-learn: 1,797 real scans of 8x8 pixels, so that nothing needs a download.

They are the test images of "Optical recognition of handwritten digits" (Alpaydin and Kaynak, 1998,
https://archive.ics.uci.edu/dataset/80): each pixel counts the ink in a 4x4 block, from 0 to 16.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from awnet.data.augment import Augment
from awnet.data.dataset import Dataset
from awnet.data.source import Form, Source
from awnet.errors import Mistake

LARGEST = 256  # pixels a side
_AUGMENT = Augment(padding=1, flip=False)  # a mirrored digit is none


@dataclass(frozen=True)
class Digits(Source):
    """Grey 8x8 images of ten classes; all are training images, from which the test images are cut."""

    name: str = "digits"
    augment: Augment = _AUGMENT

    def read(self, form: Form) -> tuple[Dataset, Dataset | None]:
        from sklearn.datasets import load_digits

        ink, digits = load_digits(return_X_y=True)
        images = np.round(np.asarray(ink) * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
        size = form.image_size or 8
        if size > LARGEST:
            raise Mistake(f"digits are scans of 8x8 pixels, expected an image_size up to {LARGEST}, got {size}")
        shape = (3 if form.channels == "rgb" else 1, size, size)
        if shape != (1, 8, 8):
            from PIL import Image

            from awnet.data.decode import fit

            images = np.stack([fit(Image.fromarray(image), shape, form.resize) for image in images[:, 0]])
        labels = torch.from_numpy(np.asarray(digits, np.int64))
        ids = torch.arange(len(labels))
        return Dataset(self.name, "train", torch.from_numpy(images), labels, ids, tuple("0123456789")), None
