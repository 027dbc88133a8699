"""Encoded images (PNG, JPEG, ...) as a split: decoded into memory where they fit, and on demand where they do not."""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from unperturbed.data.split import ArraySplit, Split
from unperturbed.errors import InputError
from unperturbed.types import Inputs, Labels, Rows

MEMORY_LIMIT = 2 * 2**30
"""Bytes that a split may take in memory, decoded; a larger one is read and decoded when its examples are asked for."""

GREY = ("1", "L", "LA")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_BLOCK = 1024

Picture = bytes | Path
Pictures = Callable[[Sequence[int]], Sequence[Picture]]
"""The encoded images at these positions."""


class PictureSplit(Split):
    """Encoded images, decoded when they are asked for."""

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
        for place, (i, picture) in enumerate(zip(ids, self.pictures(ids), strict=True)):
            with _opened(picture, i, self.where) as image:
                try:
                    out[place] = pixels(image, self.mode)
                except (OSError, ValueError, SyntaxError) as error:
                    raise InputError(f"Image {i} of {self.where} is damaged ({error}): replace it.") from error
        return torch.from_numpy(out)


def picture_split(pictures: Pictures, labels: Labels, where: str) -> Split:
    """Return encoded images and their labels as a split; `where` names their place in messages.

    Grey images give one channel; if any of them is in colour, all have three. Raises InputError for images of
    different sizes, of more than 8 bits, or damaged ones.
    """
    size, mode = _measure(pictures, len(labels), where)
    split = PictureSplit(pictures, labels, size, mode, where)
    if len(labels) * math.prod(split.shape) > MEMORY_LIMIT:
        return split
    x = torch.empty((len(labels), *split.shape), dtype=torch.uint8)
    for ids in _blocks(len(labels)):
        x[ids.start : ids.stop] = split.decoded(ids)
    return ArraySplit(x, labels)


def is_image(value: Any) -> bool:
    """Tell whether a value is a Pillow image."""
    return isinstance(value, Image.Image)


def pixels(image: Image.Image, mode: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return an image in Pillow's mode "L" or "RGB" as uint8 (channels, height, width)."""
    array = np.asarray(image if image.mode == mode else image.convert(mode))
    return array[None].copy() if mode == "L" else np.ascontiguousarray(array.transpose(2, 0, 1))


def _blocks(n: int) -> Iterator[range]:
    return (range(start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK))


def _opened(picture: Picture, i: int, where: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture)
    except (UnidentifiedImageError, OSError) as error:
        name = f" ({picture})" if isinstance(picture, Path) else ""
        raise InputError(f"Image {i} of {where}{name} cannot be read as an image: replace or remove it.") from error


def _measure(pictures: Pictures, n: int, where: str) -> tuple[tuple[int, int], str]:
    """Return the one size (width, height) of all images, and the mode that loses nothing of any; reads headers only."""
    size, mode = None, "L"
    for ids in _blocks(n):
        for i, picture in zip(ids, pictures(ids), strict=True):
            with _opened(picture, i, where) as image:
                size = size or image.size
                if image.size != size:
                    raise InputError(
                        f"Images of {where} differ in size: image 0 is {_by(size)}, image {i} is {_by(image.size)}. "
                        "Resize them to one size first, for instance with Pillow's ImageOps.fit."
                    )
                if image.mode in _COLOUR:
                    mode = "RGB"
                elif image.mode not in GREY:
                    raise InputError(
                        f"Image {i} of {where} has pixels of Pillow's mode {image.mode}, which 8 bits cannot hold: "
                        "convert the images to 8 bits, or give them as float32 in an .npz file."
                    )
    if size is None:
        raise InputError(f"There are no images in {where}.")
    return size, mode


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
