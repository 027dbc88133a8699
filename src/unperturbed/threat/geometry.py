"""Geometry of balls cut by boxes, example by example: projections, linear maxima, and directions of steepest ascent.

Every function is batched and keeps the dtype. Masks are numbers, 0 or 1, and loops write into the same memory again, on
purpose: on CPU, `torch.where` and fresh memory cost five to thirty times as much.
"""

import torch
from torch import Tensor

from unperturbed.noise import Noise
from unperturbed.threat.sparse import square_side
from unperturbed.types import Norm

STEEPEST_LIMIT = 1e6
"""The largest push on a blocked coordinate: it suffices to hold it, and a larger one would dominate the others."""

# Reductions over an example keep its axes, so that the results, (n, 1, ...), broadcast back in any memory format.


def axes(t: Tensor) -> tuple[int, ...]:
    """Return the axes of an example."""
    return tuple(range(1, t.dim()))


def total(t: Tensor) -> Tensor:
    """Return the sum over each example."""
    return t.sum(axes(t), keepdim=True) if t.dim() > 1 else t


def peak(t: Tensor) -> Tensor:
    """Return the largest size in each example."""
    return t.abs().amax(axes(t), keepdim=True) if t.dim() > 1 else t.abs()


def smallest(t: Tensor) -> Tensor:
    """Return the smallest value in each example."""
    return t.amin(axes(t), keepdim=True) if t.dim() > 1 else t


def length(norm: Norm, t: Tensor) -> Tensor:
    """Return the norm of each example; L0 counts the entries that are not 0, Patch is the side of their square."""
    if norm == "Linf":
        return peak(t)
    if norm == "L1":
        return total(t.abs())
    if norm == "Patch":
        return square_side(t)
    if norm == "L0":
        return total(torch.where(t.isnan(), t, t.ne(0).to(t.dtype)))
    return total(t.square()).sqrt_()


def at_least_something(size: Tensor) -> Tensor:
    """Return the sizes with 1 in place of 0, to divide by."""
    return torch.where(size == 0, 1.0, size)


def shrink(delta: Tensor, room: Tensor, eps: float) -> Tensor:
    """Return t·delta with t such that min(t·|delta|, room) has the length eps: the projection on ball ∩ box for L2.

    Its optimality conditions say that the nearest point is x + clamp(t·delta, low - x, high - x).
    """
    delta = delta / at_least_something(peak(delta))
    return delta * reach(delta.square(), room.square_(), eps**2).sqrt_()


def stretch(gradient: Tensor, room: Tensor, eps: float) -> Tensor:
    """Return t·gradient with t such that min(t·|gradient|, room) has the length eps, or all of the room, for L2."""
    return shrink(gradient * room.sign(), room, eps)


def reach(squares: Tensor, caps: Tensor, target: float | Tensor) -> Tensor:
    """Return per example the s with sum(min(s · squares, caps)) = target, or a huge s where the caps sum to less.

    The sum is concave and piecewise linear in s: Newton's method climbs from the left, only adds capped coordinates,
    and is exact as soon as a step adds none; a finished example does not change while others are computed.
    """
    huge = torch.finfo(squares.dtype).max
    scaled, cut = torch.empty_like(squares), torch.empty_like(squares)
    slope = total(squares)
    s = torch.where(slope > 0, target / slope, 0.0)
    for _ in range(squares.shape[1:].numel()):
        torch.mul(squares, s, out=scaled)
        missing = target - total(torch.minimum(scaled, caps, out=cut))
        free = total(scaled.lt_(caps).mul_(squares))
        climbing = free < slope
        if not climbing.any():
            break
        s = torch.where(climbing, torch.where(free > 0, s + missing.clamp_(min=0.0) / free, huge), s)
        slope = free
    return s


def soft_threshold(delta: Tensor, room: Tensor, eps: float) -> Tensor:
    """Return sign(delta) · max(|delta| - λ, 0); λ is such that the result, cut to the room, has L1 length eps.

    Cut to the room, this is the projection on ball ∩ box for L1. Finds λ by fixing variables (Bitran & Hax, 1981;
    Kiwiel, 2008, https://doi.org/10.1007/s10957-007-9317-7): solve without limits, compare the excess at zero with the
    excess at the room, and fix the coordinates of the larger one, until none violates its limits.
    """
    size, room = delta.abs(), room.clamp_(max=torch.finfo(delta.dtype).max)
    free = size.sign()  # 1 where λ is still to be found, 0 where a coordinate is fixed at zero or at its room
    lengths, edge, product = torch.empty_like(size), torch.empty_like(size), torch.empty_like(size)
    count = total(free)
    budget = torch.full_like(count, eps)

    def shift() -> Tensor:
        """Return the number that, taken from every size, makes the free ones sum to the budget."""
        return (total(torch.mul(size, free, out=product)) - budget).div_(count.clamp(min=1.0))

    searching = torch.ones_like(count)  # 1 until no coordinate remains to be fixed; a finished example does not change
    for _ in range(size.shape[1:].numel()):
        size.sub_(shift().mul_(searching))
        torch.minimum(torch.clamp(size, min=0.0, out=lengths), room, out=lengths)
        too_short = total(torch.mul(lengths, free, out=product)) <= budget
        # Where it is too long, λ can only grow, so that zeros stay zero; where too short, it can only fall.
        torch.mul(room, too_short.to(size.dtype), out=edge)
        staying = lengths.ne_(edge).mul_(free)
        budget = budget - total(free.sub_(staying).mul_(edge))
        free, lengths = staying, free
        before, count = count, total(free)
        searching = (count < before).to(size.dtype)
        if not searching.any():
            break
    size.sub_(shift())  # a second time, on numbers that are small by now, and so is their rounding
    return torch.copysign(size.clamp_(min=0.0), delta)


