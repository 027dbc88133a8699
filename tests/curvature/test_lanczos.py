"""Ends and means by Lanczos against the eigenvalues of dense matrices."""

import pytest
import torch
from torch import Tensor

from unperturbed.anatomy.singular import BY_GRAM, singular_values
from unperturbed.curvature.lanczos import ends, quadrature
from unperturbed.errors import InputError


def symmetric(values: Tensor, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(len(values), len(values), generator=draw, dtype=torch.float64))[0]
    return basis @ torch.diag(values) @ basis.T


def start(rows: int, n: int) -> Tensor:
    return torch.randn(rows, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(
    "values",
    [
        torch.linspace(0.1, 3, 40),
        torch.tensor([0.5, *[2.0] * 30]),  # two values only: the space is exhausted after two steps
        torch.tensor([1e-4, *torch.linspace(1, 2, 30)]),
        torch.cat([torch.zeros(10), torch.linspace(1, 2, 10)]),
        torch.zeros(6),
    ],
    ids=["spread", "two", "apart", "singular", "zero"],
)
@pytest.mark.parametrize("steps", [60, 400])
def test_both_ends_are_found_however_long_it_goes_on(values: Tensor, steps: int) -> None:
    values = values.double()
    matrix = symmetric(values)
    low, high = ends(lambda v: v @ matrix, start(1, len(values)), steps, 1e-6)
    assert low.value == pytest.approx(float(values.min()), abs=1e-9)
    assert high.value == pytest.approx(float(values.max()), abs=1e-9)
    assert high.settled and (low.settled or values.min() == 0)


def test_too_few_steps_are_told_and_lie_inside() -> None:
    values = torch.linspace(1e-3, 1, 2000, dtype=torch.float64).square()
    low, high = ends(lambda v: v * values, start(1, 2000), 60, 1e-3)
    assert not low.settled
    assert values[0] < low.value < high.value <= values[-1] * (1 + 1e-12)


def test_the_quadrature_is_that_of_the_vector() -> None:
    """Of polynomials below twice the steps exactly, and of any function with as many steps as dimensions."""
    values = torch.linspace(0.1, 3, 24, dtype=torch.float64)
    matrix, vectors = symmetric(values), start(3, 24)
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    nodes, weights = quadrature(lambda v: v @ matrix, vectors, 4)
    power = torch.linalg.matrix_power(matrix, 7)
    torch.testing.assert_close((weights * nodes**7).sum(1), ((unit @ power) * unit).sum(1))
    nodes, weights = quadrature(lambda v: v @ matrix, vectors, 40)
    root = symmetric(values.sqrt())
    torch.testing.assert_close((weights * nodes.sqrt()).sum(1), ((unit @ root) * unit).sum(1))


def test_an_exhausted_row_leaves_the_others_alone() -> None:
    values = torch.linspace(0.1, 3, 24, dtype=torch.float64)
    vectors = start(2, 24)
    vectors[0] = 0
    vectors[0, 3] = 1  # an eigenvector
    nodes, weights = quadrature(lambda v: v * values, vectors, 30)
    assert nodes.isfinite().all()
    assert (weights[0] * nodes[0].sqrt()).sum() == pytest.approx(float(values[3].sqrt()))
    alone = quadrature(lambda v: v * values, vectors[1:], 30)
    torch.testing.assert_close((weights[1] * nodes[1].sqrt()).sum(), (alone[1] * alone[0].sqrt()).sum())


def test_no_steps_are_refused() -> None:
    for function in (lambda v: ends(v.clone, v, 0, 1e-3), lambda v: quadrature(v.clone, v, 0)):
        with pytest.raises(InputError, match="steps is 0"):
            function(start(1, 3))


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (2, 4, 3), (BY_GRAM + 3, BY_GRAM + 9)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_singular_values_are_those_of_the_decomposition(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    torch.testing.assert_close(singular_values(matrix), torch.linalg.svdvals(matrix).flip(-1), rtol=1e-6, atol=1e-7)
