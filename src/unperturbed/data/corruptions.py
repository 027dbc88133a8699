"""Common corruptions of images at five severities, after CIFAR-10-C (Hendrycks & Dietterich 2019).

https://arxiv.org/abs/1903.12261. The constants are those that the authors published for images of 32x32
(`make_cifar_c.py`). Fourteen of their fifteen corruptions are here: frost blends in photographs of frost, which are not
part of this package. Random numbers differ from theirs: those of an image depend on its own random generator alone. In
`elastic_transform` the affine map interpolates exactly, where theirs rounds to 1/32 of a pixel; `motion_blur` and
`snow` follow the algorithm of ImageMagick, without its rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from unperturbed.errors import InputError, hint

Images = np.ndarray
"""Images (n, height, width, channels): float64 in [0, 1]; 8-bit at the beginning and the end."""
Generators = Sequence[np.random.Generator]
"""A generator of random numbers for each image."""
SEVERITIES = (1, 2, 3, 4, 5)
LEFT_OUT = ("frost",)
"""Corruptions of CIFAR-10-C that need more than a formula."""


@dataclass(frozen=True)
class Corruption:
    """A corruption: a function of images, constants and generators, and its constants for the five severities."""

    apply: Callable[[Images, Any, Generators], Images]
    constants: tuple[Any, ...]


def corrupt(images: np.ndarray, name: str, severity: int, generators: Generators) -> np.ndarray:
    """Return 8-bit images (n, height, width, channels) with a corruption, 8-bit again (rounded down, as published).

    Raises:
        InputError: for an unknown name or severity, and for arrays that are no 8-bit images of 1 or 3 channels.
    """
    if name not in CORRUPTIONS:
        raise InputError(f"There is no corruption {name!r}. {hint(name, CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise InputError(f"The severity is {severity}, but must be 1, 2, 3, 4 or 5.")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or images.shape[1] < 8:
        raise InputError(
            f"Corruptions need 8-bit images (n, height, width, channels) of 1 or 3 channels and 8 pixels at least, but "
            f"these are {images.dtype} of shape {images.shape}."
        )
    corruption = CORRUPTIONS[name]
    corrupted = corruption.apply(images / 255.0, corruption.constants[severity - 1], generators)
    return np.asarray(np.clip(corrupted, 0, 1) * 255 + 1e-9).astype(np.uint8)


def _drawn(generators: Generators, draw: Callable[[np.random.Generator], Any]) -> np.ndarray:
    """Return one draw of each generator."""
    return np.stack([np.asarray(draw(generator)) for generator in generators])


# --- noise ------------------------------------------------------------------------------------------------------------


def gaussian_noise(x: Images, sigma: float, generators: Generators) -> Images:
    """Add normal noise."""
    return x + sigma * _drawn(generators, lambda generator: generator.normal(size=x.shape[1:]))


def shot_noise(x: Images, photons: float, generators: Generators) -> Images:
    """Draw the number of photons of every pixel, `photons` for white."""
    scaled = x * photons
    return np.stack([g.poisson(one) for g, one in zip(generators, scaled, strict=True)]) / photons


def impulse_noise(x: Images, share: float, generators: Generators) -> Images:
    """Replace a share of the values by 0 or 1."""
    chosen = _drawn(generators, lambda generator: generator.random(x.shape[1:])) <= share
    ones = _drawn(generators, lambda generator: generator.random(x.shape[1:])) <= 0.5
    return np.where(chosen, ones.astype(x.dtype), x)


# --- blur -------------------------------------------------------------------------------------------------------------


def defocus_blur(x: Images, constants: tuple[float, float], generators: Generators) -> Images:
    """Convolve with a disk of this radius, itself smoothed by 3x3 weights of a normal density."""
    radius, smoothing = constants
    line = np.arange(-8, 9)
    disk = (line[:, None] ** 2 + line[None] ** 2 <= radius**2).astype(np.float64)
    weights = np.exp(-np.array([1, 0, 1]) / (2 * smoothing**2))
    weights /= weights.sum()
    kernel = ndimage.correlate(disk / disk.sum(), np.outer(weights, weights), mode="mirror")
    return np.asarray(ndimage.correlate(x, kernel[None, :, :, None], mode="mirror"))


def glass_blur(x: Images, constants: tuple[float, int, int], generators: Generators) -> Images:
    """Blur, copy to every pixel one that is up to `reach` pixels above and left of it, and blur again.

    The published code means to swap the two pixels, but copies one of them; so do its images, and so does this.
    """
    sigma, reach, times = constants
    blurred = np.floor(_blurred(x, sigma) * 255) / 255
    n, height, width, _ = x.shape
    rows, columns = range(height - reach, reach, -1), range(width - reach, reach, -1)
    each = np.arange(n)
    for _ in range(times):
        shifts = _drawn(generators, lambda g: g.integers(-reach, reach, size=(len(rows), len(columns), 2)))
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                down, right = shifts[:, i, j, 1], shifts[:, i, j, 0]
                blurred[:, row, column] = blurred[each, row + down, column + right]
    return _blurred(blurred, sigma)


def motion_blur(x: Images, constants: tuple[int, float], generators: Generators) -> Images:
    """Average along a line of a random direction within 45 degrees of the horizontal."""
    radius, sigma = constants
    angles = [generator.uniform(-45, 45) for generator in generators]
    return np.stack([_moved(one, radius, sigma, angle) for one, angle in zip(x, angles, strict=True)])


def zoom_blur(x: Images, largest: float, generators: Generators) -> Images:
    """Average the image with its enlargements up to a factor."""
    factors = np.arange(1, largest, 0.01)
    total = x + sum(_zoomed(x, factor) for factor in factors)
    return np.asarray(total / (len(factors) + 1))


def _blurred(x: Images, sigma: float) -> Images:
    """Return images after a normal blur, continued by their border."""
    return np.asarray(ndimage.gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest", truncate=4.0))


def _moved(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """Return the mean of an image over shifts along a line, with half a normal density as weights.

    This is ImageMagick's MotionBlurImage, which continues the image by its border.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    down = np.ceil(steps * np.sin(np.deg2rad(angle)) - 0.5).astype(int)
    right = np.ceil(steps * np.cos(np.deg2rad(angle)) - 0.5).astype(int)
    height, width = image.shape[:2]
    moved = np.zeros_like(image)
    for weight, dy, dx in zip(weights, down, right, strict=True):
        rows = np.clip(np.arange(height) + dy, 0, height - 1)
        columns = np.clip(np.arange(width) + dx, 0, width - 1)
        moved += weight * image[rows][:, columns]
    return moved


