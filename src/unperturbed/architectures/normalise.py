"""Normalisation as a layer, so that threats are measured in the units of the data."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from unperturbed.errors import InputError
from unperturbed.types import Inputs


class Normalise(nn.Module):
    """(x - mean) / std along dimension 1: the channels of images, the features of vectors.

    `mean` and `std` hold one number for each of them, and are saved with the weights. Raises `InputError` where their
    lengths differ, a number is not finite, or a std is not positive.
    """

    mean: Tensor
    std: Tensor

    forward_mode: ClassVar[bool] = True

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        mean, std = tuple(mean), tuple(std)
        if not mean or len(mean) != len(std):
            raise InputError(f"mean has {len(mean)} numbers and std {len(std)}: give one of each a channel or feature")
        if not all(map(math.isfinite, mean)):
            raise InputError(f"mean {mean} is not finite: give finite numbers")
        if not all(math.isfinite(s) and s > 0 for s in std):
            raise InputError(f"std {std} is not positive and finite: floor the std of constant channels, at 1 say")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.get_default_dtype()))
        self.register_buffer("std", torch.tensor(std, dtype=torch.get_default_dtype()))

    def forward(self, x: Inputs) -> Inputs:
        """Return the normalised inputs."""
        rest = (1,) * (x.dim() - 2)
        return (x - self.mean.view(-1, *rest)) / self.std.view(-1, *rest)

    def extra_repr(self) -> str:
        """Return the numbers, or their count if they are many."""
        return f"{self.mean.tolist()}, {self.std.tolist()}" if len(self.mean) <= 4 else f"{len(self.mean)} features"


def normalise_inputs(input_shape: tuple[int, ...], mean: Sequence[float], std: Sequence[float]) -> Normalise:
    """Return the layer for inputs of this shape; a single number applies to every channel or feature.

    The buffers always have `input_shape[0]` entries, so that saved weights fit in both cases.
    """

    def spread(name: str, numbers: Sequence[float]) -> tuple[float, ...]:
        numbers = tuple(numbers)
        if len(numbers) not in (1, input_shape[0]):
            raise InputError(
                f"{name} has {len(numbers)} numbers, but inputs of shape {tuple(input_shape)} need 1 or"
                f" {input_shape[0]}: give as many"
            )
        return numbers if len(numbers) == input_shape[0] else numbers * input_shape[0]

    return Normalise(spread("mean", mean), spread("std", std))
