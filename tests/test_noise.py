"""Random numbers keyed by (seed, example, draw): their distribution, their independence, and what must not matter."""

import math

import pytest
import torch
from scipy.stats import kstest, laplace, norm
from torch import Tensor

from unperturbed.noise import Noise


def streams(n: int, seed: int = 0) -> Noise:
    return Noise.of(seed, torch.arange(n))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_have_their_distribution_along_a_stream_across_examples_and_across_draws(dtype: torch.dtype) -> None:
    along = streams(1).uniform((20_000,), dtype)[0]
    across = streams(20_000).uniform((1,), dtype)[:, 0]
    draws = Noise(streams(1).keys.expand(20_000)).fold(torch.arange(20_000)).uniform((1,), dtype)[:, 0]
    seeds = torch.cat([streams(1, seed).uniform((1,), dtype)[0] for seed in range(3000)])
    for u in (along, across, draws, seeds):
        assert u.dtype == dtype
        assert kstest(u.double().numpy(), "uniform").pvalue > 1e-3
    assert kstest(streams(20).normal((1000,), dtype).flatten().double().numpy(), "norm").pvalue > 1e-3


def test_every_pair_of_bits_that_can_be_close_is_uncorrelated() -> None:
    n, d = 400, 401
    noise = streams(n)
    u = noise.uniform((d,)).double() - 0.5
    tolerance = 4.5 / math.sqrt(n * (d - 2)) / 12
    for shift in (1, 2, 3, 64):
        assert abs((u[:, shift:] * u[:, :-shift]).mean()) < tolerance * 1.2, f"numbers {shift} apart"
        assert abs((u[shift:] * u[:-shift]).mean()) < tolerance * 1.2, f"examples {shift} apart"
    for other in (
        noise.fold(0),
        noise.fold(1),
        noise.fold(0).fold(0),
        streams(n, 1),
        noise.rows(torch.arange(n).flip(0)),
    ):
        assert abs((u * (other.uniform((d,)).double() - 0.5)).mean()) < tolerance * 1.2
    assert (
        abs((noise.fold(0).uniform((d,)).double() - 0.5).mul(noise.fold(1).uniform((d,)).double() - 0.5).mean())
        < tolerance
    )


def test_streams_do_not_repeat() -> None:
    noise = streams(200)
    many = [
        noise,
        noise.fold(0),
        noise.fold(1),
        noise.fold(1).fold(0),
        noise.fold(0).fold(1),
        streams(200, 1),
        streams(200, -1),
    ]
    values = torch.cat([each.uniform((50,), torch.float64).flatten() for each in many])
    assert len(values.unique()) == len(values)


def test_numbers_lie_strictly_inside_the_interval_with_mirrored_ends() -> None:
    u = streams(300).uniform((20_000,))
    assert 0 < u.min() < 1e-5 and 1 - 1e-5 < u.max() < 1
    assert torch.equal(u, 1 - (1 - u)), "every number is a whole multiple of 2^-24"
    assert streams(300).normal((20_000,)).isfinite().all()


def test_normal_numbers_are_accurate_in_the_tails() -> None:
    u, z = streams(50).uniform((2000,)), streams(50).normal((2000,))
    assert torch.allclose(z.double(), torch.from_numpy(norm.ppf(u.double().numpy())), rtol=1e-5, atol=1e-6)
    u, z = streams(50).uniform((2000,), torch.float64), streams(50).normal((2000,), torch.float64)
    assert torch.allclose(z, torch.from_numpy(norm.ppf(u.numpy())), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("count", [1, 7, 64, 785])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neither_order_nor_batch_matters(dtype: torch.dtype, count: int) -> None:
    ids = torch.tensor([5, 2**40, 0, 17, 3, -1, 8, 9, 10])
    order = torch.tensor([3, 1, 8, 0, 2, 7, 4, 6, 5])
    noise = Noise.of(7, ids).fold(2)

    def draw(noise: Noise) -> list[Tensor]:
        return [noise.uniform((count,), dtype), noise.normal((count,), dtype)]

    whole = draw(noise)
    shuffled, followed = draw(Noise.of(7, ids[order]).fold(2)), draw(noise.rows(order))
    single = draw(Noise.of(7, ids[3:4]).fold(2))
    for full, a, b, one in zip(whole, shuffled, followed, single, strict=True):
        assert torch.equal(a, full[order]) and torch.equal(b, full[order])
        assert torch.equal(one[0], full[3])


def test_the_number_of_threads_does_not_matter() -> None:
    threads = torch.get_num_threads()
    first = streams(130).normal((785,))
    try:
        torch.set_num_threads(3)
        assert torch.equal(streams(130).normal((785,)), first)
    finally:
        torch.set_num_threads(threads)


def test_drawing_twice_gives_the_same_and_leaves_the_keys_alone() -> None:
    ids = torch.arange(4)
    noise = Noise.of(3, ids)
    keys = noise.keys.clone()
    first = noise.uniform((3, 5)), noise.fold(1).normal((2,))
    assert torch.equal(noise.uniform((3, 5)), first[0]) and torch.equal(noise.fold(1).normal((2,)), first[1])
    assert torch.equal(noise.keys, keys) and torch.equal(ids, torch.arange(4))


def test_a_draw_per_example_is_the_same_as_one_for_all() -> None:
    noise = streams(5)
    for draw in (0, 1, 12, 2**31, 2**62):
        assert torch.equal(noise.fold(draw).keys, noise.fold(torch.full((5,), draw)).keys)


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, 2**63, 2**64 - 1, 10**30])
def test_any_integer_is_a_seed(seed: int) -> None:
    assert len(streams(3, seed).uniform((2,)).unique()) == 6


def test_shapes() -> None:
    noise = streams(3)
    assert noise.uniform(()).shape == (3,)
    assert noise.uniform((2, 4, 5)).shape == (3, 2, 4, 5)
    assert noise.normal(torch.Size([3])).shape == (3, 3)
    assert streams(0).normal((2, 3)).shape == (0, 2, 3)
    assert torch.equal(noise.uniform((2, 4)).flatten(1), noise.uniform((8,)))


def test_the_numbers_stay_the_same_from_version_to_version() -> None:
    """A run can be repeated years later only if these do not change."""
    assert streams(2).keys.tolist() == [5197578548964807871, -6411193824288604561]
    expected = torch.tensor([[0.4557852149, 0.7560086846, 0.2818755507], [0.3604136109, 0.6576961875, 0.1687658429]])
    assert torch.allclose(streams(2).fold(1).uniform((3,)), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_laplacian_numbers_have_their_distribution_and_variance_1(dtype: torch.dtype) -> None:
    drawn = Noise.of(3, torch.arange(200)).laplacian((1000,), dtype)
    assert drawn.dtype == dtype and drawn.isfinite().all()
    result = kstest(drawn.flatten().numpy()[:100_000], laplace(scale=0.5**0.5).cdf)
    assert result.pvalue > 1e-3
    assert abs(float(drawn.double().square().mean()) - 1) < 0.03 and abs(float(drawn.double().mean())) < 0.01
