"""Whether the gradient that attacks follow is the slope of the function that they attack.

By central differences close to an example, to the point that an attack has found and to a random one far away, and by
the change along two segments across the threat set. Both are of the lead of one class over the label, whose gradient
needs no loss.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from unperturbed.networks.modes import own_randomness
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Labels, Logits, PerExample

Network = Callable[[Tensor], Logits]
MOST = 32
"""Examples of a block that are looked at."""
APART = 0.05
"""How far away slopes are compared, as a share of the radius: at an example itself maxima are tied, units are exactly 0
and pixels lie on the bounds of the box."""
RANDOM = 3
"""Random directions, in addition to the gradient and the attack's path."""
FINE, COARSE = ((1e-5, 0.1),), ((1e-3, 0.15), (1e-2, 0.3), (1e-1, 0.5))
"""Steps of the differences, as shares of the radius, and the relative difference from which a slope is wrong: in
float64, and in float32, where a longer one is for what a shorter one drowns in rounding. A long step sees kinks."""
NODES, MORE_NODES = 8, 64
"""Gradients along a segment; and where they do not add up to the change: a saturated network's need more."""
OFF = 0.7
"""Relative difference from which they do not."""


@dataclass(frozen=True)
class GradientCheck:
    """How many examples were looked at, and on how many the gradient failed.

    Attributes:
        slopes: examples on which differences tell more than rounding.
        wrong: of these, those where autograd's slope is another.
        lost: of `slopes`, those where it is right in float64 and another in the precision of the weights.
        segments: examples with a segment on which the function changes, or is said to.
        off: of these, those where the gradients along it do not add up to the change.
    """

    slopes: int = 0
    wrong: int = 0
    lost: int = 0
    segments: int = 0
    off: int = 0

    def __add__(self, other: "GradientCheck") -> "GradientCheck":
        """Return the counts of both."""
        return GradientCheck(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


def check_gradient(model: nn.Module, batch: Batch, z: Inputs, threat: Threat, seed: int, random: bool) -> GradientCheck:
    """Return on how many of the examples (a few dozen) the gradient is not the slope; `z` are the points found.

    A network that draws random numbers (`random`) draws the same ones in every forward, and is not taken to float64,
    where it would draw others.
    """
    if len(batch.x) == 0 or threat.eps == 0:
        return GradientCheck()
    x, noise = batch.x, Noise.of(seed, batch.ids).fold(0x51095)

    def alike(network: Network) -> Network:
        def drawn(inputs: Tensor) -> Logits:
            with own_randomness(seed, inputs.device):
                return network(inputs)

        return drawn

    network = alike(model)
    exact = network if x.dtype == torch.float64 else None if random else _in_float64(model, x)
    far = threat.maximise_linear(x, noise.fold(5).normal(x.shape[1:], x.dtype))
    path, found = z - x, [_Slopes(*torch.zeros(3, len(x), dtype=torch.bool, device=x.device))]
    around = replace(threat, norm="Linf", eps=APART * threat.even_share(x))
    for number, point in enumerate((x, z, far)):
        near = around.sample(point, noise.fold(number))
        found.append(_slopes(network, exact, near, batch.y, path, threat, noise.fold(6 + number)))
    changed, off = _segments(network, batch, (z, far), noise.fold(4))
    conclusive, wrong, lost = (
        torch.stack([getattr(each, name) for each in found]).any(0) for name in ("conclusive", "wrong", "lost")
    )
    return GradientCheck(
        int(conclusive.sum()), int(wrong.sum()), int((lost & ~wrong).sum()), int(changed.sum()), int(off.sum())
    )


@dataclass(frozen=True, eq=False)
class _Slopes:
    conclusive: Tensor
    """Bool: whether differences tell more than rounding."""
    wrong: Tensor
    lost: Tensor


def lead(logits: Logits, y: Labels, rival: Labels) -> PerExample:
    """Return f_rival - f_y."""
    return (logits.gather(1, rival[:, None]) - logits.gather(1, y[:, None]))[:, 0]


def rivals(logits: Logits, y: Labels) -> Labels:
    """Return the class of largest logit besides the label."""
    return logits.scatter(1, y[:, None], -torch.inf).argmax(dim=1)


def slope_of(network: Network, x: Inputs, y: Labels, rival: Labels) -> Inputs:
    """Return the gradient of the lead at x, as autograd has it."""
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(lead(network(leaf), y, rival).sum(), leaf, materialize_grads=True)
    return slope


def _slopes(
    network: Network, exact: Network | None, x: Inputs, y: Labels, path: Inputs, threat: Threat, noise: Noise
) -> _Slopes:
    """Compare slopes at x along the gradient, the path, and random directions."""
    with torch.no_grad():
        logits = network(x)
    rival, precise = rivals(logits, y), x.double()
    slope = slope_of(network, x, y, rival).double()
    usable = slope.flatten(1).isfinite().all(dim=1) & logits.isfinite().all(dim=1)
    slope = torch.where(_wide(usable, x), slope, 0.0)
    drawn = [noise.fold(number).normal(x.shape[1:], torch.float64) for number in range(RANDOM)]
    directions = [_even(each) for each in (slope, path.double(), *drawn)]
    function, steps = (network, COARSE) if exact is None else (exact, FINE)
    rounding = torch.finfo(torch.float32 if exact is None else torch.float64).eps * logits.double().abs().amax(dim=1)

    def along(step: float, of: Inputs) -> tuple[Tensor, Tensor]:
        """Return the change between the two ends of each direction, (n, directions), and the one that is predicted."""
        seen, predicted = [], []
        for direction in directions:
            move = step * threat.even_share(x) * direction
            ends = [threat.boxed(precise + sign * move).to(x if exact is None else precise) for sign in (1, -1)]
            with torch.no_grad():
                ahead, behind = (lead(function(end), y, rival).double() for end in ends)
            seen.append(ahead - behind)
            predicted.append((of * (ends[0].double() - ends[1].double())).flatten(1).sum(1))
        return torch.stack(seen, 1), torch.stack(predicted, 1)

    groups = (slice(0, 1), slice(1, 2), slice(2, None))
    none = torch.zeros_like(usable)
    conclusive, wrong, lost = none, none, none
    for step, most in steps:
        seen, predicted = along(step, slope)
        clear, apart = _apart(seen, predicted, groups, 1e3 * rounding)
        clear, bad = clear & usable & ~conclusive, apart > most
        if exact is not None and x.dtype != torch.float64 and bool((clear & bad).any()):
            again = slope_of(exact, precise, y, rival)
            _, still = _apart(seen, along(step, again)[1], groups, 1e3 * rounding)
            lost = lost | (clear & bad & (still <= most))
        wrong = wrong | (clear & bad & ~lost)
        conclusive = conclusive | clear
    return _Slopes(conclusive, wrong, lost)


def _apart(seen: Tensor, predicted: Tensor, groups: tuple[slice, ...], least: Tensor) -> tuple[Tensor, Tensor]:
    """Return whether a group of directions shows more than `least`, and the largest relative difference of one."""
    clear, worst = torch.zeros_like(least, dtype=torch.bool), torch.zeros_like(least)
    for group in groups:
        sizes = [values[:, group].square().mean(1).sqrt() for values in (seen, predicted, seen - predicted)]
        size = torch.maximum(sizes[0], sizes[1])
        shows = size > least
        clear = clear | shows
        worst = torch.where(shows, torch.maximum(worst, sizes[2] / size), worst)
    return clear, worst.nan_to_num(nan=torch.inf)


def _segments(network: Network, batch: Batch, ends: tuple[Inputs, ...], noise: Noise) -> tuple[Tensor, Tensor]:
    """Tell where the function changes between x and one of the ends, and where by another amount.

    The sum of a function's slopes along a segment is its change.
    """
    x, y = batch.x, batch.y
    changed = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    off = changed.clone()
    for number, end in enumerate(ends):
        clear, apart = _along(network, x, end, y, noise.fold(1 + number), NODES)
        again = (apart > OFF).nonzero()[:, 0]
        if len(again) > 0:
            more = noise.rows(again).fold(3 + number)
            apart[again] = _along(network, x[again], end[again], y[again], more, MORE_NODES)[1]
        changed, off = changed | clear, off | (apart > OFF)
    return changed, off


def _along(network: Network, x: Inputs, end: Inputs, y: Labels, noise: Noise, nodes: int) -> tuple[Tensor, PerExample]:
    """Tell where the change from x to `end` is more than rounding, and the relative error of the slopes' sum (or 0).

    The slopes are taken at random places, one in each of the equal parts.
    """
    with torch.no_grad():
        begin, finish = network(x), network(end)
    rival, total = rivals(finish, y), torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for node in range(nodes):
        share = (node + noise.fold(node).uniform((1,), x.dtype)[:, 0]) / nodes
        slope = slope_of(network, torch.lerp(x, end, _wide(share, x)), y, rival)
        total += torch.where(end == x, 0.0, slope * (end - x)).flatten(1).double().sum(1) / nodes
    seen = (lead(finish, y, rival) - lead(begin, y, rival)).double()
    rounding = torch.finfo(x.dtype).eps * torch.maximum(begin.abs().amax(1), finish.abs().amax(1)).double()
    size = torch.maximum(seen.abs(), total.abs())
    clear = (size > 1e3 * rounding) & size.isfinite()
    return clear, torch.where(clear, (seen - total).abs() / size, 0.0)


def _in_float64(model: nn.Module, x: Inputs) -> Network | None:
    """Return the same function in float64, where the network can be asked for it; None where it is another one."""
    state = {
        name: value.detach().double() if value.is_floating_point() else value
        for name, value in (*model.named_parameters(), *model.named_buffers())
    }

    def network(inputs: Tensor) -> Logits:
        logits: Logits = functional_call(model, state, (inputs,))
        return logits

    try:
        with torch.no_grad():
            logits, exact = model(x), network(x.double())
        slope_of(network, x.double(), exact.argmin(1), exact.argmax(1))  # the backward, too, must know float64
    except Exception:  # a type that the network holds on to, say: float32 does
        return None
    if exact.dtype != torch.float64 or torch.equal(exact.float().double(), exact):  # computed in float32 within
        return None
    finite = logits.isfinite()
    off = torch.where(finite, exact - logits, 0.0).abs().max() > 1e-3 * torch.where(finite, logits, 0.0).abs().max()
    return None if bool(off) else network


def _even(direction: Tensor) -> Tensor:
    """Return the direction with a root mean square of 1 over its coordinates; 0 where it is 0."""
    flat = direction.flatten(1)
    peak = flat.abs().amax(1)  # the squares of small ones would be 0
    peak = torch.where(peak > 0, peak, 1.0)
    size = (flat / peak[:, None]).square().mean(1).sqrt()
    return direction / _wide(peak * torch.where(size > 0, size, 1.0), direction)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))
