"""Image files of any kind become uint8 arrays of one size.

Imported only where images are decoded, as Pillow is slow to import.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from awnet.data.source import LARGEST, SMALLEST, Channels, Encoded, File
from awnet.errors import Mistake

T = TypeVar("T")
_CHUNK, _PIECE = 256, 16  # images in memory at a time, and those that one thread takes at once
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")  # some others start programs
_GREY = {"1", "L", "LA", "I;16", "I;16L", "I;16B"}
_ORIENTATION = 0x0112  # the EXIF tag


def common_shape(
    name: str, splits: Iterable[Encoded], image_size: int | None, channels: Channels
) -> tuple[int, int, int]:
    """The (c, h, w) that all images of a set will have, from their headers; nothing is decoded.

    Args:
        name: of the set, for messages.
        splits: all of the set's images.
        image_size: the side of the square images wanted; None keeps the set's own size.
        channels: "keep" is grey where all images are, and otherwise RGB.

    Raises:
        Mistake: where sizes differ or are below 8 pixels and no `image_size` is given, or a file is no image.
    """
    sizes: Counter[tuple[int, int]] = Counter()
    all_grey = True
    for split in splits:
        for _, chunk in _each(_header, split):
            sizes.update(size for size, _ in chunk)
            all_grey &= all(grey for _, grey in chunk)
    c = {"keep": 1 if all_grey else 3, "grey": 1, "rgb": 3}[channels]
    if image_size is not None:
        return c, image_size, image_size
    if len(sizes) > 1:
        raise Mistake(f"the images of {name} have {len(sizes)} sizes ({_listed(sizes)}); choose one with image_size")
    (w, h), *_ = sizes
    if min(w, h) < SMALLEST:
        raise Mistake(
            f"the images of {name} are {w}x{h}, expected {SMALLEST} pixels a side; enlarge them with image_size"
        )
    return c, h, w


def decoded(
    split: Encoded, shape: tuple[int, int, int], resize: int | None = None
) -> Iterator[tuple[list[File], np.ndarray]]:
    """The images in order, in chunks: the files, and uint8 of shape (m, c, h, w) for m of them at a time.

    Raises:
        Mistake: where a file cannot be decoded; it is named.
    """
    for files, chunk in _each(lambda file: _pixels(file.said, file.content, shape, resize), split):
        yield files, np.stack(chunk)


def fit(image: Image.Image, shape: tuple[int, int, int], resize: int | None = None) -> np.ndarray:
    """An image as uint8 of shape (c, h, w).

    It keeps its proportions: the middle is cut out and resized (bicubic, antialiased). Transparent parts become white.

    Args:
        image: of any size and mode.
        shape: (c, h, w) that it is to have.
        resize: the shorter side that it is resized to before h x w pixels are cut from its middle, as networks for ImageNet
            are usually judged (256 pixels, then 224); by default what is cut is as much as fits.
    """
    c, h, w = shape
    if image.mode.startswith("I;16"):  # Pillow would clip 16 bits to 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    image = image.convert("L" if c == 1 else "RGB")
    if resize is not None:
        image = _middle(image, w, h, resize)
    if image.size != (w, h):
        image = ImageOps.fit(image, (w, h), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(h, w, c).transpose(2, 0, 1)


def _middle(image: Image.Image, w: int, h: int, resize: int) -> Image.Image:
    """The middle of an image that is resized, to whole pixels, as torchvision rounds them: Resize, then CenterCrop."""
    shorter = min(image.size)
    size = tuple(resize if side == shorter else int(resize * side / shorter) for side in image.size)
    image = image.resize((size[0], size[1]), Image.Resampling.BICUBIC)
    left, top = round((image.width - w) / 2), round((image.height - h) / 2)
    return image.crop((left, top, left + w, top + h))


def read_image(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """One image file in the form that a network takes: uint8 of shape (c, h, w), fitted as a set's images are.

    Raises:
        Mistake: where there is no such file or it is not an image.
    """
    if not path.is_file():
        raise Mistake(f"there is no image file {path}")
    return _pixels(str(path), path, shape)


def _each(read: Callable[[File], T], split: Encoded) -> Iterator[tuple[list[File], list[T]]]:
    n = len(split.labels)
    with ThreadPoolExecutor() as pool:
        for start in range(0, n, _CHUNK):
            files = split.files(start, min(start + _CHUNK, n))
            pieces = [files[i : i + _PIECE] for i in range(0, len(files), _PIECE)]
            run = map if _small(files[0].content) else pool.map
            done = run(lambda piece: [read(file) for file in piece], pieces)
            yield files, [item for piece in done for item in piece]


def _small(content: Path | bytes) -> bool:
    return isinstance(content, bytes) and len(content) < 1 << 14  # threads would spend their time on Python's lock


@contextmanager
def _opened(name: str, content: Path | bytes) -> Iterator[Image.Image]:
    try:
        with Image.open(BytesIO(content) if isinstance(content, bytes) else content, formats=_FORMATS) as image:
            if image.width * image.height > LARGEST**2:
                raise Mistake(
                    f"{name} claims {image.width}x{image.height} pixels, more than {LARGEST}x{LARGEST}; leave it out"
                )
            if image.mode in ("I", "F"):
                raise Mistake(
                    f"{name} has {image.mode!r} pixels, whose range is unknown; convert it to 8 bits a channel"
                )
            yield image
    except Mistake:
        raise
    except UnidentifiedImageError as error:
        raise Mistake(f"{name} is not an image of a known kind") from error
    except Exception as error:  # broken files make Pillow raise nearly anything
        raise Mistake(f"{name} cannot be read as an image: {error}") from error


def _header(file: File) -> tuple[tuple[int, int], bool]:
    with _opened(file.said, file.content) as image:
        w, h = image.size
        turned = "exif" in image.info and image.getexif().get(_ORIENTATION, 1) >= 5
        return (h, w) if turned else (w, h), image.mode in _GREY


def _pixels(name: str, content: Path | bytes, shape: tuple[int, int, int], resize: int | None = None) -> np.ndarray:
    with _opened(name, content) as image:
        upright = ImageOps.exif_transpose(image) if "exif" in image.info else image
        return fit(upright, shape, resize)


def _listed(sizes: Counter[tuple[int, int]]) -> str:
    common = [f"{w}x{h}" for (w, h), _ in sizes.most_common(3)]
    return ", ".join(common) + (", …" if len(sizes) > 3 else "")
