"""Auto-PGD: momentum, and a step size that halves where the climb stalls."""

from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from unperturbed.checks import AT_LEAST_ONE, SHARE, check_fields
from unperturbed.maximise.ascent import Ascent, Memory
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Inputs, PerExample

_L1_SHARE, _L1_SHRINK, _L1_SMALLEST = 0.2, 1.5, 0.1
"""Of APGD-L1: the share of coordinates that the first step changes, what it is divided by, the smallest step."""


@dataclass(frozen=True)
class APGD(Ascent):
    """z <- P(z + 0.75 (P(z + size d) - z) + 0.25 (z - previous z)), d the steepest unit direction (Croce & Hein 2020).

    The size begins at 2 eps. At checkpoints, 22% of the moves after the start and then ever closer, it is halved and
    the climb continues from its best point, where fewer than 75% of the moves have raised the score, or where neither
    the size nor the best score has changed since the last checkpoint. https://arxiv.org/abs/2003.01690, algorithm 1
    and section 3.2. Where an input has met the box, d is `Threat.steepest_ascent`'s, and projections are exact.

    In L1 it is APGD-L1 (Croce & Hein 2021, https://arxiv.org/abs/2103.01208, algorithm 1): no momentum; the step goes
    to the K coordinates of largest gradient, K following the sparsity of the best point; its size begins at eps, is
    divided by 1.5 at each checkpoint down to eps / 10, and begins anew, at the best point, where that became sparser.
    Coordinates that have met the box are counted neither in K nor as changed (else a few of them stop the climb).

    Attributes:
        steps: moves, each one forward and one input gradient.
        rho: share of the moves between two checkpoints that must have raised the score.
        wide: in L1, spend 30% of the moves at 3 eps and 30% at 2 eps first; points found there do not count.
    """

    name: ClassVar[str] = "apgd"
    uses_value: ClassVar[bool] = True
    steps: int = 100
    rho: float = 0.75
    wide: bool = False

    def __post_init__(self) -> None:
        """Refuse a number of steps below 1, and a share outside of [0, 1]."""
        check_fields(self, steps=AT_LEAST_ONE, rho=SHARE)

    def start(self, x: Inputs, threat: Threat, noise: Noise) -> Inputs:
        """Return a random point far from x."""
        return replace(threat, eps=self._stages(threat)[0][1] * threat.eps).scatter(x, noise)

    def memory(self, x: Inputs, noise: Noise) -> Memory:
        """Return the best and the previous point with their scores and slopes, and the state of the step size."""
        number = x.new_zeros(len(x))
        return {
            "best": x.clone(),
            "slope": torch.zeros_like(x),  # at the best point
            "top": number - torch.inf,  # the score there
            "previous": x.clone(),
            "last": number + torch.inf,  # the score there
            "rises": number.clone(),  # moves that have raised the score since the last checkpoint
            "checked": number - torch.inf,  # the best score at the last checkpoint
            "halved": torch.ones(len(x), dtype=torch.bool, device=x.device),  # there; the first one is not asked
            "size": number + 1.0,  # of the step, in units of the first one
            "support": number + x.shape[1:].numel(),  # coordinates in which the best point differed from x there
            "count": number + _L1_SHARE * x.shape[1:].numel(),  # coordinates that a step in L1 changes
        }

    def trial(self, threat: Threat) -> int:
        """Return the number of points looked at in larger balls."""
        return self._stages(threat)[-1][0]

    def step(
        self,
        x: Inputs,
        z: Inputs,
        value: PerExample,
        gradient: Inputs,
        k: int | Tensor,
        memory: Memory,
        threat: Threat,
    ) -> Inputs:
        """Return the point after the move, from the best point so far where the step size is cut."""
        number = torch.as_tensor(k, device=x.device).reshape(-1).expand(len(x)).clamp(max=self.steps)
        better = value > memory["top"]
        memory["top"] = torch.where(better, value, memory["top"])
        chosen = _per_input(better, z)
        memory["best"] = torch.where(chosen, z, memory["best"])
        memory["slope"] = torch.where(chosen, gradient, memory["slope"])
        move = self._sparse if threat.norm == "L1" else self._dense
        return move(x, z, value, gradient, number, memory, threat)

    def _dense(
        self, x: Inputs, z: Inputs, value: PerExample, gradient: Inputs, k: Tensor, memory: Memory, threat: Threat
    ) -> Inputs:
        memory["rises"] += value > memory["last"]
        period = _periods_on(self.steps, x.device)[k]
        check = period > 0
        stalled = ~memory["halved"] & (memory["checked"] >= memory["top"])
        halve = check & (stalled | (memory["rises"] <= self.rho * period))
        z, gradient = _back_to_best(z, gradient, halve, memory)
        memory["size"] = torch.where(halve, memory["size"] / 2, memory["size"])
        memory["halved"] = torch.where(check, halve, memory["halved"])
        memory["checked"] = torch.where(check, memory["top"], memory["checked"])
        memory["rises"] *= ~check
        memory["last"] = value.clone()

        length = 2 * threat.eps * _per_input(memory["size"], x)
        ahead = threat.project(x, z + length * threat.steepest_ascent(z, gradient))
        inertia = _per_input(0.25 * (k > 0).to(x.dtype), x)
        new = threat.project(x, z + (1 - inertia) * (ahead - z) + inertia * (z - memory["previous"]))
        memory["previous"] = z.clone()
        return new

    def _sparse(
        self, x: Inputs, z: Inputs, value: PerExample, gradient: Inputs, k: Tensor, memory: Memory, threat: Threat
    ) -> Inputs:
        stages = self._stages(threat)
        ends = [*(begin for begin, _ in stages[1:]), self.steps]
        first, period = torch.zeros_like(k), torch.ones_like(k)
        for (begin, _), end in zip(stages, ends, strict=True):
            first = torch.where(k >= begin, begin, first)
            period = torch.where(k >= begin, max(int(0.04 * (end - begin)), 1), period)
        changing = threat.room(memory["best"], memory["slope"]) * memory["best"].ne(x)
        support = changing.flatten(1).sum(1)
        check = (k > first) & ((k - first) % period == 0)
        sparser = check & (support < 0.95 * memory["support"])
        z, gradient = _back_to_best(z, gradient, sparser, memory)
        smaller = (memory["size"] / _L1_SHRINK).clamp(min=_L1_SMALLEST)
        memory["size"] = torch.where(check, torch.where(sparser, 1.0, smaller), memory["size"])
        count = check | (k == first) if self.wide else check  # in larger balls, even the first step follows the point
        memory["count"] = torch.where(count, support / _L1_SHRINK, memory["count"])
        memory["support"] = torch.where(count, support, memory["support"])

        new, direction = z, _per_input(memory["size"], x) * threat.spread_ascent(z, gradient, memory["count"])
        for (begin, radius), end in zip(stages, ends, strict=True):
            ball = replace(threat, eps=radius * threat.eps)
            within = (k + 1 >= begin) & ((k + 1 < end) | (end == self.steps))
            entering = within & (k + 1 == begin)
            if len(stages) == 1 or bool((within & ~entering).any()):
                new = torch.where(_per_input(within, x), ball.project(x, z + ball.eps * direction), new)
            if len(stages) > 1 and bool(
                entering.any()
            ):  # a move that only goes into the smaller ball, from the best point of the larger
                new = torch.where(_per_input(entering, x), ball.project(x, memory["best"]), new)
                memory["top"] = torch.where(entering, -torch.inf, memory["top"])
                memory["size"] = torch.where(entering, 1.0, memory["size"])
        return new

    def _stages(self, threat: Threat) -> list[tuple[int, float]]:
        """Return the stages as pairs: the first point, and the radius in units of eps."""
        third = int(0.3 * self.steps)
        if not self.wide or threat.norm != "L1" or third == 0:
            return [(0, 1.0)]
        return [(0, 3.0), (third, 2.0), (2 * third, 1.0)]


def _back_to_best(z: Inputs, gradient: Inputs, where: Tensor, memory: Memory) -> tuple[Inputs, Inputs]:
    if where.device.type == "cpu" and not bool(where.any()):  # elsewhere, the question would wait for the device
        return z, gradient
    chosen = _per_input(where, z)
    return torch.where(chosen, memory["best"], z), torch.where(chosen, memory["slope"], gradient)


def _per_input(values: Tensor, like: Inputs) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))


@cache
def _periods_on(steps: int, device: torch.device) -> Tensor:
    """Return `_periods` on a device, to which it is copied once."""
    with torch.inference_mode(False):
        return torch.tensor(_periods(steps), device=device)


@cache
def _periods(steps: int) -> list[int]:
    """Return, for each point of a climb, the moves since the last checkpoint if it is a checkpoint, else 0.

    The periods are 22% of the moves, then 3% less each time, and at least 6%.
    """
    periods = [0] * (steps + 1)
    period, point = max(int(0.22 * steps), 1), 0
    while point + period <= steps:
        point += period
        periods[point] = period
        period = max(period - max(int(0.03 * steps), 1), int(0.06 * steps), 1)
    return periods
