"""A check that the gradient that attacks follow is the slope of the attacked function.

It compares central differences close to an example, to its adversarial point and to a random point far away, and the
change along two segments across the threat set. The function is the lead of one class over the label, whose gradient
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
"""Number of checked examples in a block."""
APART = 0.05
"""Distance from the example at which slopes are compared, as a share of the radius: maxima tie at the example."""
RANDOM = 3
"""Random directions, in addition to the gradient and the attack's path."""
FINE, COARSE = ((1e-5, 0.1),), ((1e-3, 0.15), (1e-2, 0.3), (1e-1, 0.5))
"""Pairs of a step, in radii, and the relative difference above which a slope is wrong: in float64; in float32."""
NODES, MORE_NODES = 8, 64
"""Number of gradients along a segment, and a larger one for segments where they do not add up to the change."""
OFF = 0.7
"""Relative difference above which they do not add up."""


@dataclass(frozen=True)
class GradientCheck:
    """The numbers of checked examples and of failures of the gradient.

    Attributes:
        slopes: examples whose differences exceed rounding.
        wrong: of these, examples where autograd's slope differs.
        lost: of `slopes`, examples where it is right in float64 but not in the precision of the weights.
        segments: examples with a segment on which the function changes, or its gradients predict a change.
        off: of these, examples where the gradients along it do not add up to the change.
    """

    slopes: int = 0
    wrong: int = 0
    lost: int = 0
    segments: int = 0
    off: int = 0

    def __add__(self, check: "GradientCheck") -> "GradientCheck":
        """Return the sums of the counts."""
        return GradientCheck(*(getattr(self, field.name) + getattr(check, field.name) for field in fields(self)))


def check_gradient(model: nn.Module, batch: Batch, z: Inputs, threat: Threat, seed: int, random: bool) -> GradientCheck:
    """Return the number of examples (of a few dozen) whose gradient is not the slope; `z` are adversarial points.

    A network that draws random numbers (`random`) draws the same in every forward, and is not converted to float64,
    where its draws would differ.
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
    path, comparisons = z - x, [_Slopes(*torch.zeros(3, len(x), dtype=torch.bool, device=x.device))]
    around = replace(threat, norm="Linf", eps=APART * threat.even_share(x))
    for number, point in enumerate((x, z, far)):
        near = around.sample(point, noise.fold(number))
        comparisons.append(_slopes(network, exact, near, batch.y, path, threat, noise.fold(6 + number)))
    changed, off = _segments(network, batch, (z, far), noise.fold(4))
    conclusive, wrong, lost = (
        torch.stack([getattr(comparison, name) for comparison in comparisons]).any(0)
        for name in ("conclusive", "wrong", "lost")
    )
    return GradientCheck(
        int(conclusive.sum()), int(wrong.sum()), int((lost & ~wrong).sum()), int(changed.sum()), int(off.sum())
    )


@dataclass(frozen=True, eq=False)
class _Slopes:
    conclusive: Tensor
    """Bool: whether differences exceed rounding."""
    wrong: Tensor
    lost: Tensor


def lead(logits: Logits, y: Labels, rival: Labels) -> PerExample:
    """Return f_rival - f_y."""
    return (logits.gather(1, rival[:, None]) - logits.gather(1, y[:, None]))[:, 0]


def rivals(logits: Logits, y: Labels) -> Labels:
    """Return the class of largest logit other than the label."""
    return logits.scatter(1, y[:, None], -torch.inf).argmax(dim=1)


def slope_of(network: Network, x: Inputs, y: Labels, rival: Labels) -> Inputs:
    """Return autograd's gradient of the lead at x."""
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
    directions = [_even(vector) for vector in (slope, path.double(), *drawn)]
    function, steps = (network, COARSE) if exact is None else (exact, FINE)
    rounding = torch.finfo(torch.float32 if exact is None else torch.float64).eps * logits.double().abs().amax(dim=1)

    def along(step: float, of: Inputs) -> tuple[Tensor, Tensor]:
        """Return the change between the two ends of each direction, (n, directions), and the predicted change."""
        changes, predicted = [], []
        for direction in directions:
            move = step * threat.even_share(x) * direction
            ends = [threat.boxed(precise + sign * move).to(x if exact is None else precise) for sign in (1, -1)]
            with torch.no_grad():
                ahead, behind = (lead(function(end), y, rival).double() for end in ends)
            changes.append(ahead - behind)
            predicted.append((of * (ends[0].double() - ends[1].double())).flatten(1).sum(1))
        return torch.stack(changes, 1), torch.stack(predicted, 1)

    groups = (slice(0, 1), slice(1, 2), slice(2, None))
    zeros = torch.zeros_like(usable)
    conclusive, wrong, lost = zeros, zeros, zeros
    for step, tolerance in steps:
        differences, predicted = along(step, slope)
        clear, error = _relative_errors(differences, predicted, groups, 1e3 * rounding)
        clear, bad = clear & usable & ~conclusive, error > tolerance
        if exact is not None and x.dtype != torch.float64 and bool((clear & bad).any()):
            exact_slope = slope_of(exact, precise, y, rival)
            _, still = _relative_errors(differences, along(step, exact_slope)[1], groups, 1e3 * rounding)
            lost = lost | (clear & bad & (still <= tolerance))
        wrong = wrong | (clear & bad & ~lost)
        conclusive = conclusive | clear
    return _Slopes(conclusive, wrong, lost)


