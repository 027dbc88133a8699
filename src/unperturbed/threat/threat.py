"""The set of allowed inputs around an example, S(x) = {z : ‖z - x‖ <= eps, low <= z <= high}, and its geometry.

The only place that knows norms. Every function is batched, takes inputs of any rank, keeps the dtype, and assumes
that x itself lies inside the box; no gradient flows through the results. Masks are numbers, 0 or 1, and loops write
into the same memory again, on purpose: on CPU, `torch.where` and fresh memory cost five to thirty times as much.
"""

import math
from dataclasses import dataclass
from numbers import Real
from typing import get_args

import torch
from jaxtyping import Bool
from torch import Tensor

from unperturbed.checks import LARGEST, Rule, check
from unperturbed.errors import InputError
from unperturbed.noise import Noise
from unperturbed.threat.box import checked_bounds, limit
from unperturbed.threat.geometry import (
    at_least_something,
    ball_l1,
    ball_l2,
    fill_greedily,
    length,
    peak,
    reach,
    shrink,
    smallest,
    soft_threshold,
    spend_greedily,
    steepest_l1,
    steepest_l2,
    stretch,
)
from unperturbed.threat.shares import (
    changing,
    checked_shares,
    count_changing,
    length_over_shares,
    over_shares,
    rounding_over_shares,
    share_of,
    times_shares,
    within_shares,
)
from unperturbed.threat.sparse import best_support, nearest_sparse, random_support
from unperturbed.threat.spelling import listed, norm_of, read, spelled
from unperturbed.types import Bounds, Inputs, Norm, PerExample

_SPARSE = ("L0", "Patch")
"""Norms that count what changes, whatever the size of the change."""
_RADIUS = Rule("must be a finite radius of 0 or more, in input units", lambda eps: 0 <= eps <= LARGEST)
_INSIDE = 5e-7
"""A projection does not move points beyond eps by less than this share, half of the slack of `contains`."""


