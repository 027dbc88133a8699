"""The set of patches, one square of any content: brute force over all squares, properties, and what is refused."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unperturbed.errors import InputError
from unperturbed.noise import Noise
from unperturbed.threat import Threat

shapes = st.sampled_from([(5,), (4, 5), (1, 4, 4), (2, 3, 5)])
cases = given(seed=st.integers(0, 2**31), shape=shapes, side=st.integers(0, 6))


def case(seed: int, shape: tuple[int, ...], side: int) -> tuple[Threat, Tensor, Tensor]:
    """Return a threat, inputs in the box (many at its bounds), and points around them."""
    draw = torch.Generator().manual_seed(seed)
    x = (1.4 * torch.rand((4, *shape), generator=draw, dtype=torch.float64) - 0.2).clamp(0, 1)
    return Threat("Patch", side), x, x + torch.randn(x.shape, generator=draw, dtype=torch.float64)


def masks(shape: tuple[int, ...], side: int) -> list[Tensor]:
    """Return a mask for every square of the image."""
    tall, wide = (1, 1, *shape)[-2:]
    places = itertools.product(range(max(tall - side, 0) + 1), range(max(wide - side, 0) + 1))
    squares = list[Tensor]()
    for down, across in places:
        mask = torch.zeros(tall, wide, dtype=torch.bool)
        mask[down : down + side, across : across + side] = True
        squares.append((mask if len(shape) > 1 else mask[0]).expand(shape))
    return squares


@cases
@settings(max_examples=60, deadline=None)
def test_projection_is_the_nearest_point_of_all_squares(seed: int, shape: tuple[int, ...], side: int) -> None:
    threat, x, z = case(seed, shape, side)
    nearest = threat.project(x, z)
    options = torch.stack([torch.where(mask, z.clamp(0, 1), x) for mask in masks(shape, side)])
    truth = (options - z).square().flatten(2).sum(2).amin(0)
    torch.testing.assert_close((nearest - z).square().flatten(1).sum(1), truth)
    assert bool(threat.contains(x, nearest).all()) and torch.equal(threat.project(x, nearest), nearest)


@cases
@settings(max_examples=60, deadline=None)
def test_linear_maximum_is_that_of_the_best_square(seed: int, shape: tuple[int, ...], side: int) -> None:
    threat, x, z = case(seed, shape, side)
    gradient = z - x
    best = threat.maximise_linear(x, gradient)
    corner = (gradient > 0).to(x)
    options = torch.stack(
        [(gradient * torch.where(mask, corner - x, 0)).flatten(1).sum(1) for mask in masks(shape, side)]
    )
    torch.testing.assert_close((gradient * (best - x)).flatten(1).sum(1), options.amax(0))
    assert bool(threat.contains(x, best).all())


@pytest.mark.slow
@cases
@settings(max_examples=60, deadline=None)
def test_distance_is_the_side_of_the_smallest_square_that_holds_the_change(
    seed: int, shape: tuple[int, ...], side: int
) -> None:
    threat, x, z = case(seed, shape, side)
    few = torch.where(torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < 0.1, z, x)
    for number, changed in enumerate(few != x):
        fitting = [k for k in range(0, 7) if any(not bool((changed & ~mask).any()) for mask in masks(shape, k))]
        assert float(threat.distance(x, few)[number]) == fitting[0]


def test_samples_lie_anywhere_and_fill_their_square() -> None:
    x, threat = torch.full((400, 2, 4, 5), 0.5), Threat("Patch", 3)
    z = threat.sample(x, Noise.of(0, torch.arange(400)))
    assert bool((threat.distance(x, z) == 3).all()) and bool(((z != x).flatten(1).sum(1) == 18).all())
    corners = {tuple((row != 0.5).any(0).nonzero()[0].tolist()) for row in z}
    assert corners == set(itertools.product(range(2), range(3)))


def test_a_change_that_is_not_a_number_is_outside() -> None:
    x = torch.zeros(1, 1, 4, 4)
    z = x.clone()
    z[0, 0, 1, 1] = torch.nan
    assert bool(Threat("Patch", 4).distance(x, z).isnan()) and not bool(Threat("Patch", 4).contains(x, z))


@pytest.mark.parametrize("text", ["Patch:5x5", "patch:5", " PATCH : 5\u00d75 "])
def test_parse_reads_squares_and_str_writes_them(text: str) -> None:
    threat = Threat.parse(text)
    assert (threat.norm, threat.eps, str(threat)) == ("Patch", 5.0, "Patch:5x5")


@pytest.mark.parametrize("text", ["Patch:5x4", "Patch:0.5", "Patch:axa", "L2:5x5"])
def test_parse_refuses_what_is_no_square(text: str) -> None:
    with pytest.raises(InputError, match=r"square|5x5"):
        Threat.parse(text)


def test_a_patch_needs_bounds_and_has_no_direction() -> None:
    x = torch.zeros(2, 1, 4, 4)
    with pytest.raises(InputError, match="Patch needs bounds"):
        Threat("Patch", 2, None).sample(x, Noise.of(0, torch.arange(2)))
    with pytest.raises(InputError, match="not defined in Patch"):
        Threat("Patch", 2).steepest_ascent(x, x)
