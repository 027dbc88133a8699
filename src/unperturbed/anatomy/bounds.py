"""Upper bounds on norms of linear maps, without iterations that converge from below."""

import math

from unperturbed.anatomy.circular import circular_values
from unperturbed.anatomy.linear_maps import LinearMap
from unperturbed.anatomy.singular import singular_values
from unperturbed.types import Norm

SIDE, ENTRIES = 2048, 2**23
"""Limits on the smaller side and on the entries of a dense matrix; matrix layers may have four times as many."""
ROUNDING = 1e-9
"""The relative margin added to a dense L2 norm: far above the rounding in float64 for matrices of this size."""


def is_small(linear: LinearMap) -> bool:
    """Tell whether the dense matrix is used."""
    return min(linear.size) <= SIDE and math.prod(linear.size) <= (ENTRIES if linear.space else 4 * ENTRIES)


def norm_bound(linear: LinearMap, norm: Norm) -> float:
    """Return a bound on max |A x| / |x|, both in `norm`, of the map A with its strides and padding.

    Linf and L1: the largest absolute row and column sum, exact but for reflected, replicated or circular padding, where
    a pixel may count twice. L2: the exact norm of the dense matrix where that is small. Otherwise the smallest of the
    Frobenius norm (of matrices), sqrt(|A|_1 |A|_inf) (Golub & Van Loan, corollary 2.3.2) and, with zero padding, the
    norm of the circular convolution on a torus so large that nothing wraps around, of which A is a part.
    """
    if norm != "L2":
        return _sums(linear, norm)
    if is_small(linear):
        return float(singular_values(linear.matrix())[-1]) * (1 + ROUNDING)
    bounds = [math.sqrt(_sums(linear, "Linf") * _sums(linear, "L1"))]
    if not linear.space:
        bounds.append(float(linear.weight.norm()))
    elif linear.mode == "constant":
        # outputs touch inputs from -before to size + after: on so large a torus the two ends meet in zeros only
        room = tuple(size + max(pair) for size, pair in zip(linear.space, linear.padding, strict=True))
        values, _ = circular_values(linear.weight, room, linear.stride, linear.dilation, linear.groups)
        bounds.append(float(values.max()))
    return min(bounds) * (1 + ROUNDING)


def _sums(linear: LinearMap, norm: Norm) -> float:
    linear = linear.absolute()
    if norm == "Linf":
        ones = linear.weight.new_ones((1, *linear.in_shape))
        return float(linear(ones).max()) * (1 + ROUNDING)
    ones = linear.weight.new_ones((1, *linear.out_shape))
    return float(linear.adjoint(ones).max()) * (1 + ROUNDING)
