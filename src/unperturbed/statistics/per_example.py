"""Summaries of one value per example: all values, and a few numbers with their intervals."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import binom, t
from torch import Tensor
from torch.nn import functional

from unperturbed.findings import Distribution, Number
from unperturbed.statistics.intervals import wilson
from unperturbed.types import Labels, Logits, PerExample

QUANTILES = (0.01, 0.05, 0.5)


def sound(logits: Logits) -> Logits:
    """Return the logits in float64, all NaN for an example with a logit that is not finite."""
    finite = logits.isfinite().all(dim=1, keepdim=True)
    return torch.where(finite, logits.double(), torch.nan)


def loss_of(logits: Logits, y: Labels) -> PerExample:
    """Return -log p_y in float64, also if p_y rounds to 1; NaN if a logit is not finite."""
    logits = sound(logits)
    rivals = logits.scatter(1, y[:, None], -torch.inf).logsumexp(dim=1)
    return -functional.logsigmoid(logits.gather(1, y[:, None])[:, 0] - rivals)


def distribution(name: str, values: PerExample, ids: Tensor, unit: str = "", log: bool = False) -> Distribution:
    """Return the finite values with their examples' ids; the others count as missing."""
    values, finite = values.detach().double().cpu(), values.detach().isfinite().cpu()
    finite_values, names = values[finite].tolist(), ids.cpu()[finite].tolist()
    return Distribution(name, tuple(finite_values), tuple(names), unit, log, int((~finite).sum()))


def described(values: Distribution) -> tuple[Number, ...]:
    """Return mean, standard deviation and quantiles; empty without values."""
    if not values.values:
        return ()
    name, n, unit = values.name, len(values.values), values.unit
    spread = (Number(f"{name}: standard deviation", float(np.std(values.values)), n, unit=unit),)
    return average(f"{name}: mean", values.values, unit) + spread + quantiles(name, values.values, unit)


def average(name: str, values: Sequence[float], unit: str = "") -> tuple[Number, ...]:
    """Return the mean with its 95% interval by Student's t; empty without values.

    In "%" the values are shares, and so is every number of the interval.
    """
    n = len(values)
    if n == 0:
        return ()
    middle = float(np.mean(values))
    if n == 1:
        return (Number(name, middle, n, unit=unit),)
    half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1)) / math.sqrt(n)
    low, high = middle - half, middle + half
    if unit == "%":
        low, high = max(low, 0.0), min(high, 1.0)
    return (Number(name, middle, n, low, high, unit),)


def quantiles(name: str, values: Sequence[float], unit: str = "") -> tuple[Number, ...]:
    """Return the 1%, 5% and 50% quantiles, each with the 95% interval between two of the ordered values.

    The number of values below the quantile is binomial, which determines the two for any distribution; a quantile with
    too few values beyond it has no interval.
    """
    if not values:
        return ()
    ordered, n = np.sort(values), len(values)
    numbers = []
    for share in QUANTILES:
        low, high = int(binom.ppf(0.025, n, share)) - 1, int(binom.ppf(0.975, n, share))
        inside = low >= 0 and high < n
        label = "median" if share == 0.5 else f"{share:.0%} quantile"
        numbers.append(
            Number(
                f"{name}: {label}",
                float(np.quantile(ordered, share)),
                n,
                float(ordered[low]) if inside else None,
                float(ordered[high]) if inside else None,
                unit,
            )
        )
    return tuple(numbers)


def portion(name: str, hits: int, n: int, unknown: int = 0) -> tuple[Number, ...]:
    """Return hits / n with its Wilson interval, whose high end counts the unknown as hits; empty if n is 0."""
    if n == 0:
        return ()
    share = wilson(hits, n, hits + unknown)
    return (Number(name, share.value, n, share.low, share.high, "%"),)


def difference(name: str, first: Sequence[float], second: Sequence[float], unit: str = "") -> tuple[Number, ...]:
    """Return the difference of the means of two independent samples with its 95% interval (Welch 1947)."""
    sizes, total = (len(first), len(second)), len(first) + len(second)
    if 0 in sizes:
        return ()
    value = float(np.mean(first) - np.mean(second))
    if 1 in sizes:
        return (Number(name, value, total, unit=unit),)
    parts = [float(np.var(sample, ddof=1)) / len(sample) for sample in (first, second)]
    freedom = (
        sum(parts) ** 2 / sum(part**2 / (n - 1) for part, n in zip(parts, sizes, strict=True)) if any(parts) else 1
    )
    half = float(t.ppf(0.975, freedom)) * math.sqrt(sum(parts))
    return (Number(name, value, total, value - half, value + half, unit),)


def difference_of_shares(name: str, first: tuple[int, int, int], second: tuple[int, int, int]) -> tuple[Number, ...]:
    """Return the difference of two shares, each (hits, n, unknown), of independent samples with its 95% interval.

    From the Wilson intervals of the two (Newcombe 1998, Statistics in Medicine 17, method 10): the low end with the
    unknown as hits in the second, the high end with the unknown as hits in the first.
    """
    (hits, n, unknown), (second_hits, m, missing) = first, second
    if n == 0 or m == 0:
        return ()
    low, high = _newcombe(hits, n, second_hits + missing, m)[0], _newcombe(hits + unknown, n, second_hits, m)[1]
    return (Number(name, hits / n - second_hits / m, n + m, low, high, "%"),)


def _newcombe(hits: int, n: int, second_hits: int, m: int) -> tuple[float, float]:
    a, b = wilson(hits, n), wilson(second_hits, m)
    value = a.value - b.value
    return (
        value - math.hypot(a.value - a.low, b.high - b.value),
        value + math.hypot(a.high - a.value, b.value - b.low),
    )


def missing_note(values: Distribution) -> tuple[str, ...]:
    """Return a sentence on omitted examples, if there are any."""
    if values.missing == 0:
        return ()
    total = values.missing + len(values.values)
    return (f"{values.name}: {values.missing} of {total} examples left out, with a value that is not finite.",)
