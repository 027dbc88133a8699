"""ROAD: accuracy after the most important pixels are replaced by noisy linear imputation."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import coo_matrix, csr_matrix, identity
from scipy.sparse.linalg import splu
from torch import Tensor

from unperturbed.examinations.explanations.base import Explanation, is_image
from unperturbed.examinations.explanations.maps import natural_maps
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Finding, Line, Number
from unperturbed.noise import Noise
from unperturbed.statistics.per_example import average
from unperturbed.types import Inputs

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""The shares of removed pixels."""
EXAMPLES = 64
"""The largest number of examples."""
SIGMA = 0.01
"""The standard deviation of the noise on imputed pixels, in input units."""
NEIGHBOURS = tuple(
    (i, j, 1 / 6 if i == 0 or j == 0 else 1 / 12) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)
)
"""Offsets and weights: 1/6 for direct and 1/12 for diagonal neighbours."""


def impute(x: Inputs, removed: Tensor) -> Inputs:
    """Return images whose removed pixels are the weighted means of their neighbours, by one linear system.

    Each removed pixel is one equation of a sparse linear system; at the border the weights of the existing neighbours
    add up to 1 (Rong et al. 2022, https://arxiv.org/abs/2202.00449). An image without a remaining pixel becomes 0.

    Args:
        x: images, (n, channels, height, width).
        removed: which pixels, (n, height, width).
    """
    imputed = x.detach().double().cpu().numpy().copy()
    mean = _neighbour_mean(*x.shape[2:])
    for image, mask in zip(imputed, removed.cpu().numpy(), strict=True):
        rows, remaining = np.flatnonzero(mask), np.flatnonzero(~mask)
        flat = image.reshape(len(image), -1)
        if len(rows) and len(remaining):
            system = (identity(len(rows)) - mean[rows][:, rows]).tocsc()
            flat[:, rows] = splu(system).solve(np.asarray(mean[rows][:, remaining] @ flat[:, remaining].T)).T
        elif len(rows):
            flat[:] = 0
    return torch.from_numpy(imputed).to(x.dtype).to(x.device)


def deletion_curve(subject: Subject, x: Inputs, saliency: Inputs, y: Tensor, noise: Noise) -> Tensor:
    """Return the correctness of each example after the removal of each share of its pixels.

    The pixels of the highest saliency, summed over the channels, go first. (n, shares), as 0 and 1.
    """
    rank = saliency.sum(dim=1).flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    size = x.shape[2] * x.shape[3]
    right = []
    for step, share in enumerate(SHARES):
        removed = (rank < round(share * size)).view(len(x), *x.shape[2:])
        jitter = SIGMA * noise.fold(step).normal(x.shape[1:], x.dtype) * removed[:, None]
        z = subject.threat.boxed(impute(x, removed) + jitter)
        right.append((subject.logits(z).argmax(dim=1) == y).to(torch.float64))
    return torch.stack(right, dim=1)


def deletion(subject: Subject) -> Explanation:
    """Deletion curves: accuracy after removing the pixels of highest saliency, without retraining (ROAD).

    Rong et al. 2022, https://arxiv.org/abs/2202.00449. The lower the area under the curve, the more the map's pixels
    matter; the baseline removes pixels in random order.
    """
    title, test = "Deletion (ROAD)", subject.test
    if not is_image(test.x):
        return Explanation(Finding(title, "Not computed: the inputs are no images."))
    n = min(EXAMPLES, len(test.x))
    x, y = test.x[:n], test.y[:n]
    noise = Noise.of(subject.seed, test.ids[:n])
    orders = {name: saliency_order[:n] for name, saliency_order in natural_maps(subject).items()}
    orders["random order"] = noise.fold(99).uniform(x.shape[1:], x.dtype)
    numbers, lines = list[Number](), list[Line]()
    for name, order in orders.items():
        right = deletion_curve(subject, x, order, y, noise)
        numbers += average(f"area under the deletion curve, {name}", _areas(right).tolist(), "%")
        lines.append(
            Line(f"accuracy, {name}", SHARES, tuple(right.mean(dim=0).tolist()), across="share of pixels removed")
        )
    summary = f"Accuracy after removing {SHARES[0]:.0%} to {SHARES[-1]:.0%} of the pixels of {n} test examples."
    return Explanation(Finding(title, summary, tuple(numbers), lines=tuple(lines)))


def _areas(right: Tensor) -> Tensor:
    """Return the area under each example's curve over the range of the shares, from 0 to 1."""
    at = torch.tensor(SHARES, dtype=right.dtype, device=right.device)
    return torch.trapezoid(right, at, dim=1) / (at[-1] - at[0])


def _neighbour_mean(height: int, width: int) -> csr_matrix:
    """Return the matrix from a flat image to the weighted mean of each pixel's neighbours."""
    index = np.arange(height * width).reshape(height, width)
    rows: Sequence[np.ndarray] = []
    columns, weights = [], []
    for i, j, weight in NEIGHBOURS:
        pixels = index[max(0, -i) : height - max(0, i), max(0, -j) : width - max(0, j)].ravel()
        rows = [*rows, pixels]
        columns.append(pixels + i * width + j)
        weights.append(np.full(len(pixels), weight))
    shape = (height * width, height * width)
    matrix = coo_matrix((np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), shape).tocsr()
    return matrix.multiply(1 / np.maximum(matrix.sum(axis=1), 1e-12)).tocsr()
