"""Long attacks that know the defence: the robust accuracy that an audit of a planted defence is compared with."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from unperturbed.losses import margin, unit_cross_entropy
from unperturbed.types import Inputs, Labels, Logits

Network = Callable[[Tensor], Logits]
Draw = Callable[[Tensor], Sequence[tuple[float, Logits]]]
"""From inputs to logits with their weights: all draws of a random network, or a sample of them."""


def climbs(
    way: Network, x: Inputs, y: Labels, low: Tensor, high: Tensor, steps: int, seed: int, see: Callable[[Tensor], None]
) -> None:
    """Climb margin and cross-entropy of a network over the box [low, high] with momentum; `see` gets every point."""
    generator = torch.Generator().manual_seed(seed)
    for number, loss in enumerate((margin, unit_cross_entropy)):
        z = low + torch.rand(x.shape, generator=generator) * (high - low) if number + seed > 0 else x.clone()
        momentum = torch.zeros_like(x)
        for step in range(steps):
            z = z.detach().requires_grad_()
            (slope,) = torch.autograd.grad(loss(way(z), y).sum(), z)
            size = slope.abs().flatten(1).mean(1).clamp(min=1e-12).view(-1, *[1] * (x.dim() - 1))
            momentum = 0.75 * momentum + slope.nan_to_num() / size
            length = 0.5 * (high - low) * (0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps))) * 0.4 + 0.01)
            z = torch.minimum(torch.maximum(z.detach() + length * momentum.sign(), low), high)
            see(z)


def robust_accuracy(
    real: Network,
    ways: Sequence[Network],
    x: Inputs,
    y: Labels,
    eps: float,
    *,
    box: tuple[Tensor, Tensor] | None = None,
    steps: int = 100,
    starts: int = 3,
) -> float:
    """Return the share of examples that no climb of any of these networks breaks on the real one.

    The points lie in the box, by default the Linf ball in [0, 1]; every iterate is tried on the real network.
    """
    low, high = ((x - eps).clamp(0, 1), (x + eps).clamp(0, 1)) if box is None else box
    with torch.no_grad():
        stands = real(x).argmax(1) == y
    for way in ways:
        for seed in range(starts):
            left = stands.nonzero()[:, 0]
            if len(left) == 0:
                break

            def see(z: Tensor, left: Tensor = left) -> None:
                with torch.no_grad():
                    stands[left] &= real(z).argmax(1) == y[left]

            climbs(way, x[left], y[left], low[left], high[left], steps, seed, see)
    return float(stands.double().mean())


def expected_accuracy(
    drawn: Draw, judged: Draw, x: Inputs, y: Labels, eps: float, steps: int = 100, starts: int = 2
) -> float:
    """Return the mean accuracy over draws at the worst points found by climbing the mean loss over draws.

    `drawn` gives the draws of a step, and those by which points are compared; `judged` those of the result.
    """

    def accuracy(draws: Draw, z: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.stack([weight * (logits.argmax(1) == y).double() for weight, logits in draws(z)]).sum(0)

    best, least = x.clone(), accuracy(drawn, x)

    def see(z: Tensor) -> None:
        nonlocal least
        seen = accuracy(drawn, z)
        better = seen < least
        best[better], least = z[better], torch.where(better, seen, least)

    low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    for seed in range(starts):
        climbs_of_mean(drawn, x, y, low, high, steps, seed, see)
    return float(accuracy(judged, best).mean())


def climbs_of_mean(
    drawn: Draw, x: Inputs, y: Labels, low: Tensor, high: Tensor, steps: int, seed: int, see: Callable[[Tensor], None]
) -> None:
    """Climb the mean over draws of the probability of an error, and of two other losses."""

    def error(logits: Logits, labels: Labels) -> Tensor:
        return (margin(logits, labels) / logits.detach().std(1)).sigmoid()

    for loss in (error, unit_cross_entropy, margin):
        z = x if seed == 0 else low + torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) * (high - low)
        momentum = torch.zeros_like(x)
        for step in range(steps):
            z = z.detach().requires_grad_()
            mean = torch.stack([weight * loss(logits, y) for weight, logits in drawn(z)]).sum()
            (slope,) = torch.autograd.grad(mean, z)
            momentum = 0.75 * momentum + slope / slope.abs().flatten(1).mean(1).clamp(min=1e-12).view(-1, 1, 1, 1)
            length = eps_share(low, high, step, steps)
            z = torch.minimum(torch.maximum(z.detach() + length * momentum.sign(), low), high)
            if step % 5 == 4:
                see(z)


def eps_share(low: Tensor, high: Tensor, step: int, steps: int) -> Tensor:
    """Return step sizes that fall from a fifth of the box's half width to a hundredth of it."""
    return 0.5 * (high - low) * (0.2 * (1 + torch.cos(torch.tensor(torch.pi * step / steps))) + 0.01)


def levels_box(x: Inputs, eps: float, levels: int) -> tuple[Tensor, Tensor]:
    """Return the lowest and highest level that inputs within eps can be rounded to; all between can be reached."""
    low, high = ((x + shift).clamp(0, 1) for shift in (-eps, eps))
    return (low * levels).round() / levels, (high * levels).round() / levels


def smooth(net: Network, radius: float, draws: int = 6) -> Network:
    """Return the mean of a network over uniform noise, whose gradient leads across small steps."""
    generator = torch.Generator().manual_seed(3)

    def mean(z: Tensor) -> Logits:
        shifts = [radius * (2 * torch.rand(z.shape, generator=generator) - 1) for _ in range(draws)]
        return torch.stack([net(z + shift) for shift in shifts]).mean(0)

    return mean


def sampled(net: Network, count: int, seed: int) -> Draw:
    """Return `count` draws of a network, the same ones in each call."""

    def draws(z: Tensor) -> list[tuple[float, Logits]]:
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            return [(1 / count, net(z)) for _ in range(count)]

    return draws


def resizings(net: Network) -> Draw:
    """Return all fourteen random resizings of 8 x 8 images to 6, 7 or 8, with their chances."""

    def draws(z: Tensor) -> list[tuple[float, Logits]]:
        found = []
        for size in (6, 7, 8):
            small = functional.interpolate(z, size=(size, size), mode="bilinear", align_corners=False)
            free = 9 - size
            for left in range(free):
                for top in range(free):
                    padded = functional.pad(small, (left, 8 - size - left, top, 8 - size - top))
                    found.append((1 / 3 / free**2, net(padded)))
        return found

    return draws


def shifts(net: Network) -> Draw:
    """Return all nine shifts by at most a pixel."""
    return lambda z: [(1 / 9, net(z.roll((left, up), (2, 3)))) for left in (-1, 0, 1) for up in (-1, 0, 1)]
