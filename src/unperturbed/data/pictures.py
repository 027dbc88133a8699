"""Encoded images (PNG, JPEG, ...) as a split: decoded on demand, and kept if memory holds them."""

import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unperturbed.data.split import Split
from unperturbed.errors import InputError
from unperturbed.types import Inputs, Labels, Rows

MEMORY_LIMIT = 2 * 2**30
"""The largest decoded split that is kept in memory, in bytes; a larger one is decoded on demand."""

MOST_PIXELS = 89_478_485
"""The largest image: Pillow's limit, beyond which it suspects an attack on the memory."""

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""Formats with decoders in Pillow; for a PostScript file of any name, Pillow would run its code by Ghostscript."""

GREY = ("1", "L", "LA")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_BLOCK = 1024
_PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_PLAIN = {b"\x08\x00": "L", b"\x08\x02": "RGB"}
"""Bits a sample and colour type in a PNG's header: Pillow's mode."""

Picture = bytes | Path
Pictures = Callable[[Sequence[int]], Sequence[Picture]]
"""The encoded images at these positions."""


class PictureSplit(Split):
    """Encoded images, decoded at every access."""

    eight_bit = True

    def __init__(self, pictures: Pictures, labels: Labels, size: tuple[int, int], mode: str, where: str) -> None:
        self.pictures, self.labels, self.mode, self.where = pictures, labels, mode, where
        self.shape = (1 if mode == "L" else 3, size[1], size[0])

    def inputs(self, ids: Rows) -> Inputs:
        """Return the images at these positions, float32 in [0, 1] of shape (len(ids), *shape)."""
        return self.decoded(ids.tolist()).float().div_(255)

    def decoded(self, ids: Sequence[int]) -> Tensor:
        """Return the images at these positions, uint8."""
        out = np.empty((len(ids), *self.shape), dtype=np.uint8)
        for row, (i, picture) in enumerate(zip(ids, self.pictures(ids), strict=True)):
            with _opened(picture, i, self.where) as image:
                try:
                    out[row] = pixels(image, self.mode, self.shape[1:])
                except Exception as error:  # decoders may raise anything on damaged files
                    name = _label(picture, i, self.where)
                    raise InputError(f"{name} is damaged ({error}): replace or remove it.") from error
        return torch.from_numpy(out)


class KeptPictures(PictureSplit):
    """Encoded images, decoded once, at the first access."""

    in_memory = True

    def __init__(self, pictures: Pictures, labels: Labels, size: tuple[int, int], mode: str, where: str) -> None:
        super().__init__(pictures, labels, size, mode, where)
        self._x = torch.empty((len(labels), *self.shape), dtype=torch.uint8)
        self._there = torch.zeros(len(labels), dtype=torch.bool)

    def inputs(self, ids: Rows) -> Inputs:
        """Return the images at these positions, float32 in [0, 1] of shape (len(ids), *shape)."""
        self.read(ids)
        return self._x[ids].float().div_(255)

    def read(self, ids: Rows) -> None:
        """Decode the images at these positions that are not decoded yet."""
        missing = torch.unique(ids[~self._there[ids]])
        for positions in torch.split(missing, _BLOCK):
            self._x[positions] = self.decoded(positions.tolist())
            self._there[positions] = True


def picture_split(pictures: Pictures, labels: Labels, where: str, resize: tuple[int, int] | None = None) -> Split:
    """Return encoded images and their labels as a split; `where` names their place in messages.

    With `resize` (height, width) images are resized, bilinearly and antialiased. Grey images give one channel; if any
    of them is in colour, all have three. Raises InputError for images of different sizes, and of more than 8 bits;
    damaged ones are found when they are decoded (`Split.read`).
    """
    size, mode = _measure(pictures, len(labels), where, resize)
    fits = len(labels) * math.prod(size) * (1 if mode == "L" else 3) <= MEMORY_LIMIT
    return (KeptPictures if fits else PictureSplit)(pictures, labels, size, mode, where)


def is_image(value: Any) -> bool:
    """Tell whether a value is a Pillow image."""
    return isinstance(value, Image.Image)


def pixels(image: Image.Image, mode: str, size: tuple[int, ...] | None = None) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return an image in Pillow's mode "L" or "RGB" as uint8 (channels, height, width), resized if it differs."""
    image = image if image.mode == mode else image.convert(mode)
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[None].copy() if mode == "L" else np.ascontiguousarray(array.transpose(2, 0, 1))


def _blocks(n: int) -> Iterator[range]:
    return (range(start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK))


def _opened(picture: Picture, i: int, where: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `_measure` refuses these
            return Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise InputError(f"{_label(picture, i, where)} is too large ({error}): replace or remove it.") from error
    except Exception as error:  # decoders may raise anything on damaged headers
        text = f"{_label(picture, i, where)} cannot be read as {', '.join(FORMATS)}: replace or remove it."
        raise InputError(text) from error


def _label(picture: Picture, i: int, where: str) -> str:
    return f"Image {i} of {where}" + (f" ({picture})" if isinstance(picture, Path) else "")


def _measure(pictures: Pictures, n: int, where: str, resize: tuple[int, int] | None) -> tuple[tuple[int, int], str]:
    """Return the common size (width, height) of all images, and the mode that fits all of them; reads headers only."""
    size, mode = None if resize is None else (resize[1], resize[0]), "L"
    for ids in _blocks(n):
        for i, picture in zip(ids, pictures(ids), strict=True):
            extent, kind = _header(picture, i, where)
            size = size or extent
            if not 0 < extent[0] * extent[1] <= MOST_PIXELS:
                raise InputError(
                    f"{_label(picture, i, where)} claims {extent[0]:,} x {extent[1]:,} pixels, but it must have 1 to "
                    f"{MOST_PIXELS:,}: replace or remove it."
                )
            if extent != size and resize is None:
                raise InputError(
                    f"Images of {where} differ in size: image 0 is {_by(size)}, image {i} is {_by(extent)}. "
                    f"Resize them to one size: --resize {size[1]},{size[0]} (height, width)"
                    + (f" ({picture})." if isinstance(picture, Path) else ".")
                )
            if kind in _COLOUR:
                mode = "RGB"
            elif kind not in GREY:
                raise InputError(
                    f"{_label(picture, i, where)} has pixels of Pillow's mode {kind}, which 8 bits cannot hold: "
                    "convert the images to 8 bits, or give them as float32 in an .npz file."
                )
    if size is None:
        raise InputError(f"There are no images in {where}.")
    return size, mode


def _header(picture: Picture, i: int, where: str) -> tuple[tuple[int, int], str]:
    """Return an image's size and Pillow's mode; simple PNGs are parsed here, which is faster than Pillow."""
    if isinstance(picture, bytes) and picture.startswith(_PNG) and picture[24:26] in _PLAIN:
        return (int.from_bytes(picture[16:20]), int.from_bytes(picture[20:24])), _PLAIN[picture[24:26]]
    with _opened(picture, i, where) as image:
        return image.size, image.mode


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
