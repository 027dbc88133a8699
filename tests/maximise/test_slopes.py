"""Gradients that are not finite neither stop a search nor blind it."""

import torch
from torch import Tensor

from unperturbed.maximise.ascent import climb, search
from unperturbed.maximise.pgd import PGD
from unperturbed.maximise.slopes import noticing, tells_nothing, usable
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Inputs, PerExample, Rows

INF, NAN = torch.inf, torch.nan


def test_an_infinite_slope_keeps_its_sign_and_nan_is_0() -> None:
    gradient = torch.tensor([[1.0, -3.0, INF, -INF, NAN], [NAN, INF, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
    expected = torch.tensor([[1.0, -3.0, 3.0, -3.0, 0.0], [0.0, 1.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
    assert torch.equal(usable(gradient), expected)


def test_a_finite_gradient_comes_back_as_it_is_and_is_not_noticed() -> None:
    gradient = torch.randn(3, 4)
    with noticing() as outer, noticing() as inner:
        assert usable(gradient) is gradient and not inner.any
        usable(torch.full((1, 1), NAN))
    assert inner.any and outer.any


def test_only_a_gradient_of_nothing_but_nan_tells_nothing() -> None:
    assert tells_nothing(torch.tensor([[NAN, NAN], [NAN, INF], [NAN, 1.0], [0.0, 0.0]])).tolist() == [1, 0, 0, 0]


def rising_roots(z: Inputs, rows: Rows) -> PerExample:
    """Sum of square roots: the slope is infinite at 0, where the climb begins and the box ends."""
    total: Tensor = z.sqrt().sum(1)
    return total


def test_a_climb_leaves_the_point_where_its_slope_is_infinite() -> None:
    """With 0 in its place, a pixel at the bound of the box would stay there for ever."""
    x, threat = torch.zeros(2, 3), Threat("Linf", 0.1)
    assert climb(rising_roots, x, torch.arange(2))[2].isfinite().all()
    noise = Noise.of(0, torch.arange(2))
    assert torch.equal(PGD(steps=3, random_start=False)(rising_roots, x, threat, noise), torch.full((2, 3), 0.1))
    found = search(PGD(steps=3, random_start=False), rising_roots, x, threat, noise, 1, 2, torch.inf)
    assert found.finite.all() and torch.allclose(found.z, torch.full((2, 3), 0.1))


def test_where_no_gradient_ever_told_anything_nothing_is_known() -> None:
    def blind(z: Inputs, rows: Rows) -> PerExample:
        z.register_hook(lambda gradient: torch.where((rows == 0)[:, None], NAN, gradient))
        return z.sum(1)

    x = torch.full((2, 3), 0.5)
    found = search(PGD(steps=2), blind, x, Threat("Linf", 0.1), Noise.of(0, torch.arange(2)), 1, 2, torch.inf)
    assert found.finite.tolist() == [False, True]
