"""Extreme eigenvalues of the input Hessian against those of the full matrix."""

import pytest
import torch
from torch import Tensor, nn

from support.calculus import GivenLoss, Polynomial, hessians, random_matrix
from support.examples import make_batch, network, noise_for, untouched
from unperturbed.curvature.products import cross_entropy_with
from unperturbed.curvature.spectrum import extreme_eigenvalues
from unperturbed.errors import InputError
from unperturbed.networks.modes import under_attack
from unperturbed.types import Batch

BATCH = make_batch(5, torch.float64)


def tanh_net(d: int, width: int = 12) -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(d, width), nn.Tanh(), nn.Linear(width, 3)).double()


def ends(matrices: Tensor) -> tuple[Tensor, Tensor]:
    values = torch.linalg.eigvalsh(matrices)
    return values[:, 0], values[:, -1]


@pytest.mark.parametrize("steps", [32, 60])
@pytest.mark.parametrize("width", [12, 3], ids=["full", "rank-deficient"])
def test_as_many_steps_as_dimensions_give_both_ends_exactly(width: int, steps: int) -> None:
    """Of each example's own Hessian; also where it has a null space, or more steps are asked for than there is room.

    The Hessian of a network with three hidden units has rank 3 at most, in 32 dimensions.
    """
    model, loss = tanh_net(32, width), cross_entropy_with(BATCH.y)
    expected = ends(hessians(model, BATCH.x, loss))
    if width == 3:
        assert (torch.linalg.matrix_rank(hessians(model, BATCH.x, loss), rtol=1e-10) <= 3).all()
    with untouched(model, BATCH.x), under_attack(model):
        found = extreme_eigenvalues(model, BATCH.x, loss, noise_for(BATCH), steps)
    for mine, theirs in zip(found, expected, strict=True):
        assert not mine.requires_grad
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)


def test_few_steps_reach_both_ends_from_within() -> None:
    """More steps never give less, and the largest is there long before the space is exhausted."""
    model, loss = network("plain", torch.float64), cross_entropy_with(BATCH.y)
    low, high = ends(hessians(model, BATCH.x, loss))
    before = None
    for steps in (1, 2, 4, 8, 16):
        smallest, largest = extreme_eigenvalues(model, BATCH.x, loss, noise_for(BATCH), steps)
        assert (smallest >= low - 1e-9).all() and (largest <= high + 1e-9).all() and (smallest <= largest).all()
        if before is not None:
            assert (smallest <= before[0] + 1e-9).all() and (largest >= before[1] - 1e-9).all()
        before = smallest, largest
    torch.testing.assert_close(largest, high, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hessians_without_spread(dtype: torch.dtype) -> None:
    """Zero, a multiple of the identity, a single direction: the space is exhausted after a step or two, without NaN."""
    batch = Batch(BATCH.x.to(dtype), torch.zeros_like(BATCH.y), BATCH.ids)
    b = torch.full((32,), 0.1, dtype=dtype)
    one = torch.zeros(32, 32, dtype=dtype)
    one[3, 3] = -2.0
    for matrix, low, high in ((0 * one, 0.0, 0.0), (3 * torch.eye(32, dtype=dtype), 3.0, 3.0), (one, -2.0, 0.0)):
        model = GivenLoss(Polynomial(b, matrix, offset=12.0 if high == 0 else 1.0))
        found = extreme_eigenvalues(model, batch.x, cross_entropy_with(batch.y), noise_for(batch), 32)
        close = 1e-9 if dtype == torch.float64 else 1e-3
        for mine, value in zip(found, (low, high), strict=True):
            torch.testing.assert_close(mine, torch.full_like(mine, value), rtol=close, atol=close)


def test_both_ends_of_an_indefinite_matrix_in_float32() -> None:
    matrix = random_matrix(32)
    model = GivenLoss(Polynomial(torch.zeros(32), matrix.float() / 4, offset=8.0))
    batch = Batch(BATCH.x.float(), torch.zeros_like(BATCH.y), BATCH.ids)
    found = extreme_eigenvalues(model, batch.x, cross_entropy_with(batch.y), noise_for(batch), 32)
    for mine, value in zip(found, ends(matrix[None] / 4), strict=True):
        torch.testing.assert_close(mine.double(), value.expand(5), rtol=1e-3, atol=0)


def test_an_examples_ends_do_not_depend_on_its_company() -> None:
    model, noise = tanh_net(32), noise_for(BATCH)
    whole = extreme_eigenvalues(model, BATCH.x, cross_entropy_with(BATCH.y), noise, 6)
    order = torch.tensor([3, 1])
    some = extreme_eigenvalues(model, BATCH.x[order], cross_entropy_with(BATCH.y[order]), noise.rows(order), 6)
    for mine, all_of_them in zip(some, whole, strict=True):
        torch.testing.assert_close(mine, all_of_them[order])


def test_no_steps_are_refused() -> None:
    with pytest.raises(InputError, match="0"):
        extreme_eigenvalues(tanh_net(32), BATCH.x, cross_entropy_with(BATCH.y), noise_for(BATCH), 0)
