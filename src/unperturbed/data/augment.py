"""Augmentation, batched on the device; the result of an example depends on its noise, not on its batch."""

from collections.abc import Callable

import torch
from torch import Tensor

from unperturbed.errors import InputError, hint
from unperturbed.noise import Noise
from unperturbed.types import Inputs

Augment = Callable[[Inputs, Noise], Inputs]
"""Returns the augmented inputs; the noise has one stream an example."""

_PAD = 4


def augmentation(name: str) -> Augment:
    """Return the augmentation of this name: "none", "flip", "crop" or "flip-crop"; raises InputError for others."""
    if name not in AUGMENTATIONS:
        raise InputError(f"There is no augmentation {name!r}. {hint(name, AUGMENTATIONS)}")
    return AUGMENTATIONS[name]


def none(x: Inputs, noise: Noise) -> Inputs:
    """Return the inputs unchanged."""
    return x


def flip(x: Inputs, noise: Noise) -> Inputs:
    """Mirror each image (n, c, h, w) left to right with probability 1/2."""
    _images_only(x)
    mirrored = noise.uniform((1, 1, 1)) < 0.5
    return torch.where(mirrored, x.flip(-1), x)


def crop(x: Inputs, noise: Noise) -> Inputs:
    """Shift each image (n, c, h, w) by up to 4 pixels in each direction.

    The border is filled by reflection, which stays within the bounds of the image (zeros might not).
    """
    _images_only(x)
    n, channels, height, width = x.shape
    shifts = torch.floor(noise.uniform((2,)) * (2 * _PAD + 1)).long() - _PAD
    rows = _reflected(shifts[:, 0], height)[:, None, :, None].expand(n, channels, height, width)
    columns = _reflected(shifts[:, 1], width)[:, None, None, :].expand(n, channels, height, width)
    return x.gather(2, rows).gather(3, columns)


def flip_crop(x: Inputs, noise: Noise) -> Inputs:
    """Mirror, then shift."""
    return crop(flip(x, noise.fold(0)), noise.fold(1))


AUGMENTATIONS: dict[str, Augment] = {"none": none, "flip": flip, "crop": crop, "flip-crop": flip_crop}


def _reflected(shifts: Tensor, size: int) -> Tensor:
    """Return (n, size) positions along one side, shifted and reflected at the borders (which are not repeated)."""
    positions = (torch.arange(size, device=shifts.device) + shifts[:, None]).remainder(max(1, 2 * size - 2))
    return torch.minimum(positions, (2 * size - 2 - positions).abs())


def _images_only(x: Inputs) -> None:
    if x.ndim != 4:
        raise InputError(f"Flips and crops need images, but an example has shape {tuple(x.shape[1:])}: augment none.")
