"""Frequency by frequency against the dense matrix of the circular convolution."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from unperturbed.anatomy import circular
from unperturbed.anatomy.circular import circular_values


def dense(weight: Tensor, space: tuple[int, ...], stride: int, dilation: int, groups: int) -> Tensor:
    """Return the matrix of a convolution that wraps around, column by column, each tap moved by hand."""
    outputs, inputs, *kernel = weight.shape
    channels = inputs * groups
    matrix = torch.zeros((outputs, *space, channels, *space), dtype=weight.dtype)
    for o in range(outputs):
        for i in range(inputs):
            source = o // (outputs // groups) * inputs + i
            for tap in torch.cartesian_prod(*(torch.arange(k) for k in kernel)).view(-1, len(kernel)).tolist():
                for place in torch.cartesian_prod(*(torch.arange(n) for n in space)).view(-1, len(space)).tolist():
                    there = [(p + dilation * t) % n for p, t, n in zip(place, tap, space, strict=True)]
                    matrix[(o, *place, source, *there)] += weight[(o, i, *tap)]
    kept = (slice(None), *[slice(None, None, stride)] * len(space))
    return matrix[kept].flatten(0, len(space)).flatten(1)


def random_weight(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    ("shape", "space", "stride", "dilation", "groups"),
    [
        ((3, 2, 3, 3), (6, 6), 1, 1, 1),
        ((2, 4, 3, 3), (6, 6), 1, 1, 1),
        ((4, 2, 5, 3), (6, 6), 1, 1, 2),
        ((3, 2, 3, 3), (6, 6), 1, 2, 1),
        ((3, 2, 3, 3), (6, 6), 2, 1, 1),
        ((4, 2, 3, 3), (6, 6), 3, 2, 2),
        ((2, 2, 1, 1), (6, 6), 2, 1, 1),
        ((2, 3, 7, 7), (6, 6), 1, 1, 1),  # a kernel larger than the torus
        ((2, 3, 4), (7,), 1, 1, 1),
        ((2, 2, 2, 2, 2), (2, 3, 4), 1, 1, 1),
    ],
)
def test_the_values_are_those_of_the_dense_matrix(
    shape: tuple[int, ...],
    space: tuple[int, ...],
    stride: int,
    dilation: int,
    groups: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight, each = random_weight(*shape), len(space)
    expected = torch.linalg.svdvals(dense(weight, space, stride, dilation, groups)).sort().values
    for numbers in (circular.NUMBERS, 1):  # all at once, and a frequency at a time
        monkeypatch.setattr(circular, "NUMBERS", numbers)
        values, torus = circular_values(weight, space, (stride,) * each, (dilation,) * each, groups)
        assert torus == space
        torch.testing.assert_close(values, expected)


def test_the_torus_is_a_multiple_of_the_stride() -> None:
    values, torus = circular_values(random_weight(3, 2, 3, 3), (5, 6), (2, 3), (1, 1))
    assert torus == (6, 6)
    assert len(values) == min(3, 2 * 6) * 3 * 2


def test_it_agrees_with_torch_on_circular_padding() -> None:
    weight = random_weight(4, 3, 3, 3)
    x = torch.eye(3 * 36, dtype=torch.float64).view(-1, 3, 6, 6)
    matrix = functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="circular"), weight).flatten(1).T
    values, _ = circular_values(weight, (6, 6), (1, 1), (1, 1))
    torch.testing.assert_close(values, torch.linalg.svdvals(matrix).sort().values)
