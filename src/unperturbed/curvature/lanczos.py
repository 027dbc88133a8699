"""Lanczos on symmetric operators: the ends of the spectrum, and means of functions over it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from unperturbed.errors import InputError

Product = Callable[[Tensor], Tensor]
"""A function from rows, (m, n), to the symmetric operator's product with each row."""
EVERY = 50
"""Steps between tests of convergence."""
EXHAUSTED = 500
"""A remainder below this many roundings of the largest entry counts as zero."""


class Recurrence:
    """The three-term recurrence from each of some vectors, (m, n), without orthogonalisation.

    Lost orthogonality repeats converged values; it moves neither the ends nor the means by more than rounding (Paige
    1980, https://doi.org/10.1016/0024-3795(80)90167-6; Golub & Meurant 2010, section 4.1). Only three vectors are kept.
    """

    def __init__(self, product: Product, start: Tensor) -> None:
        self.product = product
        self.q = start / start.norm(dim=1, keepdim=True)
        self.before = torch.zeros_like(self.q)
        self.diagonal: list[Tensor] = []
        self.off_diagonal: list[Tensor] = []

    def step(self) -> None:
        """Add a row to each tridiagonal matrix; where the space is exhausted, the row is decoupled from the others."""
        last = self.off_diagonal[-1] if self.off_diagonal else self.q.new_zeros(len(self.q))
        w = self.product(self.q) - last[:, None] * self.before
        level = (w * self.q).sum(dim=1)
        w = w - level[:, None] * self.q
        length = w.norm(dim=1)
        self.diagonal.append(torch.where(last == 0, self.diagonal[0], level) if self.diagonal else level)
        rounding = EXHAUSTED * torch.finfo(w.dtype).eps * torch.stack(self.diagonal).abs().amax(0)
        length = torch.where(length > rounding, length, 0.0)
        if len(self.off_diagonal):
            length = torch.where(last == 0, 0.0, length)
        self.off_diagonal.append(length)
        self.before, self.q = self.q, torch.where(length > 0, 1 / length, 0.0)[:, None] * w

    def matrices(self) -> Tensor:
        """Return the tridiagonal matrices, (m, steps, steps)."""
        off_diagonal = (
            torch.stack(self.off_diagonal[:-1], 1) if len(self.off_diagonal) > 1 else self.q.new_zeros((len(self.q), 0))
        )
        return torch.diag_embed(torch.stack(self.diagonal, 1)) + sum(torch.diag_embed(off_diagonal, k) for k in (-1, 1))


@dataclass(frozen=True)
class End:
    """An estimate of an end of a spectrum, from inside.

    Attributes:
        value: never beyond the end, up to rounding.
        settled: whether the search has converged.
    """

    value: float
    settled: bool


def ends(product: Product, start: Tensor, steps: int, tolerance: float) -> tuple[End, End]:
    """Return the smallest and the largest eigenvalue.

    `start` is one row, (1, n). An end has settled when the residual of its Ritz vector is below `tolerance` times its
    value, which puts an eigenvalue that near, or when there are no more directions; until both have, up to `steps`
    products are taken. An end that has not settled is still a bound: the smallest eigenvalue from above, the largest
    from below.
    """
    if steps < 1:
        raise InputError(f"steps is {steps}, but Lanczos takes at least 1.")
    recurrence = Recurrence(product, start)
    for step in range(1, steps + 1):
        recurrence.step()
        rest = float(recurrence.off_diagonal[-1])
        if step % EVERY and step != steps and rest > 0:
            continue
        diagonal = torch.cat(recurrence.diagonal).numpy()
        off_diagonal = torch.cat(recurrence.off_diagonal[:-1]).numpy() if step > 1 else diagonal[:0]
        low, down = eigh_tridiagonal(diagonal, off_diagonal, select="i", select_range=(0, 0))
        high, up = eigh_tridiagonal(diagonal, off_diagonal, select="i", select_range=(step - 1, step - 1))
        pairs = ((low, down), (high, up))
        spectrum_ends = [
            End(float(value[0]), rest == 0 or rest * abs(float(vector[-1, 0])) <= tolerance * abs(float(value[0])))
            for value, vector in pairs
        ]
        if all(end.settled for end in spectrum_ends):
            break
    return spectrum_ends[0], spectrum_ends[1]


def quadrature(product: Product, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Return nodes and weights, (m, steps): the weighted sum of f is v' f(A) v / v'v for each row v of `start`.

    Gauss quadrature (Golub & Meurant 2010, section 6.2): exact for polynomials of degree below 2 `steps`. The mean
    over random v with independent signs is the mean of f over the spectrum (Ubaru, Chen & Saad 2017,
    https://doi.org/10.1137/16M1104974).
    """
    if steps < 1:
        raise InputError(f"steps is {steps}, but Lanczos takes at least 1.")
    recurrence = Recurrence(product, start)
    for _ in range(steps):
        recurrence.step()
    nodes, vectors = torch.linalg.eigh(recurrence.matrices())
    return nodes, vectors[:, 0, :].square()