def _relative_errors(
    changes: Tensor, predicted: Tensor, groups: tuple[slice, ...], least: Tensor
) -> tuple[Tensor, Tensor]:
    """Return whether the changes of a group of directions exceed `least`, and the largest relative error of a group."""
    clear, worst = torch.zeros_like(least, dtype=torch.bool), torch.zeros_like(least)
    for group in groups:
        sizes = [values[:, group].square().mean(1).sqrt() for values in (changes, predicted, changes - predicted)]
        size = torch.maximum(sizes[0], sizes[1])
        shows = size > least
        clear = clear | shows
        worst = torch.where(shows, torch.maximum(worst, sizes[2] / size), worst)
    return clear, worst.nan_to_num(nan=torch.inf)


def _segments(network: Network, batch: Batch, ends: tuple[Inputs, ...], noise: Noise) -> tuple[Tensor, Tensor]:
    """Tell where the function changes between x and one of the ends, and where not by the sum of slopes.

    The sum of a function's slopes along a segment is its change.
    """
    x, y = batch.x, batch.y
    changed = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    off = changed.clone()
    for number, end in enumerate(ends):
        clear, error = _along(network, x, end, y, noise.fold(1 + number), NODES)
        suspects = (error > OFF).nonzero()[:, 0]
        if len(suspects) > 0:
            streams = noise.rows(suspects).fold(3 + number)
            error[suspects] = _along(network, x[suspects], end[suspects], y[suspects], streams, MORE_NODES)[1]
        changed, off = changed | clear, off | (error > OFF)
    return changed, off


def _along(network: Network, x: Inputs, end: Inputs, y: Labels, noise: Noise, nodes: int) -> tuple[Tensor, PerExample]:
    """Tell where the change from x to `end` exceeds rounding, and return the relative error of the slopes' sum (or 0).

    The slopes are taken at random points, one in each of the equal parts.
    """
    with torch.no_grad():
        begin, finish = network(x), network(end)
    rival, total = rivals(finish, y), torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for node in range(nodes):
        share = (node + noise.fold(node).uniform((1,), x.dtype)[:, 0]) / nodes
        slope = slope_of(network, torch.lerp(x, end, _wide(share, x)), y, rival)
        total += torch.where(end == x, 0.0, slope * (end - x)).flatten(1).double().sum(1) / nodes
    change = (lead(finish, y, rival) - lead(begin, y, rival)).double()
    rounding = torch.finfo(x.dtype).eps * torch.maximum(begin.abs().amax(1), finish.abs().amax(1)).double()
    size = torch.maximum(change.abs(), total.abs())
    clear = (size > 1e3 * rounding) & size.isfinite()
    return clear, torch.where(clear, (change - total).abs() / size, 0.0)


def _in_float64(model: nn.Module, x: Inputs) -> Network | None:
    """Return the same function in float64; None if the conversion fails or changes it."""
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
    except Exception:  # for example a fixed type in the network: float32 suffices then
        return None
    # the network computes in float32 inside
    if exact.dtype != torch.float64 or torch.equal(exact.float().double(), exact):
        return None
    finite = logits.isfinite()
    off = torch.where(finite, exact - logits, 0.0).abs().max() > 1e-3 * torch.where(finite, logits, 0.0).abs().max()
    return None if bool(off) else network


def _even(direction: Tensor) -> Tensor:
    """Return the direction scaled to a root mean square of 1 over its coordinates; 0 if it is 0."""
    flat = direction.flatten(1)
    peak = flat.abs().amax(1)  # the squares of small values would be 0
    peak = torch.where(peak > 0, peak, 1.0)
    size = (flat / peak[:, None]).square().mean(1).sqrt()
    return direction / _wide(peak * torch.where(size > 0, size, 1.0), direction)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))
