"""Singular values of convolutions on a torus, by one small matrix per frequency."""

import math
from itertools import product

import torch
from torch import Tensor

from unperturbed.anatomy.singular import singular_values

NUMBERS = 2**22
"""Complex numbers held at a time."""


def circular_values(
    weight: Tensor, space: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], groups: int = 1
) -> tuple[Tensor, tuple[int, ...]]:
    """Return all singular values of a circular convolution, ascending, and the size of the torus.

    `weight` is (outputs, inputs of a group, *kernel); the torus is `space`, up to a multiple of `stride`. With stride
    1 the map is block-diagonal in Fourier space, one block of outputs times inputs a frequency (Sedghi, Gupta & Long
    2019, https://arxiv.org/abs/1805.10408). A stride s keeps every s-th output, which adds up the frequencies that
    coincide there: their blocks are concatenated and divided by sqrt(s) per dimension. Blocks at opposite frequencies
    are conjugate, so only one of them is decomposed. The transform is summed over the kernel's taps, some frequencies
    at a time, so that memory stays bounded.
    """
    torus = tuple(-(-size // s) * s for size, s in zip(space, stride, strict=True))
    coarse = tuple(size // s for size, s in zip(torus, stride, strict=True))
    outputs, inputs, *kernel = weight.shape
    taps = torch.cartesian_prod(*(torch.arange(k) for k in kernel)).view(-1, len(kernel))
    taps = (taps * torch.tensor(dilation)).to(weight.dtype)
    blocks = weight.reshape(groups, outputs // groups, inputs, -1).to(torch.complex128)

    half, weights = [], []
    for frequency in product(*map(range, coarse)):
        opposite = tuple(-k % n for k, n in zip(frequency, coarse, strict=True))
        if frequency <= opposite:
            half.append(frequency)
            weights.append(1 if frequency == opposite else 2)
    aliases = torch.tensor(list(product(*(range(0, n, c) for n, c in zip(torus, coarse, strict=True)))))
    frequencies = torch.tensor(half)[:, None, :] + aliases[None, :, :]
    turns = frequencies / torch.tensor(torus, dtype=weight.dtype)

    values = []
    for part in torch.split(turns, max(1, NUMBERS // (outputs * inputs * len(aliases)))):
        phases = torch.exp(2j * math.pi * (part.to(weight.dtype) @ taps.T))
        symbol = torch.einsum("goit,fat->fgoai", blocks, phases.to(torch.complex128))
        values.append(singular_values(symbol.flatten(3)).flatten(1) / math.sqrt(len(aliases)))
    return torch.cat(values).repeat_interleave(torch.tensor(weights), dim=0).flatten().sort().values, torus