def fill_greedily(gradient: Tensor, room: Tensor, eps: float) -> Tensor:
    """Return the budget eps, spent on the coordinates of largest gradient first, on each up to its room."""
    rows = (len(gradient), -1) if len(gradient) else (0, gradient.shape[1:].numel())
    room = room.clamp(max=eps).reshape(rows)
    value = gradient.reshape(rows).abs() * room.gt(0.0)
    budget = torch.full((len(value), 1), eps, dtype=value.dtype, device=value.device)
    return fill(value, room, budget, 64).view(gradient.shape) * gradient.sign()


def spend_greedily(slope: Tensor, room: Tensor, gain: Tensor) -> Tensor:
    """Return the move that reaches `gain` by the coordinates of largest slope first, by each up to its room."""
    rows = (len(slope), -1) if len(slope) else (0, slope.shape[1:].numel())
    size, target = slope.abs(), gain.reshape(-1, 1)
    limits = torch.minimum(size * room, gain).reshape(rows)
    gained = fill(size.reshape(rows) * limits.gt(0.0), limits, target, 64).view(slope.shape)
    return torch.minimum(gained / at_least_something(size), room) * slope.sign()


def fill(value: Tensor, room: Tensor, budget: Tensor, count: int) -> Tensor:
    """Return the share of every coordinate, the largest values first, without sorting all (ten times slower).

    The budget rarely reaches beyond the first `count`; examples where it does are filled again with more.
    """
    best, indices = value.topk(min(count, value.shape[1]), dim=1)
    amounts = room.gather(1, indices)
    before = amounts.cumsum(1) - amounts
    filled = torch.zeros_like(value).scatter_(1, indices, torch.minimum((budget - before).clamp_(min=0.0), amounts))
    unspent = (amounts.sum(1, keepdim=True) < budget)[:, 0] & (best[:, -1] > 0)
    if count < value.shape[1] and unspent.any():
        filled[unspent] = fill(value[unspent], room[unspent], budget[unspent], 4 * count)
    return filled


def steepest_l2(gradient: Tensor, free: Tensor) -> Tensor:
    """Return the L2 unit direction of the gradient, its length counted over the free coordinates."""
    largest = peak(gradient * free)
    scaled = gradient / torch.where(largest == 0, torch.inf, largest)
    size = total((scaled * free).square_()).sqrt_()
    return (scaled / at_least_something(size)).clamp_(-STEEPEST_LIMIT, STEEPEST_LIMIT)


def steepest_l1(gradient: Tensor, free: Tensor, count: Tensor | None) -> Tensor:
    """Return equal parts for the coordinates of largest gradient; a `count` of None means 1."""
    least = peak(gradient * free) if count is None else ranked((gradient * free).abs_(), count)
    chosen = gradient.abs().ge_(least).mul_(gradient.ne(0))
    number = total(chosen * free)
    share = (number > 0) / number.clamp(min=1.0)
    return gradient.sign() * chosen * share


def ranked(size: Tensor, count: Tensor) -> Tensor:
    """Return the count-th largest size of each example, which keeps its axes."""
    flat = size.reshape(len(size), size.shape[1:].numel())
    index = count.long().clamp(1, flat.shape[1]) - 1
    if len(flat) == 0:
        return peak(size)
    largest = flat.topk(int(index.max()) + 1, dim=1).values
    return largest.gather(1, index[:, None]).view(-1, *[1] * (size.dim() - 1))


def ball_l2(noise: Noise, x: Tensor, free: Tensor | None = None) -> Tensor:
    """Return points uniform in the unit ball: a normal direction, and a radius with P(r < t) = t^d.

    With `free`, 0 or 1 a feature, in that of the d features of 1.
    """
    direction, d = noise.fold(0).normal(x.shape[1:], x.dtype), x.shape[1:].numel()
    if free is not None:
        direction, d = direction * free, int(free.sum())
    radius = noise.fold(1).uniform((1,) * (x.dim() - 1), x.dtype) ** (1 / d)
    return direction * (radius / length("L2", direction))


def ball_l1(noise: Noise, x: Tensor, free: Tensor | None = None) -> Tensor:
    """Return points uniform in the unit L1 ball: Laplace numbers over their length plus one exponential number.

    (Barthe et al., 2005, https://doi.org/10.1214/009117904000000874.) With `free`, 0 or 1 a feature, in that of the
    features of 1.
    """
    signed = noise.fold(0).uniform(x.shape[1:], x.dtype) * 2 - 1
    laplace = torch.copysign(torch.log1p(-signed.abs()), signed)
    laplace = laplace if free is None else laplace * free
    surplus = -noise.fold(1).uniform((1,) * (x.dim() - 1), x.dtype).log()
    return laplace / (length("L1", laplace) + surplus)
