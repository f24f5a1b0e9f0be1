"""Images and labels: sets by name, their splits, augmentation and batches."""

from awnet.data.augment import Augment, crop_and_flip
from awnet.data.dataset import Dataset, Splits
from awnet.data.load import DATASETS, DataConfig, load, load_split
from awnet.data.loader import Batch, Loader

__all__ = [
    "DATASETS",
    "Augment",
    "Batch",
    "DataConfig",
    "Dataset",
    "Loader",
    "Splits",
    "crop_and_flip",
    "load",
    "load_split",
]
