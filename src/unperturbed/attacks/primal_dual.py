"""Primal-dual descent: Adam on the boundary's loss, and the norm by its weight, which follows the verdict."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unperturbed.attacks.points import Look, wide, widths
from unperturbed.checks import AT_LEAST_ONE, POSITIVE, check_fields
from unperturbed.losses import margin
from unperturbed.threat import Threat
from unperturbed.threat.geometry import at_least_something, length, peak, total
from unperturbed.types import Inputs, Loss, Norm, PerExample

_DECAY, _SQUARES, _TINY = 0.9, 0.999, 1e-8
"""Of Adam (Kingma & Ba 2015, https://arxiv.org/abs/1412.6980)."""
_FIRST, _LARGEST = 4.6, 13.8
"""Logarithms of the weights' ratio: the first, and the limit in both directions: 100 and a million."""
_BISECTIONS = 30


@dataclass(frozen=True)
class PrimalDual:
    """Minimise (1 - w) ‖d‖ + w log(1 + exp(-margin)) over d, and maximise over w (Matyasko & Chau 2021).

    https://arxiv.org/abs/2106.01538, PDGD in L2 and PDPGD in L1 and Linf. d moves by Adam; in L2 along the gradient of
    both terms, in L1 and Linf along that of the second, followed by the proximal map of the norm in Adam's metric, box
    included, which is exact. log(w / (1 - w)) rises by a rate where the point is classified correctly, and falls
    elsewhere; d sees a running mean of w.

    Attributes:
        steps: moves, each a forward and an input gradient.
        rate: of the first move, in units of the box; it falls geometrically to a hundredth.
        dual_rate: the first change of the weight's logarithm; it falls linearly to a tenth.
    """

    steps: int = 1000
    rate: float = 0.1
    dual_rate: float = 0.1

    def __post_init__(self) -> None:
        """Refuse numbers that leave nothing to do."""
        check_fields(self, steps=AT_LEAST_ONE, rate=POSITIVE, dual_rate=POSITIVE)

    @property
    def loss(self) -> Loss:
        """The margin."""
        return margin

    def supports(self, norm: Norm) -> bool:
        """Tell whether the norm is convex."""
        return norm in ("Linf", "L2", "L1")

    def begin(self, x: Inputs, start: Inputs, threat: Threat) -> "_Weights":
        """Return the first weights, and Adam's moments."""
        ratio = torch.full_like(threat.distance(x, start), _FIRST)
        return _Weights(ratio, ratio.sigmoid(), torch.zeros_like(x), torch.zeros_like(x), widths(threat, x))

    def move(self, x: Inputs, look: Look, k: int, memory: "_Weights", threat: Threat) -> Inputs:
        """Return the points after move k."""
        width, moved = memory.width, look.z - x
        weight = memory.weight
        slope = -wide((-look.value).sigmoid(), x) * look.slope
        if threat.norm == "L2":
            slope = wide(weight, x) * slope + wide(1 - weight, x) * moved / at_least_something(length("L2", moved))
        slope = slope * width  # with respect to moves in units of the box
        memory.mean.lerp_(slope, 1 - _DECAY)
        memory.squares.lerp_(slope.square(), 1 - _SQUARES)
        size = (memory.squares / (1 - _SQUARES ** (k + 1))).sqrt() + _TINY
        rate = self.rate * 0.01 ** (k / self.steps)
        moved = moved - width * rate * memory.mean / (1 - _DECAY ** (k + 1)) / size
        if threat.norm != "L2":
            metric = size / (rate * at_least_something(width.square()))
            shorten = _shortened_l1 if threat.norm == "L1" else _shortened_linf
            moved = shorten(moved, metric, wide((1 - weight) / weight, x), _room(x, moved, threat))
        dual = self.dual_rate * (1 - 0.9 * k / self.steps)
        change = torch.where(look.value > 0, -dual, dual)
        memory.ratio = (memory.ratio + change).clamp(-_LARGEST, _LARGEST)
        memory.weight = torch.lerp(memory.ratio.sigmoid(), weight, _DECAY)
        return x + moved


def _room(x: Inputs, moved: Inputs, threat: Threat) -> Tensor:
    low, high = threat.limits(x)
    return torch.where(moved > 0, high - x, x - low)


def _shortened_l1(moved: Tensor, metric: Tensor, weight: Tensor, room: Tensor) -> Tensor:
    """Return the u that minimises sum(metric (u - moved)^2) / 2 + weight |u|_1; the box may be cut to afterwards."""
    return moved.sign() * torch.minimum((moved.abs() - weight / metric).clamp(min=0), room)


def _shortened_linf(moved: Tensor, metric: Tensor, weight: Tensor, room: Tensor) -> Tensor:
    """Return the u within the room that minimises sum(metric (u - moved)^2) / 2 + weight |u|_inf.

    All sizes are cut to one number t, at which the sum of metric (|moved| - t) over the coordinates that are larger,
    and have more room, is the weight; the sum falls in t, and t is bisected.
    """
    size = moved.abs()
    low, high = torch.zeros_like(peak(moved)), peak(torch.minimum(size, room))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        pull = total(metric * (size - middle).clamp(min=0) * (room > middle))
        low, high = torch.where(pull > weight, middle, low), torch.where(pull > weight, high, middle)
    return moved.sign() * torch.minimum(torch.minimum(size, room), high)


@dataclass(eq=False)
class _Weights:
    """The state of descents."""

    ratio: PerExample
    """log(w / (1 - w))."""
    weight: PerExample
    """The running mean of w."""
    mean: Inputs
    squares: Inputs
    width: Tensor
    """Of the box."""
