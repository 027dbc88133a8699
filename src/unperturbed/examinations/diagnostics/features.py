"""The change of the features after each block under the worst case, and under noise of the same size."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unperturbed.anatomy.blocks import Block, blocks, features
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Finding, Line, Number
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.noise import Noise
from unperturbed.statistics.per_example import average, distribution
from unperturbed.threat import Threat
from unperturbed.types import Inputs, PerExample

KINDS = ("worst case", "uniform noise", "Gaussian noise")
_UNIFORM, _GAUSSIAN = 1, 2  # the number of the draw in an example's noise


def feature_changes(subject: Subject) -> Finding:
    """Relative change of the features after each block: worst case, uniform noise, Gaussian noise of the same size.

    rho_l(x, z) = ||I_l(z) - I_l(x)||_2 / ||I_l(x)||_2, I_l the output of block l, with the input before the first block
    (Wen, Li & Jia 2020, https://arxiv.org/abs/2011.07478, study such changes; these definitions are new). z is the
    worst case found; or uniform in the box within the worst case's Linf distance; or Gaussian noise, cut by the box and
    scaled to the worst case's L2 length. Each example's value is the mean over the blocks of log rho_l.
    """
    x, ids = subject.test.x, subject.test.ids
    with as_reported(x.device):
        network_blocks, notes = blocks(subject.classifier, x)
        changes = relative_changes(subject, network_blocks)
    names = ("input", *(block.name for block in network_blocks))
    lines = []
    about = f"median over {len(x)} examples, with the middle half"
    for kind, rho in zip(KINDS, changes, strict=True):
        lines.append(_line(f"relative change of the features, {kind}", names, rho, about))
        lines.append(_line(f"amplification from block to block, {kind}", names[1:], rho[:, 1:] / rho[:, :-1], about))
        high, of = _plain(_quantiles(rho, 0.95)), f"of {len(x)} examples"
        lines.append(Line(f"95th percentile of the relative change, {kind}", names, high, log=True, about=of))
    usable = torch.stack([(rho > 0) & rho.isfinite() for rho in changes])[:, :, 1:]
    counted = usable.any(dim=1).all(dim=0)  # a block that does not depend on the input must not exclude every example
    notes += _left_out(usable, network_blocks, counted)
    means = [_mean(rho[:, 1:].log(), counted_here, counted) for rho, counted_here in zip(changes, usable, strict=True)]
    distributions = [
        distribution(f"feature change, {kind}", mean, ids, "log") for kind, mean in zip(KINDS, means, strict=True)
    ]
    numbers = [
        number for values in distributions for number in average(f"{values.name}: mean", values.values, values.unit)
    ]
    difference = distribution("feature change, worst case less Gaussian noise", means[0] - means[2], ids, "log")
    excess = average(f"{difference.name}: mean", difference.values, difference.unit)
    return Finding(
        "Feature changes",
        _summary(excess, int(counted.sum())),
        (*numbers, *excess),
        tuple(distributions),
        tuple(lines),
        (*notes, "Noise is cut by the box, and Gaussian noise scaled until what is left is as long as the worst case."),
    )


def relative_changes(subject: Subject, network_blocks: Sequence[Block]) -> list[Tensor]:
    """Return rho of the test examples for each kind of point: (n, 1 + blocks) in float64, the input first.

    It is NaN if the features are 0 at x, or not finite.
    """
    model, test, worst = subject.classifier, subject.test, subject.worst_test
    changes: list[list[Tensor]] = [[] for _ in KINDS]
    with under_attack(model), torch.no_grad():
        for rows in torch.split(torch.arange(len(test.x), device=test.x.device), subject.batch_size):
            x, noise = test.x[rows], Noise.of(subject.seed, test.ids[rows])
            base = [x.flatten(1), *features(model, x, network_blocks)]
            for into, z in zip(changes, _points(x, worst[rows], subject.threat, noise), strict=True):
                moved = [z.flatten(1), *features(model, z, network_blocks)]
                ratios = [_length(b - a, 2) / _length(a, 2) for a, b in zip(base, moved, strict=True)]
                into.append(torch.stack(ratios, dim=1))
    return [(rho := torch.cat(parts)).masked_fill(~rho.isfinite(), torch.nan) for parts in changes]


def _points(x: Inputs, worst: Inputs, threat: Threat, noise: Noise) -> tuple[Inputs, Inputs, Inputs]:
    """Return a point of each of the `KINDS`."""
    moved = worst - x
    return (
        worst,
        uniform_noise(x, _length(moved, torch.inf), threat, noise.fold(_UNIFORM)),
        gaussian_noise(x, _length(moved, 2), threat, noise.fold(_GAUSSIAN)),
    )


def uniform_noise(x: Inputs, size: PerExample, threat: Threat, noise: Noise) -> Inputs:
    """Return points uniform in the box within these Linf distances of x."""
    low, high = threat.limits(x)
    reach = size.to(x.dtype).view(-1, *[1] * (x.dim() - 1))
    return torch.lerp((x - reach).clamp(min=low), (x + reach).clamp(max=high), noise.uniform(x.shape[1:], x.dtype))


def gaussian_noise(x: Inputs, length: PerExample, threat: Threat, noise: Noise) -> Inputs:
    """Return x + d, d Gaussian noise times s, cut by the box, such that ||d||_2 is `length`.

    If the box does not allow that, as near as possible. By Newton's method on ||d||^2, piecewise linear and concave in
    s^2.
    """
    wide = x.double()
    g = noise.normal(x.shape[1:], torch.float64)
    low, high = threat.limits(wide)
    wall = torch.where(g > 0, high - wide, wide - low).expand_as(g).flatten(1)  # the room of each feature
    step = g.abs().flatten(1)
    s = length.double() / _length(g, 2)
    for _ in range(100):
        blocked = s[:, None] * step >= wall
        open_ = (step**2 * ~blocked).sum(dim=1)
        needed = (length.double() ** 2 - (wall.masked_fill(~blocked, 0.0) ** 2).sum(dim=1)).clamp(min=0)
        better = torch.where(open_ > 0, (needed / open_).sqrt(), s)
        if not (better - s > 1e-12 * s).any():
            break
        s = torch.maximum(s, better)
    moved = (wide + s.view(-1, *[1] * (x.dim() - 1)) * g).clamp(low, high)
    return moved.to(x.dtype)


def _length(v: Tensor, order: float) -> PerExample:
    length: Tensor = torch.linalg.vector_norm(v.flatten(1), order, dim=1, dtype=torch.float64)
    return length


def _mean(values: Tensor, usable: Tensor, counted: Tensor) -> PerExample:
    """Return the mean over the counted blocks; NaN if one of them is missing."""
    return values.masked_fill(~usable, torch.nan)[:, counted].mean(dim=1)


def _quantiles(values: Tensor, q: float) -> Tensor:
    return torch.nanquantile(values.masked_fill(~values.isfinite(), torch.nan), q, dim=0)


def _plain(values: Tensor) -> tuple[float | None, ...]:
    """Return the positive, finite numbers, for a logarithmic scale."""
    return tuple(value if 0 < value < torch.inf else None for value in values.tolist())


def _line(name: str, names: tuple[str, ...], values: Tensor, about: str) -> Line:
    low, middle, high = (_plain(_quantiles(values, q)) for q in (0.25, 0.5, 0.75))
    return Line(name, names, middle, low, high, log=True, about=about)


def _left_out(usable: Tensor, network_blocks: Sequence[Block], counted: Tensor) -> tuple[str, ...]:
    """Return notes on blocks where examples have no relative change."""
    without = (~usable).any(dim=0).sum(dim=0)
    why = "the features there are 0, not finite, or do not change"
    return tuple(
        f"{block.name}: no logarithm of the relative change on {int(count)} of {usable.shape[1]} examples ({why})"
        + ("." if reached else "; the means over the blocks exclude it.")
        for block, count, reached in zip(network_blocks, without, counted, strict=True)
        if count
    )


def _summary(excess: Sequence[Number], n: int) -> str:
    if not excess:
        return "No change of the features after the blocks could be measured."
    return (
        f"After {n} blocks the worst case has changed the features {math.exp(excess[0].value):.2g} times as much as"
        " Gaussian noise of the same length (geometric mean over blocks and examples)."
    )
