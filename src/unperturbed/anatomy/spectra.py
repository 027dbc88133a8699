"""The singular values of a layer: of its weights as a matrix, on a torus, and with its padding and stride."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unperturbed.anatomy.bounds import is_small
from unperturbed.anatomy.circular import circular_values
from unperturbed.anatomy.linear_maps import LinearMap
from unperturbed.anatomy.singular import singular_values
from unperturbed.curvature.lanczos import ends, quadrature
from unperturbed.noise import Noise

WORK = 5 * 10**9
"""The budget of multiplications for each of the two searches in a large layer, exceeded a little if it is too small."""
STEPS, PROBES, NODES = 400, 32, 40
"""Upper limits: steps towards the ends, random vectors, and nodes per random vector."""
TOLERANCE = 1e-3
"""Relative tolerance of the ends' squares."""


@dataclass(frozen=True)
class Spectrum:
    """A summary of min(rows, columns) singular values.

    Attributes:
        count: their number.
        smallest: an upper bound if it has not settled.
        largest: a lower bound if it has not settled.
        mean: of all.
        deviation: the standard deviation, sqrt(mean((s - mean)^2)).
        squares: the sum of their squares.
        smallest_settled: whether it is exact, or a search for it has converged.
        largest_settled: likewise.
        error: standard error of the mean if it is estimated by random vectors; else 0.
    """

    count: int
    smallest: float
    largest: float
    mean: float
    deviation: float
    squares: float
    smallest_settled: bool = True
    largest_settled: bool = True
    error: float = 0.0

    @property
    def condition(self) -> float:
        """Largest over smallest; inf where the smallest is 0."""
        return self.largest / self.smallest if self.smallest > 0 else math.inf

    @property
    def stable_rank(self) -> float:
        """Sum of squares over the largest square; 0 for a map that is 0."""
        return self.squares / self.largest**2 if self.largest > 0 else 0.0

    @property
    def spread(self) -> float:
        """Standard deviation of s / s_max, which a factor does not change; 0 for a map that is 0."""
        return self.deviation / self.largest if self.largest > 0 else 0.0


def reshaped(linear: LinearMap) -> Spectrum:
    """Return the spectrum of the weights as a matrix: outputs by the entries of one window.

    A grouped convolution has one matrix per group.
    """
    matrices = linear.weight.reshape(linear.groups, len(linear.weight) // linear.groups, -1)
    if linear.groups > 1:
        return _of(singular_values(matrices))
    return real(LinearMap(linear.name, linear.kind, matrices[0]))


def circular(linear: LinearMap) -> Spectrum:
    """Return the spectrum of the convolution on a torus (`circular_values`), or of a matrix."""
    if not linear.space:
        return real(linear)
    values, _ = circular_values(linear.weight, linear.space, linear.stride, linear.dilation, linear.groups)
    return _of(values)


def real(linear: LinearMap) -> Spectrum:
    """Return the spectrum of the layer with its stride, padding, dilation and groups: dense, or `estimated`."""
    if is_small(linear):
        return _of(singular_values(linear.matrix()))
    affordable = WORK // (2 * linear.work)
    noise = Noise.of(0, torch.arange(1 + min(PROBES, max(4, affordable // NODES))))
    draws = noise.normal((min(linear.size),), torch.float64)
    # float32, in which convolutions are several times as fast, suffices for the mean, but not for the smallest
    return estimated(linear, draws[:1], draws[1:].sign().float(), min(STEPS, max(100, affordable)))


def estimated(linear: LinearMap, start: Tensor, probes: Tensor, steps: int) -> Spectrum:
    """Estimate the spectrum of the layer by products with the smaller side's Gram operator.

    The ends by at most `steps` steps of Lanczos from `start`, (1, n). The sum of squares exactly, where padding is
    zero. The mean by stochastic Lanczos quadrature from `probes`, (m, n), corrected by how far the same probes miss the
    sum of squares, with the regression of s on s^2 over the spectrum that they see. The deviation from both.
    """
    rows, columns = linear.size
    count = min(rows, columns)

    def gram(v: Tensor) -> Tensor:
        if columns <= rows:
            return linear.adjoint(linear(v.view(-1, *linear.in_shape))).flatten(1)
        return linear(linear.adjoint(v.view(-1, *linear.out_shape))).flatten(1)

    low, high = ends(gram, start, steps, TOLERANCE)
    nodes, weights = quadrature(gram, probes, min(NODES, count))
    nodes, weights = nodes.double().clamp(min=0), weights.double()
    values, second_moments = nodes.sqrt(), (weights * nodes).sum(1)
    squares = sum_of_squares(linear) if linear.mode == "constant" else count * float(second_moments.mean())
    slope = _slope(weights, nodes, values)
    means = (weights * values).sum(1) - slope * (second_moments - squares / count)
    mean, error = float(means.mean()), float(means.std(correction=0)) / math.sqrt(max(1, len(means) - 1))
    smallest = math.sqrt(low.value) if low.value > 1e-14 * high.value else 0.0
    return Spectrum(
        count,
        smallest,
        largest=math.sqrt(max(high.value, float(nodes.max()))),
        mean=mean,
        deviation=math.sqrt(max(squares / count - mean**2, 0.0)),
        squares=squares,
        smallest_settled=low.settled or smallest == 0,
        largest_settled=high.settled,
        error=error,
    )


def _slope(weights: Tensor, x: Tensor, y: Tensor) -> float:
    """Return the slope of the regression of y on x."""
    weights = weights / weights.sum()
    deviations = x - (weights * x).sum()
    variance = float((weights * deviations.square()).sum())
    return float((weights * deviations * y).sum()) / variance if variance > 0 else 0.0


def real_norm(linear: LinearMap) -> float:
    """Return the largest singular value of the layer, estimated from below; `norm_bound` is the bound from above."""
    return real(linear).largest


def sum_of_squares(linear: LinearMap) -> float:
    """Return the squared Frobenius norm of the layer; with zero padding, so that no entry sums two weights."""
    squared = linear.squared()
    return float(squared(squared.weight.new_ones((1, *squared.in_shape))).sum())


def _of(values: Tensor) -> Spectrum:
    values = values.flatten()
    low, high = float(values.min()), float(values.max())
    smallest = low if low > 1e-13 * high else 0.0  # beyond the rank, singular values are rounding
    deviation = float(values.std(correction=0))
    return Spectrum(len(values), smallest, high, float(values.mean()), deviation, float(values.square().sum()))
