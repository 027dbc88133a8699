"""How much the features after each block change under the worst case, and under noise of the same size."""

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
_UNIFORM, _GAUSSIAN = 1, 2  # which draw of an example's noise


def feature_changes(subject: Subject) -> Finding:
    """Relative change of the features after each block: worst case, uniform noise, Gaussian noise of the same size.

    rho_l(x, z) = ||I_l(z) - I_l(x)||_2 / ||I_l(x)||_2, I_l what comes out of block l, with the input before the first
    block (Wen, Li & Jia 2020, https://arxiv.org/abs/2011.07478, look at such changes; the definitions here are ours).
    z is the worst case found; or uniform in the box within the worst case's own Linf distance; or Gaussian noise, cut
    by the box and scaled so that afterwards its L2 length is the worst case's. Each example's value is the mean over
    the blocks of log rho_l.
    """
    x, ids = subject.test.x, subject.test.ids
    with as_reported(x.device):
        found, notes = blocks(subject.classifier, x)
        changes = relative_changes(subject, found)
    places = ("input", *(block.name for block in found))
    lines = []
    about = f"median over {len(x)} examples, with the middle half"
    for kind, rho in zip(KINDS, changes, strict=True):
        lines.append(_line(f"relative change of the features, {kind}", places, rho, about))
        lines.append(_line(f"amplification from block to block, {kind}", places[1:], rho[:, 1:] / rho[:, :-1], about))
        high, of = _plain(_quantiles(rho, 0.95)), f"of {len(x)} examples"
        lines.append(Line(f"95th percentile of the relative change, {kind}", places, high, log=True, about=of))
    usable = torch.stack([(rho > 0) & rho.isfinite() for rho in changes])[:, :, 1:]
    counted = usable.any(dim=1).all(dim=0)  # a block that the input never reaches must not cost every example
    notes += _left_out(usable, found, counted)
    means = [_mean(rho[:, 1:].log(), here, counted) for rho, here in zip(changes, usable, strict=True)]
    distributions = [
        distribution(f"feature change, {kind}", mean, ids, "log") for kind, mean in zip(KINDS, means, strict=True)
    ]
    numbers = [number for each in distributions for number in average(f"{each.name}: mean", each.values, each.unit)]
    more = distribution("feature change, worst case less Gaussian noise", means[0] - means[2], ids, "log")
    excess = average(f"{more.name}: mean", more.values, more.unit)
    return Finding(
        "Feature changes",
        _summary(excess, int(counted.sum())),
        (*numbers, *excess),
        tuple(distributions),
        tuple(lines),
        (*notes, "Noise is cut by the box, and Gaussian noise scaled until what is left is as long as the worst case."),
    )


def relative_changes(subject: Subject, found: Sequence[Block]) -> list[Tensor]:
    """Return rho of the test examples for each kind of point: (n, 1 + blocks) in float64, the input first.

    Where the features are 0 at x, or not finite, it is NaN.
    """
    model, test, worst = subject.classifier, subject.test, subject.worst_test
    changes: list[list[Tensor]] = [[] for _ in KINDS]
    with under_attack(model), torch.no_grad():
        for rows in torch.split(torch.arange(len(test.x), device=test.x.device), subject.batch_size):
            x, noise = test.x[rows], Noise.of(subject.seed, test.ids[rows])
            base = [x.flatten(1), *features(model, x, found)]
            for into, z in zip(changes, _points(x, worst[rows], subject.threat, noise), strict=True):
                moved = [z.flatten(1), *features(model, z, found)]
                ratios = [_length(b - a, 2) / _length(a, 2) for a, b in zip(base, moved, strict=True)]
                into.append(torch.stack(ratios, dim=1))
    return [(rho := torch.cat(each)).masked_fill(~rho.isfinite(), torch.nan) for each in changes]


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
    """Return x + d, d Gaussian noise times s, cut by the box, with s such that ||d||_2 is `length`.

    Or as near as the box lets. By Newton's method on ||d||^2, which is piecewise linear and concave in s^2.
    """
    wide = x.double()
    g = noise.normal(x.shape[1:], torch.float64)
    low, high = threat.limits(wide)
    wall = torch.where(g > 0, high - wide, wide - low).expand_as(g).flatten(1)  # how far each feature can move
    step = g.abs().flatten(1)
    s = length.double() / _length(g, 2)
    for _ in range(100):
        held = s[:, None] * step >= wall
        open_ = (step**2 * ~held).sum(dim=1)
        needed = (length.double() ** 2 - (wall.masked_fill(~held, 0.0) ** 2).sum(dim=1)).clamp(min=0)
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
    """Return the mean over the blocks that count; NaN where one of them is missing."""
    return values.masked_fill(~usable, torch.nan)[:, counted].mean(dim=1)


def _quantiles(values: Tensor, q: float) -> Tensor:
    return torch.nanquantile(values.masked_fill(~values.isfinite(), torch.nan), q, dim=0)


def _plain(values: Tensor) -> tuple[float | None, ...]:
    """Return numbers that a logarithmic scale can show."""
    return tuple(value if 0 < value < torch.inf else None for value in values.tolist())


def _line(name: str, places: tuple[str, ...], values: Tensor, about: str) -> Line:
    low, middle, high = (_plain(_quantiles(values, q)) for q in (0.25, 0.5, 0.75))
    return Line(name, places, middle, low, high, log=True, about=about)


def _left_out(usable: Tensor, found: Sequence[Block], counted: Tensor) -> tuple[str, ...]:
    """Say at which blocks examples have no relative change."""
    without = (~usable).any(dim=0).sum(dim=0)
    why = "the features there are 0, not finite, or do not change"
    return tuple(
        f"{block.name}: no logarithm of the relative change on {int(count)} of {usable.shape[1]} examples ({why})"
        + ("." if here else "; the means over the blocks are without it.")
        for block, count, here in zip(found, without, counted, strict=True)
        if count
    )


def _summary(excess: Sequence[Number], n: int) -> str:
    if not excess:
        return "No change of the features after the blocks could be measured."
    return (
        f"After {n} blocks the worst case has changed the features {math.exp(excess[0].value):.2g} times as much as"
        " Gaussian noise of the same length (geometric mean over blocks and examples)."
    )
