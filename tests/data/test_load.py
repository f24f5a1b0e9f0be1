"""Sets by name, their splits, and what is said where there are none."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from awnet.config import from_json, to_json
from awnet.data import DATASETS, Augment, DataConfig, load
from awnet.errors import Mistake
from data.made import class_folders, hub_files, scan


def test_digits_are_the_scans_of_scikit_learn():
    from sklearn.datasets import load_digits

    splits, scans = load(DataConfig()), load_digits()
    parts = (splits.train, splits.validation, splits.test)
    assert [part.split for part in parts] == ["train", "validation", "test"]
    assert [len(part) for part in parts] == [1294, 144, 359] and splits.train.shape == (1, 8, 8)
    assert torch.cat([part.ids for part in parts]).sort().values.tolist() == list(range(1797))
    for part in parts:
        assert np.array_equal(part.labels, scans.target[part.ids])
        x, _ = part.batch(torch.arange(len(part)))
        assert np.abs(x[:, 0].numpy() - scans.images[part.ids] / 16).max() <= 0.5 / 255 + 1e-6
    assert splits.test.ids.max() > 1700  # from all of the scans, not the first ones
    per_class = splits.test.labels.bincount() / torch.from_numpy(scans.target).bincount()
    assert ((per_class - 0.2).abs() < 0.01).all()


def test_the_validation_split_is_chosen_by_its_seed_and_the_test_split_is_not():
    first, again, other = (load(DataConfig(split_seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(first.validation.ids, again.validation.ids)
    assert not torch.equal(first.validation.ids, other.validation.ids)
    assert torch.equal(first.test.ids, other.test.ids)
    assert first.test.fingerprint == other.test.fingerprint != first.train.fingerprint != other.train.fingerprint


@pytest.mark.parametrize(("validation", "count"), [(0, 0), (0.1, 144), (0.25, 360), (2, 2), (300, 300), (1e-6, 1)])
def test_the_validation_split_has_the_size_asked_for(validation, count):
    splits = load(DataConfig(validation=validation))
    assert (len(splits.train), len(splits.validation)) == (1438 - count, count)


def test_digits_come_in_any_size_and_in_colour():
    own = load(DataConfig()).train
    large = load(DataConfig(image_size=32, channels="rgb")).train
    assert large.shape == (3, 32, 32) and torch.equal(large.ids, own.ids)
    assert torch.equal(large.images[:, 0], large.images[:, 2])
    shrunk = large.images[:, :1].float().unfold(2, 4, 4).unfold(3, 4, 4).mean((-1, -2))
    assert (shrunk - own.images.float()).abs().mean() < 12  # of 255: the same scans, smoothed


def test_augmentation_is_the_sets_own_unless_given():
    assert DataConfig().augment == Augment(padding=1, flip=False)
    assert DataConfig(name="cifar10").augment == Augment(padding=4, flip=True)
    assert DataConfig(name="uoft-cs/cifar10").augment == Augment(padding=4, flip=True)
    assert DataConfig(name="someone/signs").augment == Augment(padding=4, flip=False)
    assert DataConfig(name="cifar10", padding=0, flip=False).augment == Augment(padding=0, flip=False)


def test_a_config_survives_json():
    config = DataConfig(name="cifar100", validation=1000, padding=2, channels="grey")
    assert from_json(to_json(config), DataConfig) == config


def test_named_sets_know_where_they_are(tmp_path, monkeypatch):
    sets = tmp_path / "sets"
    one = hub_files(sets / "cifar10/plain_text", train=[(scan(i), i % 2) for i in range(8)], test=[(scan(9), 1)])
    hub_files(sets / "signs", train=[(scan(i), i % 2) for i in range(4)], test=[(scan(9), 0)])
    by_config = [load(DataConfig(name="cifar10", data_dir=str(at), validation=2)) for at in (sets, one, one.parent)]
    monkeypatch.setenv("AWNET_DATA_DIR", str(sets))
    by_environment = load(DataConfig(name="cifar10", validation=2))
    assert len({splits.train.fingerprint for splits in (*by_config, by_environment)}) == 1
    assert by_environment.train.name == "cifar10-2"  # not the ten classes of the name
    assert len(load(DataConfig(name="someone/signs", validation=0)).train) == 4


def test_importing_awnet_data_imports_nothing_slow():
    slow = {"datasets", "sklearn", "PIL", "pyarrow", "pandas", "torchvision"}
    code = f"import sys, awnet.data; assert not {slow!r} & set(sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (run.returncode, run.stderr) == (0, "")


def header(width: int, height: int) -> bytes:
    """The beginning of a PNG file that claims this size."""
    import zlib

    body = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    start = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    return start + (99).to_bytes(4, "big") + b"IDAT"


FIELDS = {
    "a size below 8": ({"image_size": 7}, "image_size counts pixels a side, expected 8 to 8192, got 7"),
    "an image above 8192": ({"image_size": 8193}, "expected 8 to 8192, got 8193"),
    "a fraction above 1": ({"validation": 1.5}, "a fraction below 1, or a number of images from 2 up, got 1.5"),
    "all or one image": ({"validation": 1.0}, "a number of images from 2 up, got 1"),
    "a negative fraction": ({"validation": -0.1}, "got -0.1"),
    "no number": ({"validation": float("nan")}, "got nan"),
    "negative padding": ({"padding": -1}, "padding counts pixels"),
}


@pytest.mark.parametrize("case", FIELDS)
def test_a_setting_out_of_range_is_a_mistake(case):
    fields, words = FIELDS[case]
    with pytest.raises(Mistake, match=words):
        replace(DataConfig(), **fields)


SETS = {
    "a misspelt name": ({"name": "cifar"}, "no data set is named 'cifar'; did you mean cifar10"),
    "no such folder": ({"name": "./pictures"}, "there is no folder pictures"),
    "no such set on the hub": (
        {"name": "awnet/no-such-set"},
        "awnet/no-such-set is no folder here and cannot be had from the hub .* data_dir, or .* AWNET_DATA_DIR",
    ),
    "no such data_dir": (
        {"name": "cifar10", "data_dir": "nowhere"},
        "the folder of cifar10, and there is no folder .*nowhere",
    ),
    "data_dir for digits": ({"data_dir": "."}, "data_dir is for the sets of the hub, and digits is none"),
    "validation takes all": ({"validation": 1438}, "too small: of 1438 training and 359 test images, 1438 would be"),
    "an empty data_dir": ({"name": "cifar10", "data_dir": "{empty}"}, "empty cannot be read as a data set"),
    "an empty folder": ({"name": "{empty}"}, "empty has 0 class folders"),
    "images beside class folders": ({"name": "{good}/cat"}, "cat has 0 class folders"),
    "a single class": ({"name": "{single}"}, "single has 1 class folders"),
    "an empty class": ({"name": "{hollow}"}, "hollow/dog has no images"),
    "text among the images": ({"name": "{text}"}, "text/dog/notes.txt is not an image of a known kind"),
    "an image that breaks off": ({"name": "{cut}"}, r"cut/dog/0.png cannot be read as an image: .*truncated"),
    "a claim of many pixels": ({"name": "{large}"}, "large/dog/0.png claims 9000x9000 pixels"),
    "a claim of absurdly many": ({"name": "{bomb}"}, "bomb/dog/0.png cannot be read as an image: .* pixels"),
    "pixels without a range": ({"name": "{floating}"}, "0.tif has 'F' pixels"),
    "sizes that differ": ({"name": "{sizes}"}, r"have 2 sizes \(12x12, 16x9\); choose one with image_size"),
    "images too small": ({"name": "{tiny}"}, "of tiny are 4x4, expected 8 pixels a side; enlarge them"),
    "a test class that is new": ({"name": "{strange}"}, "strange/test/cow is no class of the training images"),
    "a test folder without classes": ({"name": "{untested}"}, "untested/test has no class folders"),
    "one image a class": ({"name": "{few}"}, "few is too small: of 2 training and 0 test images"),
    "a parquet file that breaks off": (
        {"name": "a/b", "data_dir": "{broken}"},
        "test-00000-of-00001.parquet cannot be read",
    ),
    "no training split": ({"name": "a/b", "data_dir": "{no_train}"}, "no split 'train'; it has test"),
    "a column missing": (
        {"name": "cifar100", "data_dir": "{hub}"},
        "no column 'fine_label'; its columns are img, label",
    ),
    "a row that is no image": (
        {"name": "a/b", "data_dir": "{row}"},
        "image 1 of the train split of .*row is not an image",
    ),
    "a training image without label": ({"name": "a/b", "data_dir": "{unlabelled}"}, "image 1 .* has the label -1"),
    "several labels an image": ({"name": "a/b", "data_dir": "{several}"}, r"labels like \[0, 1\] in 'label'"),
}


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sets with which something is wrong."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = tmp_path_factory.mktemp("bad")
    cats, dogs = [scan(1), scan(2)], [scan(3), scan(4)]

    def pets(name: str) -> Path:
        return class_folders(root / name, {"cat": cats, "dog": dogs})

    def table(name: str, images: list[bytes], labels: list[object]) -> None:
        (root / name).mkdir()
        pq.write_table(pa.table({"image": images, "label": labels}), root / name / "train.parquet")

    pets("good")
    (root / "empty").mkdir()
    class_folders(root / "single", {"cat": cats})
    class_folders(root / "hollow", {"cat": cats, "dog": []})
    (pets("text") / "dog/notes.txt").write_text("a dog")
    whole = (pets("cut") / "dog/0.png").read_bytes()
    (root / "cut/dog/0.png").write_bytes(whole[: len(whole) // 2])
    (pets("large") / "dog/0.png").write_bytes(header(9_000, 9_000))
    (pets("bomb") / "dog/0.png").write_bytes(header(60_000, 60_000))
    scan(5, "F").save(pets("floating") / "dog/0.tif")
    scan(5, width=16, height=9).save(pets("sizes") / "dog/2.png")
    class_folders(root / "tiny", {name: [scan(6, width=4, height=4)] * 2 for name in ("cat", "dog")})
    pets("strange/train")
    class_folders(root / "strange/test", {"cow": cats})
    pets("untested/train")
    (root / "untested/test").mkdir()
    class_folders(root / "few", {"cat": cats[:1], "dog": dogs[:1]})
    rows = [(image, i % 2) for i, image in enumerate(cats + dogs)]
    path = hub_files(root / "broken", train=rows, test=rows) / "test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:300])
    hub_files(root / "no_train", test=rows)
    hub_files(root / "hub", train=rows, test=rows)
    png = (root / "good/cat/0.png").read_bytes()
    table("row", [png, b"nothing", png], [0, 1, 0])
    table("unlabelled", [png, png, png], [0, -1, 1])
    table("several", [png, png], [[0, 1], [1]])
    return root


@pytest.mark.parametrize("case", SETS)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_set_that_cannot_be_used_is_a_mistake(case, bad, cache, monkeypatch):
    monkeypatch.setattr("awnet.data.decode._CHUNK", 1)
    fields, words = SETS[case]
    filled = {key: value.format_map(Paths(bad)) if isinstance(value, str) else value for key, value in fields.items()}
    with pytest.raises(Mistake, match=words) as caught:
        load(DataConfig(**filled))
    assert "\n" not in str(caught.value)
    half_made = [path for path in cache.glob("data/*.*") if path.is_dir()]
    assert half_made == []


class Paths(dict[str, str]):
    def __init__(self, root: Path) -> None:
        self.root = root

    def __missing__(self, name: str) -> str:
        return str(self.root / name)


def test_data_dir_of_all_sets_must_exist(monkeypatch):
    monkeypatch.setenv("AWNET_DATA_DIR", "/nowhere")
    with pytest.raises(Mistake, match=r"AWNET_DATA_DIR should name a folder .* /nowhere"):
        load(DataConfig(name="cifar10"))
    assert "cifar10" in DATASETS and len(load(DataConfig()).train)  # digits need no files