@dataclass(frozen=True, eq=False)
class Threat:
    """The perturbed inputs that are allowed: a ball of radius `eps` in a norm, cut by a box.

    `norm` is "Linf", "L2", "L1", "L0" or "Patch"; `eps` is in input units, 0 included, and in L0 the number of features
    that may change, to any value of the box (each channel of a pixel is a feature). In "Patch" it is the side of the
    one square, anywhere in the image, whose pixels may change to any value of the box; the last two axes are height and
    width. `bounds` are the lowest and the highest allowed input, as two numbers or as two tensors that broadcast to one
    example, or None for no box.

    `shares` are for tables, whose examples are vectors: one number a feature, which may change by its share of eps, so
    that the ball is that of the changes over their shares. A share of 0 is of a feature that never changes. In norms
    other than Linf shares are 0 or 1, and a patch has none.

    Raises InputError for an unknown norm, an eps that is negative or not finite, bounds that contain nothing, and
    shares that are negative, not finite, or all 0.
    """

    norm: Norm
    eps: float
    bounds: Bounds = (0.0, 1.0)
    shares: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Check norm, eps and bounds, and normalise their types."""
        if not isinstance(self.norm, str | Real):
            check("norm", self.norm, str)
        if self.norm not in get_args(Norm):
            spelling = norm_of(str(self.norm))
            raise InputError(
                f"unknown norm {self.norm!r}: "
                + (f"write {spelling!r}" if spelling else "use Linf, L2, L1, L0 or Patch")
            )
        object.__setattr__(self, "eps", _checked_eps(self.eps))
        object.__setattr__(self, "bounds", checked_bounds(self.bounds))
        object.__setattr__(self, "shares", checked_shares(self.shares, self.norm))
        if self.norm in _SPARSE and 0 < self.eps < 1:
            counted = {
                "L0": "changed features: give a whole number, L0:20.",
                "Patch": "the pixels of a side: Patch:5x5.",
            }
            raise InputError(f"eps is {self.eps:g}, but in {self.norm} it counts {counted[self.norm]}")

    @classmethod
    def parse(cls, text: str, bounds: Bounds = (0.0, 1.0)) -> "Threat":
        """Read a threat from "Linf:8/255", "l2:0.5", "1:12", "Patch:5x5", or with shares from "Linf:0.1[1;0;50]".

        Raises InputError for anything else.
        """
        norm, eps, shares = read(check("threat", text, str))
        return cls(norm, eps, bounds, shares)

    @property
    def text(self) -> str:
        """The text that `parse` reads, without the bounds."""
        return f"{self.norm}:{self.eps!r}{listed(self.shares)}"

    def __str__(self) -> str:
        """Return the text that `parse` reads, such as "Linf:8/255", followed by bounds other than [0, 1]."""
        name = spelled(self.norm, self.eps) + listed(self.shares)
        if self.bounds is None:
            return f"{name} without bounds"
        low, high = self.bounds
        if isinstance(low, Tensor) or isinstance(high, Tensor):
            return f"{name} within bounds per feature"
        return name if (low, high) == (0.0, 1.0) else f"{name} within [{low:g}, {high:g}]"

    def limits(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the box on the device and in the dtype of the inputs `like`: (low, high), infinite without a box.

        Both broadcast to one example. Raises InputError when bounds per feature do not fit the inputs.
        """
        low, high = (-torch.inf, torch.inf) if self.bounds is None else self.bounds
        return limit(low, like), limit(high, like)

    def distance(self, x: Inputs, z: Inputs) -> PerExample:
        """Return ‖z - x‖ per example."""
        return length_over_shares(self.norm, z - x, self.shares).flatten()

    def radii(self, x: Inputs) -> float | Tensor:
        """Return how far a feature may change alone, the box aside: eps, with shares one number a feature."""
        return self.eps if self.shares is None else self.eps * share_of(self.shares, x)

    def fixed(self, x: Inputs, z: Inputs) -> Inputs:
        """Return z with the values of x in features that never change."""
        return z if self.shares is None else torch.where(share_of(self.shares, x) > 0, z, x)

    def in_shares(self, x: Inputs) -> Inputs:
        """Return x over the shares, features that never change as 0: differences of these have the norm of the ball."""
        return over_shares(x, self.shares)

    def dual_norm(self, gradient: Inputs) -> PerExample:
        """Return max <gradient, d> over ‖d‖ <= 1 per example: the L1, L2 or Linf norm of the gradient."""
        self.refuse_sparse("The dual norm")
        dual: dict[Norm, Norm] = {"Linf": "L1", "L2": "L2", "L1": "Linf"}
        gradient = times_shares(gradient, self.shares)
        largest = at_least_something(peak(gradient))  # the squares of a small gradient would be 0 in float32
        return (length(dual[self.norm], gradient / largest) * largest).flatten()

    def contains(self, x: Inputs, z: Inputs) -> Bool[Tensor, " n"]:
        """Tell per example whether z lies in S(x): inside the box exactly, inside the ball up to float32 rounding.

        The slack is 1e-6 · eps + 1e-7 · max(1, ‖x‖∞): the rounding error of x + delta in float32. A point with NaN is
        outside, and one where a feature of share 0 has changed at all. With shares in Linf, each feature has its own
        slack, so that a large feature widens no other's.
        """
        low, high = self.limits(x)
        slack = 1e-6 * self.eps + self.rounding(x)
        allowed = (z >= low) & (z <= high)
        inside = smallest(allowed.to(x.dtype)).flatten() > 0
        if self.shares is None:
            return inside & (self.distance(x, z) <= self.eps + slack)
        return inside & within_shares(self.norm, self.eps, self.shares, x, z, slack)

    def rounding(self, x: Inputs) -> PerExample:
        """Return the rounding error of the distance of x + delta in float32, per example: 1e-7 · max(1, ‖x‖∞).

        With shares the largest 1e-7 · max(1, |x_i|) / share_i of the features that may change.
        """
        return rounding_over_shares(x, self.shares)

    @torch.no_grad()
    def project(self, x: Inputs, z: Inputs) -> Inputs:
        """Return the nearest point of S(x) to z in the Euclidean norm, exactly, box included.

        A point of S(x) is returned unchanged. Where z is NaN, so is the result.
        """
        if self.norm == "Linf":
            reach = self.radii(x)
            return self._cut(z.clamp(x - reach, x + reach))
        z = self.fixed(x, z)
        boxed = self._cut(z.clone())
        outside = length(self.norm, boxed - x) > self.eps * (1 + _INSIDE)
        if not outside.any():
            return boxed
        if self.norm in _SPARSE:
            return torch.where(outside, nearest_sparse(self.norm, x, z, boxed, self.features(x)), boxed)
        delta = z - x
        shorten = shrink if self.norm == "L2" else soft_threshold
        return torch.where(outside, self._add(x, shorten(delta, self._room(x, delta), self.eps)), boxed)

    @torch.no_grad()
    def sample(self, x: Inputs, noise: Noise) -> Inputs:
        """Return random points of S(x): uniform for Linf; uniform in the ball and then projected for L2 and L1.

        For L0 as many random features as may change, for Patch those of a random square, each uniform in its bounds.
        """
        shape = x.shape[1:]
        if self.norm in _SPARSE:
            low, high = self.finite_limits(x)
            values = torch.lerp(low.expand_as(x), high.expand_as(x), noise.fold(1).uniform(shape, x.dtype))
            support = random_support(self.norm, noise.fold(0), x, self.features(x), changing(self.shares, x))
            return torch.where(support, self._cut(values), x)
        if self.norm == "Linf":
            reach = self.radii(x)
            low, high = self._cut(x - reach), self._cut(x + reach)
            return torch.lerp(low, high, noise.uniform(shape, x.dtype))
        ball = ball_l2 if self.norm == "L2" else ball_l1
        direction = ball(noise, x, changing(self.shares, x))
        return self._add(x, self.eps * direction)  # cutting with the box projects: it leads no point out of the ball

    def longest(self, x: Inputs) -> float:
        """Return the L2 length of the longest displacement in the ball, the box aside: eps * sqrt(d) for Linf."""
        self.refuse_sparse("The longest displacement")
        corner = math.hypot(*self.shares) if self.shares is not None else math.sqrt(x[0].numel())
        return self.eps * (corner if self.norm == "Linf" else 1.0)

    def even_share(self, x: Inputs) -> float:
        """Return how far each feature moves where all move alike by eps in all: eps / d^(1/p), eps itself for Linf.

        d counts the features that may change. For L0 and Patch the mean move where all features that may change cross
        the box.
        """
        d = count_changing(self.shares, x)
        if self.norm in _SPARSE:
            low, high = self.finite_limits(x)
            changing = best_support(self.norm, torch.ones_like(x[:1]), self.features(x))
            return float((high - low).mean()) * float(changing.sum()) / max(d, 1)
        shares: dict[Norm, float] = {"Linf": 1.0, "L2": math.sqrt(d), "L1": float(d)}
        return self.eps / shares[self.norm]

    def distortion(self, x: Inputs, z: Inputs) -> PerExample:
        """Return |z - x|_2 over the longest in the ball, 1 at the cube's corners (Tsiligkaridis & Roberts 2022).

        https://arxiv.org/abs/2012.12368; low values of a Frank-Wolfe search mean a curved loss. 0 where eps is 0.
        """
        return length("L2", z - x).flatten() / (self.longest(x) or 1.0)

    @torch.no_grad()
    def maximise_linear(self, x: Inputs, gradient: Inputs) -> Inputs:
        """Return a point of S(x) where <gradient, z> is largest, exactly, box included; x where the gradient is 0.

        For Linf this is FGSM (Goodfellow et al., 2015, https://arxiv.org/abs/1412.6572); in each norm it is the
        linear maximisation oracle of Frank-Wolfe.
        """
        if self.norm == "Linf" and self.shares is None:
            return self._cut(torch.add(x, gradient.sign(), alpha=self.eps))
        if self.norm == "Linf":
            return self._cut(x + self.radii(x) * gradient.sign())
        gradient = times_shares(gradient, self.shares)
        if self.norm in _SPARSE:
            low, high = self.finite_limits(x)
            bound = torch.where(gradient > 0, high, low)
            gain = gradient.abs() * (bound - x).abs()
            return torch.where(best_support(self.norm, gain, self.features(x)) & (gain > 0), bound, x)
        room = self._room(x, gradient)
        best = stretch if self.norm == "L2" else fill_greedily
        return self._add(x, best(gradient, room, self.eps))

    @torch.no_grad()
    def steepest_ascent(self, z: Inputs, gradient: Inputs) -> Inputs:
        """Return the direction v of unit norm that climbs <gradient, v> fastest among those that the box allows at z.

        The norm counts only coordinates with room, those where z is not yet at the bound that the gradient points
        to. The others keep their push: `project` holds them at their bound, and for L2 and L1 it would otherwise
        draw them back to pay for the step. So the maximum of a linear score over S(x) is a fixed point of
        z -> project(x, z + a v). For L1 the step goes to the single coordinate with room of largest gradient (ties
        share it; compare Croce & Hein, 2021, https://arxiv.org/abs/2103.01208). Zero where nothing can move.
        """
        self.refuse_sparse("A direction of steepest ascent")
        if self.norm == "Linf":
            return times_shares(gradient.sign(), self.shares)
        gradient = times_shares(gradient, self.shares)
        free = self.room(z, gradient)
        return steepest_l2(gradient, free) if self.norm == "L2" else steepest_l1(gradient, free, None)

    @torch.no_grad()
    def spread_ascent(self, z: Inputs, gradient: Inputs, count: PerExample) -> Inputs:
        """Return the L1 unit direction that goes, in equal parts, to the `count` coordinates of largest gradient.

        As in `steepest_ascent`, which has a count of 1: coordinates without room are not counted and keep their push
        (the sparse steps of Croce & Hein, 2021, https://arxiv.org/abs/2103.01208, eq. 14, made aware of the box).
        """
        gradient = times_shares(gradient, self.shares)
        return steepest_l1(gradient, self.room(z, gradient), count)

    def room(self, z: Inputs, direction: Inputs) -> Inputs:
        """Return 1 for the coordinates that the box lets move in this direction, 0 for those at its bound."""
        rounding = 1e-6 * self.eps + 2.5e-7 * z.abs()
        room, free = self._room(z, direction).gt_(rounding), changing(self.shares, z)
        return room if free is None else room * free

    @torch.no_grad()
    def to_plane(self, z: Inputs, slope: Inputs, gain: PerExample) -> Inputs:
        """Return the shortest move d, in this norm, with <slope, d> = gain that the box allows at z, exactly.

        Where the box does not allow this gain, the move of largest gain. The radius does not matter.
        (The three projections of Croce & Hein, 2020, https://arxiv.org/abs/1907.02044, section 2.)
        """
        self.refuse_sparse("The nearest point of a plane")
        slope = times_shares(slope, self.shares)  # that of the changes over their shares
        largest = at_least_something(peak(slope))
        gain = gain.view(-1, *[1] * (z.dim() - 1))
        slope, target = slope / largest * gain.sign(), gain.abs() / largest
        size, room = slope.abs(), self._room(z, slope).clamp_(max=torch.finfo(z.dtype).max)
        if self.shares is not None:
            room = (room / at_least_something(share_of(self.shares, z))).clamp_(max=torch.finfo(z.dtype).max)
        if self.norm == "L1":
            return times_shares(spend_greedily(slope, room, target), self.shares)
        growth = size if self.norm == "Linf" else size.square()
        scale = reach(growth, size * room, target)
        return times_shares(
            torch.minimum(scale * (1.0 if self.norm == "Linf" else size), room) * slope.sign(), self.shares
        )

    @torch.no_grad()
    def extend(self, x: Inputs, delta: Inputs) -> Inputs:
        """Return x + eps · delta / ‖delta‖, cut to the box; x where delta is 0. Features of share 0 stay."""
        self.refuse_sparse("A displacement of length eps")
        free = changing(self.shares, x)
        delta = delta if free is None else delta * free
        return self._add(x, delta * (self.eps / at_least_something(length_over_shares(self.norm, delta, self.shares))))

    @torch.no_grad()
    def scatter(self, x: Inputs, noise: Noise) -> Inputs:
        """Return random points far from x, where APGD begins: uniform (Linf) or normal (L2) noise of length eps.

        For L1, normal noise projected onto S(x), which leaves few coordinates changed. For L0 and Patch as `sample`.
        """
        if self.norm in _SPARSE:
            return self.sample(x, noise)
        if self.norm == "Linf":
            return self.extend(x, times_shares(noise.uniform(x.shape[1:], x.dtype) * 2 - 1, self.shares))
        normal = noise.normal(x.shape[1:], x.dtype)
        return self.extend(x, normal) if self.norm == "L2" else self.project(x, x + normal)

    def features(self, x: Inputs) -> int:
        """Return how many features may change in L0, or the side of the square: the largest whole number up to eps."""
        return min(int(self.eps * (1 + 1e-6)), count_changing(self.shares, x))

    def finite_limits(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return `limits`; raises InputError where one is infinite, since a feature could take any value there."""
        low, high = self.limits(like)
        if not (bool(low.isfinite().all()) and bool(high.isfinite().all())):
            raise InputError(
                f"{self.norm} needs bounds: without them a single feature may take any value. Give --bounds LOW,HIGH."
            )
        return low, high

    def refuse_sparse(self, what: str) -> None:
        """Raise InputError where the norm is L0 or Patch, in which something is not defined or not supported."""
        if self.norm in _SPARSE:
            raise InputError(f"{what} is not defined in {self.norm}, whose ball is not convex: use Linf, L2 or L1.")

    def refuse_shares(self, what: str) -> None:
        """Raise InputError where features have shares, with which something is not defined or not supported."""
        if self.shares is not None:
            raise InputError(f"{what} is not defined where features have their own eps, or never change: leave it out.")

    @torch.no_grad()
    def boxed(self, z: Inputs) -> Inputs:
        """Return z clamped to the box alone, without the ball."""
        return self._cut(z.clone())

    def _cut(self, z: Tensor) -> Tensor:
        """Bring z, which is overwritten, into the box."""
        if self.bounds is None:
            return z
        low, high = self.bounds
        if isinstance(low, float) and isinstance(high, float):
            return z.clamp_(low, high)
        return z.clamp_(*self.limits(z))

    def _room(self, z: Tensor, direction: Tensor) -> Tensor:
        """Return how far each coordinate of z may move in this direction before it meets the box, as lengths >= 0."""
        far = torch.full((), torch.inf, dtype=z.dtype, device=z.device)
        return self._cut(torch.copysign(far, direction)).sub_(z).abs_()

    def _add(self, x: Tensor, delta: Tensor) -> Tensor:
        """Return x + delta inside the box, one float32 step nearer to x where rounding has led out of the ball."""
        z = self._cut(x + delta)
        beyond = length_over_shares(self.norm, z - x, self.shares) > self.eps * (1 + _INSIDE)
        if z.device.type == "cpu" and not beyond.any():  # elsewhere, the question would wait for the device
            return z
        return torch.where(beyond, torch.nextafter(z, x), z)


def _checked_eps(eps: object) -> float:
    if not isinstance(eps, Real) or isinstance(eps, bool):
        raise InputError(f"eps is {eps!r}, not a number: give a number, or read text with Threat.parse('Linf:8/255')")
    return float(check("eps", eps, float, _RADIUS))