def _zoomed(x: Images, factor: float) -> Images:
    """Return the enlarged centres of images, in their size, by linear interpolation."""
    rows, columns = _enlarging(x.shape[1], factor), _enlarging(x.shape[2], factor)
    return np.asarray(np.moveaxis(rows @ np.moveaxis(x, 3, 1) @ columns.T, 1, 3))


def _enlarging(size: int, factor: float) -> np.ndarray:
    """Return the matrix (size, size) that enlarges the middle of a line.

    As in scipy's `zoom` of order 1, the ends of the middle part become the ends of the enlarged one, which is cut.
    """
    part = int(np.ceil(size / factor))
    enlarged = round(part * factor)
    places = np.linspace(0, part - 1, enlarged)[(enlarged - size) // 2 :][:size]
    left = np.minimum(places.astype(int), max(part - 2, 0))
    matrix = np.zeros((size, size))
    first = (size - part) // 2
    matrix[np.arange(size), first + left] += 1 - (places - left)
    matrix[np.arange(size), first + np.minimum(left + 1, part - 1)] += places - left
    return matrix


# --- weather ----------------------------------------------------------------------------------------------------------


def snow(x: Images, constants: tuple[float, ...], generators: Generators) -> Images:
    """Whiten the image, and add flakes that are blurred by a motion downwards, and the same turned by 180 degrees."""
    mean, spread, zoom, threshold, radius, sigma, kept = constants
    layer = mean + spread * _drawn(generators, lambda generator: generator.normal(size=x.shape[1:3]))[..., None]
    layer = _zoomed(layer, zoom)
    layer = np.floor(np.clip(np.where(layer < threshold, 0, layer), 0, 1) * 255) / 255
    angles = [generator.uniform(-135, -45) for generator in generators]
    layer = np.stack([_moved(one, int(radius), sigma, angle) for one, angle in zip(layer, angles, strict=True)])
    grey = x @ np.array([0.299, 0.587, 0.114])[:, None] if x.shape[3] == 3 else x
    whitened = kept * x + (1 - kept) * np.maximum(x, grey * 1.5 + 0.5)
    return np.asarray(whitened + layer + layer[:, ::-1, ::-1])


def fog(x: Images, constants: tuple[float, float], generators: Generators) -> Images:
    """Add a plasma fractal, and scale the image so that its largest value stays."""
    amount, decay = constants
    height, width = x.shape[1:3]
    largest = x.max(axis=(1, 2, 3), keepdims=True)
    mist = _plasma(generators, max(height, width), decay)[:, :height, :width, None]
    return np.asarray((x + amount * mist) * largest / (largest + amount))


def brightness(x: Images, amount: float, generators: Generators) -> Images:
    """Raise the value of hue, saturation and value (the largest of the channels)."""
    value = x.max(axis=3, keepdims=True)
    raised = np.clip(value + amount, 0, 1)
    return np.asarray(np.where(value > 0, x * raised / np.where(value > 0, value, 1), raised))


def _plasma(generators: Generators, size: int, decay: float) -> np.ndarray:
    """Return height maps in [0, 1] by the diamond-square algorithm, (n, s, s) with s a power of two."""
    side = 1 << (size - 1).bit_length()
    heights, wibble, step = np.zeros((len(generators), side, side)), 100.0, side

    def wobbly(total: np.ndarray) -> np.ndarray:
        return total / 4 + wibble * _drawn(generators, lambda g: g.uniform(-wibble, wibble, total.shape[1:]))

    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        squares = corners + np.roll(corners, -1, axis=1)
        heights[:, half::step, half::step] = wobbly(squares + np.roll(squares, -1, axis=2))
        centres, corners = heights[:, half::step, half::step], heights[:, ::step, ::step]
        above = centres + np.roll(centres, 1, axis=1) + corners + np.roll(corners, -1, axis=2)
        heights[:, ::step, half::step] = wobbly(above)
        beside = centres + np.roll(centres, 1, axis=2) + corners + np.roll(corners, -1, axis=1)
        heights[:, half::step, ::step] = wobbly(beside)
        step, wibble = half, wibble / decay
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return np.asarray(heights / heights.max(axis=(1, 2), keepdims=True))


# --- digital ----------------------------------------------------------------------------------------------------------


def contrast(x: Images, factor: float, generators: Generators) -> Images:
    """Scale the differences from each channel's mean."""
    mean = x.mean(axis=(1, 2), keepdims=True)
    return np.asarray((x - mean) * factor + mean)


def elastic_transform(x: Images, constants: tuple[float, float, float], generators: Generators) -> Images:
    """Move three points of the image at random, as an affine map, and then every pixel by a smooth random field.

    The constants are the strength and the smoothness of the field and the reach of the points, over the image's side.
    """
    return np.stack([_elastic(one, constants, generator) for one, generator in zip(x, generators, strict=True)])


def _elastic(image: np.ndarray, constants: tuple[float, float, float], generator: np.random.Generator) -> np.ndarray:
    height, width, channels = image.shape
    strength, smoothness, reach = (height * constant for constant in constants)
    centre, arm = np.array([height, width]) // 2, min(height, width) // 3
    points = np.array([centre + arm, [centre[0] + arm, centre[1] - arm], centre - arm], dtype=np.float64)
    moved = points + generator.uniform(-reach, reach, size=points.shape)
    # pixels of the result come from where the inverse of the map has them; points are (x, y)
    back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), points)
    fields = [strength * _smooth(generator.uniform(-1, 1, size=(height, width)), smoothness) for _ in range(2)]
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    sources = np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ back
    layers = []
    for channel in range(channels):
        affine = ndimage.map_coordinates(
            image[..., channel], [sources[..., 1], sources[..., 0]], order=1, mode="mirror"
        )
        layers.append(ndimage.map_coordinates(affine, [rows + fields[1], columns + fields[0]], order=1, mode="reflect"))
    return np.stack(layers, axis=-1)


