"""Folders of class folders, with images of every kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from awnet.data import DataConfig, load, load_split
from awnet.data.decode import fit, read_image
from awnet.errors import Mistake
from data.made import class_folders, scan


def test_without_splits_a_fifth_of_each_class_is_for_tests(tmp_path):
    images = {"dog": [scan(i) for i in range(10)], "cat": [scan(i) for i in range(100, 105)], ".hidden": [scan(0)]}
    folder = class_folders(tmp_path / "pets", images)
    (folder / "cat/.DS_Store").write_text("not an image")
    splits = load(DataConfig(name=str(folder), validation=3))
    assert splits.train.name == "pets" and splits.train.classes == ("cat", "dog")
    assert splits.test.labels.bincount().tolist() == [1, 2]
    assert (len(splits.train), len(splits.validation)) == (9, 3)
    assert len({int(i) for part in (splits.train, splits.validation, splits.test) for i in part.ids}) == 15
    for part in (splits.train, splits.validation, splits.test):
        for i, label, pixels in zip(part.ids.tolist(), part.labels.tolist(), part.images, strict=True):
            seed = 100 + i if label == 0 else i - 5  # cats come first
            assert np.array_equal(pixels.permute(1, 2, 0), np.asarray(scan(seed)))


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation"])
def test_a_test_folder_is_used_under_each_of_its_names(tmp_path, test):
    class_folders(tmp_path / "pets/train", {"cat": [scan(0), scan(1)], "dog": [scan(2), scan(3)], "owl": [scan(4)] * 2})
    class_folders(tmp_path / f"pets/{test}", {"dog/outdoors": [scan(5)], "owl": [scan(6)]})
    splits = load(DataConfig(name=str(tmp_path / "pets"), validation=2))
    assert splits.test.classes == ("cat", "dog", "owl") and splits.test.labels.tolist() == [1, 2]
    assert np.array_equal(splits.test.images[0].permute(1, 2, 0), np.asarray(scan(5)))
    assert len(splits.train) == 4


def test_grey_images_stay_grey_and_become_colour_beside_colour(tmp_path):
    grey = {name: [scan(i, "L"), scan(i + 5, "1")] for i, name in enumerate(("cat", "dog"))}
    folder = str(class_folders(tmp_path / "grey", grey))
    assert load(DataConfig(name=folder)).train.shape == (1, 12, 12)
    colour = load(DataConfig(name=folder, channels="rgb")).train
    assert colour.shape == (3, 12, 12) and torch.equal(colour.images[:, 0], colour.images[:, 1])
    mixed = class_folders(tmp_path / "mixed", {"cat": [scan(0, "L"), scan(1, "L")], "dog": [scan(2), scan(3)]})
    assert load(DataConfig(name=str(mixed))).train.shape == (3, 12, 12)
    assert load(DataConfig(name=str(mixed), channels="grey")).train.shape == (1, 12, 12)


def test_odd_sizes_are_cut_and_resized_to_the_size_asked_for(tmp_path):
    wide, tall = scan(0, width=40, height=20), scan(1, "L", width=9, height=31)
    folder = class_folders(tmp_path / "odd", {"cat": [wide] * 3, "dog": [tall] * 3})
    train = load(DataConfig(name=str(folder), image_size=10, validation=0)).train
    assert train.shape == (3, 10, 10)
    # the middle square of the wide image
    expected = wide.resize((10, 10), Image.Resampling.BICUBIC, box=(10, 0, 30, 20))
    assert np.array_equal(train.images[0].permute(1, 2, 0), np.asarray(expected))


def flat(mode: str, colour: object, **options: object) -> Image.Image:
    return Image.new(mode, (8, 8), colour, **options)


def palette() -> Image.Image:
    image = flat("P", 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    return image


def clear_palette() -> Image.Image:
    image = palette()
    image.info["transparency"] = 1
    return image


@pytest.mark.parametrize(
    ("image", "rgb", "grey"),
    [
        (flat("L", 77), (77, 77, 77), 77),
        (flat("1", 1), (255, 255, 255), 255),
        (flat("RGB", (10, 20, 30)), (10, 20, 30), 18),
        (flat("RGBA", (10, 20, 30, 255)), (10, 20, 30), 18),
        (flat("RGBA", (10, 20, 30, 0)), (255, 255, 255), 255),
        (flat("RGBA", (10, 20, 30, 51)), (206, 208, 210), 208),
        (flat("LA", (0, 0)), (255, 255, 255), 255),
        (palette(), (10, 20, 30), 18),
        (clear_palette(), (255, 255, 255), 255),
        (flat("CMYK", (255, 0, 0, 0)), (0, 255, 255), 179),
        (Image.fromarray(np.full((8, 8), 0x4D01, np.uint16)), (77, 77, 77), 77),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else str(value),
)
def test_every_kind_of_pixel_becomes_eight_bits(image, rgb, grey):
    assert (fit(image, (3, 8, 8)) == np.array(rgb)[:, None, None]).all()
    assert (fit(image, (1, 8, 8)) == grey).all()


def test_a_photo_is_turned_upright(tmp_path):
    photo = scan(0, width=20, height=10)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    folder = class_folders(tmp_path / "turned", {"cat": [scan(i, width=10, height=20) for i in range(2)], "dog": []})
    for i in range(2):
        photo.save(folder / f"dog/{i}.png", exif=exif)
    splits = load(DataConfig(name=str(folder), validation=0))
    assert splits.train.shape == (3, 20, 10)
    assert np.array_equal(splits.train.images[1].permute(1, 2, 0), np.rot90(np.asarray(photo), -1))


def test_chunks_do_not_matter(tmp_path, monkeypatch):
    images = {"cat": [scan(i) for i in range(9)], "dog": [scan(i) for i in range(20, 25)]}
    folder = class_folders(tmp_path / "pets", images)
    whole = load(DataConfig(name=str(folder), channels="grey"))
    monkeypatch.setattr("awnet.data.decode._CHUNK", 4)
    monkeypatch.setattr("awnet.data.decode._PIECE", 3)
    monkeypatch.setenv("AWNET_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert load(DataConfig(name=str(folder), channels="grey")).train.fingerprint == whole.train.fingerprint


def test_one_image_is_read_as_a_sets_images_are(tmp_path):
    scan(0, width=20, height=10).save(tmp_path / "one.png")
    expected = fit(scan(0, width=20, height=10), (1, 8, 8))
    assert np.array_equal(read_image(tmp_path / "one.png", (1, 8, 8)), expected)
    with pytest.raises(Mistake, match=r"there is no image file .*two\.png"):
        read_image(tmp_path / "two.png", (1, 8, 8))


def test_a_folder_without_splits_is_a_test_set_as_a_whole(tmp_path):
    folder = class_folders(
        tmp_path / "pets", {"cat": [scan(i) for i in range(4)], "dog": [scan(i) for i in range(4, 9)]}
    )
    whole = load_split(DataConfig(name=str(folder)), "all")
    assert whole.split == "all" and whole.labels.tolist() == [0] * 4 + [1] * 5
    assert np.array_equal(whole.images[6].permute(1, 2, 0), np.asarray(scan(6)))
    test = load_split(DataConfig(name=str(folder)), "test")
    assert test.split == "test" and len(test) == 2
    class_folders(tmp_path / "both/train", {"cat": [scan(0), scan(1)], "dog": [scan(2), scan(3)]})
    class_folders(tmp_path / "both/val", {"cat": [scan(0)], "dog": [scan(2)]})
    with pytest.raises(Mistake, match="both has training and test images of its own; choose one of the splits"):
        load_split(DataConfig(name=str(tmp_path / "both")), "all")


def test_images_are_found_by_their_folder_and_name_and_by_the_name_alone_where_it_is_one(tmp_path):
    folder = class_folders(
        tmp_path / "pets", {"cat": [scan(i) for i in range(3)], "dog": [scan(i) for i in range(4, 9)]}
    )
    config = DataConfig(name=str(folder))
    assert load_split(config, "all").called(["dog/1.png", "cat/1.png", "4.png"]).ids.tolist() == [4, 1, 7]
    for split in ("train", "validation", "test"):  # by the ids of the whole
        part = load_split(config, split)
        name = f"cat/{part.ids[0]}.png" if part.ids[0] < 3 else f"dog/{part.ids[0] - 3}.png"
        assert part.called([name]).ids.tolist() == [int(part.ids[0])]
    for name, says in ("1.png", "names 2 of the 8"), ("cat/7.png", "names none of the 8"), ("", "names none"):
        with pytest.raises(Mistake, match=says):
            load_split(config, "all").called([name])
    digits = load_split(DataConfig(), "test")
    with pytest.raises(Mistake, match="they have no names"):
        digits.called(["3/1.png"])


@pytest.mark.parametrize(
    ("size", "resized", "box"),
    [
        ((32, 40), (16, 20), (2, 4, 14, 16)),
        ((41, 30), (21, 16), (4, 2, 16, 14)),  # 21.9 is 21, and of the nine left over four are before
        ((16, 16), (16, 16), (2, 2, 14, 14)),
    ],
)
def test_the_middle_is_cut_after_resizing_as_torchvision_does(tmp_path, size, resized, box):
    """Resize(16), then CenterCrop(12)."""
    image = scan(3, width=size[0], height=size[1])
    expected = image.resize(resized, Image.Resampling.BICUBIC).crop(box)
    assert np.array_equal(fit(image, (3, 12, 12), 16).transpose(1, 2, 0), np.asarray(expected))
    folder = class_folders(tmp_path / "pets", {"cat": [image, scan(4)], "dog": [scan(5), scan(6)]})
    whole = load_split(DataConfig(name=str(folder), image_size=12, resize=16), "all")
    assert np.array_equal(whole.images[0].permute(1, 2, 0), np.asarray(expected))


@pytest.mark.parametrize("sizes", [{"resize": 16}, {"resize": 8, "image_size": 12}, {"resize": 9000, "image_size": 8}])
def test_images_are_resized_to_no_less_than_is_cut_out(sizes):
    with pytest.raises(Mistake, match="expected image_size too and from it up to 8192, got resize="):
        DataConfig(**sizes)
