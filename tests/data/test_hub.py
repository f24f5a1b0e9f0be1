"""Sets in the layout of the hub, read by its library from parquet files."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from awnet.data import DataConfig, load
from awnet.data.hub import HubSet
from awnet.data.source import Form
from awnet.errors import Mistake
from data.made import hub_files, scan

ROWS = [(scan(i), i % 2) for i in range(10)]


def png(seed: int, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    scan(seed, mode).save(file, "PNG")
    return file.getvalue()


def test_pixels_labels_ids_and_classes_are_those_of_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr("awnet.data.decode._CHUNK", 4)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "library")
    folder = hub_files(tmp_path / "pets", train=ROWS, test=ROWS[::-1][:3])
    splits = load(DataConfig(name="me/pets", data_dir=str(folder), validation=4))
    assert splits.train.name == "me/pets" and splits.train.classes == ("cat", "dog")
    assert sorted([*splits.train.ids.tolist(), *splits.validation.ids.tolist()]) == list(range(10))
    for part in (splits.train, splits.validation):
        for place, pixels, label in zip(part.ids, part.images, part.labels, strict=True):
            assert np.array_equal(pixels.permute(1, 2, 0), np.asarray(ROWS[place][0])) and label == ROWS[place][1]
    assert splits.test.ids.tolist() == [0, 1, 2] and splits.test.labels.tolist() == [1, 0, 1]
    assert np.array_equal(splits.test.images[0].permute(1, 2, 0), np.asarray(ROWS[9][0]))
    assert not (tmp_path / "library").exists()  # its copy of local files is of no use to anyone


@pytest.mark.parametrize("split", ["valid", "validation", "val"])
def test_the_validation_images_of_the_hub_serve_where_test_images_have_no_labels(tmp_path, split):
    unlabelled = [(scan(50), -1), (scan(51), -1)]
    hub_files(tmp_path / "pets/data", train=ROWS, test=unlabelled, **{split: ROWS[:3]})
    splits = load(DataConfig(name="me/pets", data_dir=str(tmp_path / "pets")))
    assert splits.test.split == "test" and len(splits.test) == 3
    assert np.array_equal(splits.test.images[2].permute(1, 2, 0), np.asarray(ROWS[2][0]))


def test_where_there_are_no_test_images_a_fifth_of_each_class_is_cut(tmp_path):
    folder = hub_files(tmp_path / "pets", train=ROWS)
    splits = load(DataConfig(name="me/pets", data_dir=str(folder), validation=0))
    assert splits.test.labels.tolist().count(0) == splits.test.labels.tolist().count(1) == 1
    assert sorted([*splits.train.ids.tolist(), *splits.test.ids.tolist()]) == list(range(10))


def test_plain_columns_of_bytes_and_words_will_do(tmp_path):
    words = ["owl", "cat", "dog", "cat"]
    table = pa.table({"image": [png(i, "L") for i in range(4)], "label": words})
    pq.write_table(table, tmp_path / "train.parquet")
    pq.write_table(table.slice(2), tmp_path / "test.parquet")
    splits = load(DataConfig(name="me/words", data_dir=str(tmp_path), validation=0))
    assert splits.train.classes == ("cat", "dog", "owl") and splits.train.shape == (1, 12, 12)
    assert splits.train.labels.tolist() == [2, 0, 1, 0] and splits.test.labels.tolist() == [1, 0]


def test_one_set_read_by_two_columns_is_two_sets(tmp_path):
    table = pa.table({"image": [png(i) for i in range(4)], "fine": [0, 1, 2, 3], "coarse": [0, 0, 1, 1]})
    (tmp_path / "pets").mkdir()
    pq.write_table(table, tmp_path / "pets/train.parquet")
    pq.write_table(table, tmp_path / "pets/test.parquet")
    fine, coarse = (
        HubSet(name="pets", hub_id="me/pets", label=label, folder=tmp_path / "pets").read(Form())[0]
        for label in ("fine", "coarse")
    )
    assert fine.labels.tolist() == [0, 1, 2, 3] and coarse.labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(fine.images, coarse.images)


def test_the_hub_is_asked_for_the_id_and_configuration_once(monkeypatch):
    import datasets

    asked = []

    def load_dataset(*args: object) -> datasets.DatasetDict:
        asked.append(args)
        features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
        columns = {"img": [image for image, _ in ROWS], "label": [label for _, label in ROWS]}
        return datasets.DatasetDict({"train": datasets.Dataset.from_dict(columns, features=features)})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    config = DataConfig(name="me/pets:cropped")
    first, second = load(config), load(config)
    assert asked == [("me/pets", "cropped")]
    assert first.train.fingerprint == second.train.fingerprint and second.train.name == "me/pets:cropped"


def test_images_are_found_by_the_names_of_their_files(tmp_path):
    """Among them those of ImageNet, which the hub's copy calls file_class.JPEG and others class/file.JPEG."""
    files = [{"bytes": png(i), "path": f"val_{i}_n0{i % 2}.JPEG"} for i in range(4)]
    table = pa.table({"image": pa.array(files), "label": [0, 1, 0, 1]})
    pq.write_table(table, tmp_path / "train.parquet")
    pq.write_table(table.slice(1), tmp_path / "test.parquet")
    test = load(DataConfig(name="me/net", data_dir=str(tmp_path), validation=0)).test
    assert test.called(["n01/val_3.JPEG", "val_1_n01.JPEG"]).ids.tolist() == [2, 0]
    with pytest.raises(Mistake, match=r"'n00/val_0.JPEG' names none of the 3 test images.* as 'val_1_n01.JPEG' is"):
        test.called(["n00/val_0.JPEG"])
