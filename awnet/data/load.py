"""Sets by name: what `--data` chooses from, and the splits that come out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from awnet.config import setting
from awnet.data.augment import Augment
from awnet.data.dataset import Dataset, Split, Splits, cut
from awnet.data.digits import Digits
from awnet.data.folder import ClassFolders
from awnet.data.hub import HubSet
from awnet.data.source import LARGEST, SMALLEST, Channels, Form, Source
from awnet.errors import Mistake, unknown
from awnet.noise import permutation
from awnet.registry import Registry

DATASETS: Registry[Source] = Registry("data set")
for _set in (
    Digits(),
    HubSet(
        name="cifar10",
        hub_id="uoft-cs/cifar10",
        folders=("cifar10/plain_text", "cifar10"),
        augment=Augment(),
        classes=10,
    ),
    HubSet(
        name="cifar100",
        hub_id="uoft-cs/cifar100",
        folders=("cifar100/cifar100", "cifar100"),
        label="fine_label",
        augment=Augment(),
        classes=100,
    ),
    HubSet(
        name="tiny-imagenet",
        hub_id="zh-plus/tiny-imagenet",
        folders=("tiny-imagenet/data", "tiny-imagenet", "tiny-imagenet-20/data", "tiny-imagenet-20"),
        augment=Augment(),
        classes=200,
    ),
):
    DATASETS.register(_set.name)(_set)


@setting
@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, and how they are split.

    Raises:
        Mistake: where a value is out of its range.
    """

    name: str = "digits"
    """A named set, a set of the Hugging Face hub ("owner/name", or "owner/name:configuration"), or the path of a folder
    of class folders."""
    data_dir: str | None = None
    """The folder of a set's files, in the hub's layout; by default they are sought in AWNET_DATA_DIR, then on the hub."""
    image_size: int | None = None
    """The side of the square images, in pixels; the set's own by default."""
    resize: int | None = None
    """The shorter side, in pixels, that images are resized to before image_size is cut from their middle, as 256 before 224
    for networks of ImageNet; by default the middle is as large as fits."""
    channels: Channels = "keep"
    """Grey images, RGB images, or what the set has (RGB where it has both)."""
    validation: float = 0.1
    """How much of the training images is cut off for validation: a fraction below 1, or a number of images from 2 up
    (1 could mean one of them or all)."""
    split_seed: int = 0
    """Chooses the validation images."""
    padding: int | None = None
    """Training images are moved by up to this many pixels; the set's own by default."""
    flip: bool | None = None
    """Whether half of the training images are mirrored; the set's own by default."""

    def __post_init__(self) -> None:
        if self.image_size is not None and not SMALLEST <= self.image_size <= LARGEST:
            raise Mistake(f"image_size counts pixels a side, expected {SMALLEST} to {LARGEST}, got {self.image_size}")
        if self.resize is not None and not (self.image_size or LARGEST + 1) <= self.resize <= LARGEST:
            raise Mistake(
                f"images are resized to so many pixels before image_size is cut out of them, expected image_size too and "
                f"from it up to {LARGEST}, got resize={self.resize} and image_size={self.image_size}"
            )
        if not (0 <= self.validation < 1 or self.validation % 1 == 0 < self.validation - 1):
            raise Mistake(f"validation is a fraction below 1, or a number of images from 2 up, got {self.validation:g}")
        if self.padding is not None:
            Augment(padding=self.padding)

    @property
    def augment(self) -> Augment:
        """What is done to training images: the set's own settings, where none are given here."""
        own = _source(self.name).augment
        return Augment(
            padding=own.padding if self.padding is None else self.padding,
            flip=own.flip if self.flip is None else self.flip,
        )


def load(config: DataConfig) -> Splits:
    """The training, validation and test images of a set.

    Test images are those that the set brings; where it has none with labels, a fifth of each class is cut from its
    training images, always the same. Validation images are cut from the training images by `split_seed`. Images are
    decoded when a set is first loaded in this form, and memory mapped from then on.

    Raises:
        Mistake: where there is no such set, its files are missing or damaged, its images have several sizes and no
            `image_size` is given, or the validation images leave none to train on.
    """
    train, test = _read(config)
    if test is None:
        train, test = cut(train, _fifth_of_each_class(train.labels), "train", "test")
    n = len(train)
    count = _count(config.validation, n)
    if count >= n or len(test) == 0:
        raise Mistake(
            f"{train.name} is too small: of {n} training and {len(test)} test images, {count} would be for validation"
        )
    return Splits(*cut(train, permutation(config.split_seed, n)[:count], "train", "validation"), test)


def load_split(config: DataConfig, split: Split) -> Dataset:
    """The images of one split; "all" are those of a set without splits, such as a folder of ImageNet's validation images.

    Raises:
        Mistake: as `load` does, or all are asked for and the set has test images of its own.
    """
    if split != "all":
        return getattr(load(config), split)
    whole, test = _read(config)
    if test is not None:
        raise Mistake(f"{whole.name} has training and test images of its own; choose one of the splits")
    return whole.subset(torch.arange(len(whole)), "all")


def _read(config: DataConfig) -> tuple[Dataset, Dataset | None]:
    form = Form(image_size=config.image_size, channels=config.channels, resize=config.resize)
    return _source(config.name).located(config.data_dir).read(form)


def _count(validation: float, n: int) -> int:
    if validation >= 1:
        return int(validation)
    return max(1, round(validation * n)) if validation else 0


def _source(name: str) -> Source:
    if name in DATASETS:
        return DATASETS[name]
    folder = Path(name).expanduser()
    if folder.is_dir():
        return ClassFolders(folder.resolve())
    for source in DATASETS.values():
        if isinstance(source, HubSet) and source.hub_id == name:
            return source
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(:[\w.-]+)?", name):
        hub_id, _, config = name.partition(":")
        return HubSet(name=name, hub_id=hub_id, config=config or None, folders=(hub_id, hub_id.split("/")[1]))
    if re.search(r"[/\\]|^[.~]", name):
        raise Mistake(
            f"there is no folder {folder}; expected a named set, an id on the hub, or a folder of class folders"
        )
    raise unknown("data set", name, DATASETS)


def _fifth_of_each_class(labels: Tensor) -> Tensor:
    order = permutation(0, len(labels))
    by_class = order[labels[order].argsort(stable=True)].split(labels.bincount().tolist())
    # at least one image is taken and one is left, where a class has two
    return torch.cat(
        [places[: min(max(1, round(len(places) / 5)), len(places) - 1)] for places in by_class if len(places)]
    )