def _smooth(field: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(ndimage.gaussian_filter(field, sigma, mode="reflect", truncate=3)) if sigma > 0 else field


def pixelate(x: Images, factor: float, generators: Generators) -> Images:
    """Shrink the image, and enlarge it again, by the means of boxes."""
    height, width = x.shape[1:3]
    small = int(width * factor), int(height * factor)
    box = Image.Resampling.BOX
    return _by_pillow(x, lambda picture: picture.resize(small, box).resize((width, height), box))


def jpeg_compression(x: Images, quality: int, generators: Generators) -> Images:
    """Store the image as JPEG of this quality, and read it again."""

    def stored(picture: Image.Image) -> Image.Image:
        file = BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _by_pillow(x, stored)


def _by_pillow(x: Images, change: Callable[[Image.Image], Image.Image]) -> Images:
    pictures = np.rint(x * 255).astype(np.uint8)
    arrays = [np.asarray(change(Image.fromarray(one if one.shape[2] == 3 else one[..., 0]))) for one in pictures]
    return np.stack(arrays).reshape(x.shape) / 255


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption(gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": Corruption(shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": Corruption(impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": Corruption(defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    "glass_blur": Corruption(glass_blur, ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))),
    "motion_blur": Corruption(motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": Corruption(zoom_blur, (1.06, 1.11, 1.16, 1.21, 1.26)),
    "snow": Corruption(
        snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    "fog": Corruption(fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": Corruption(brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": Corruption(contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic_transform": Corruption(
        elastic_transform,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ),
    "pixelate": Corruption(pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": Corruption(jpeg_compression, (80, 65, 58, 50, 40)),
}
"""The corruptions by the name of their file in CIFAR-10-C."""
