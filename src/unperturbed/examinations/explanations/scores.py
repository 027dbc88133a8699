"""Scores of saliency maps, one value per example."""

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from unperturbed.curvature.products import dot
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Norm, PerExample

BINS = 100
"""Number of bins of eMPRT's histogram."""


def cosine(u: Inputs, v: Inputs) -> PerExample:
    """Return <u, v> / (|u| |v|) of each example; NaN where one of them is 0."""
    return dot(u, v) / (_length(u) * _length(v))


def etmann_alignment(gradient: Inputs, x: Inputs, norm: Norm = "L2") -> PerExample:
    """Return |<x, g>| / |g|_*, in input units (Etmann et al. 2019, https://arxiv.org/abs/1905.04172, definition 3).

    |g|_* is the dual norm; the paper has L2, which is its own dual. For a linear network without bias and g the
    gradient of the margin it is the distance to the decision boundary in the norm. NaN where the gradient is 0.
    """
    return dot(x, gradient).abs() / Threat(norm, 1.0).dual_norm(gradient)


def total_variation(u: Inputs) -> PerExample:
    """Return sum |u_i - u_j| over neighbours / sum |u|: low for smooth maps, at most 4 for images; NaN for a map of 0.

    Neighbours are next to each other along the axes after the channels (of vectors, along their only axis).
    """
    axes = range(2, u.dim()) if u.dim() > 2 else range(1, 2)
    varied = sum(u.diff(dim=axis).abs().flatten(1).sum(dim=1) for axis in axes)
    return torch.as_tensor(varied) / u.abs().flatten(1).sum(dim=1)


def sparseness(u: Inputs) -> PerExample:
    """Return the Gini index of |u|, from 0 (equal everywhere) to nearly 1 (one feature).

    sum_i (2 i - n - 1) a_i / (n sum a), a = |u| sorted (Chalasani et al. 2020, https://arxiv.org/abs/1810.06583).
    """
    a = u.abs().flatten(1).sort(dim=1).values
    n = a.shape[1]
    weights = 2 * torch.arange(1, n + 1, dtype=a.dtype, device=a.device) - n - 1
    return (a * weights).sum(dim=1) / (n * a.sum(dim=1))


def entropy(u: Inputs) -> PerExample:
    """Return the entropy, in nats, of a histogram of an example's values with 100 bins from the lowest to the highest.

    The complexity in eMPRT (Hedström et al. 2024, https://arxiv.org/abs/2401.06465). NaN where a value is not finite.
    """
    flat = u.detach().flatten(1).double().cpu().numpy()
    values = []
    for row in flat:
        if not np.isfinite(row).all():
            values.append(np.nan)
            continue
        counts, _ = np.histogram(row, BINS)
        p = counts[counts > 0] / len(row)
        values.append(float(-(p * np.log(p)).sum()))
    return torch.tensor(values, dtype=torch.float64)


def rank_correlation(u: Inputs, v: Inputs) -> PerExample:
    """Return Spearman's correlation of |u| and |v| over an example's features; NaN where one of them is constant."""
    ranks = [torch.from_numpy(rankdata(values.detach().abs().flatten(1).cpu().numpy(), axis=1)) for values in (u, v)]
    centred = [rank - rank.mean(dim=1, keepdim=True) for rank in ranks]
    return cosine(centred[0], centred[1])


def _length(u: Inputs) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(u.flatten(1), dim=1)
    return length
