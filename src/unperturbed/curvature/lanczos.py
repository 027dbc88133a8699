"""Lanczos on symmetric operators: the ends of the spectrum, and means of functions over it."""

from collections.abc import Callable

import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from unperturbed.errors import InputError

Product = Callable[[Tensor], Tensor]
"""Rows in, (m, n), and the symmetric operator's product with each of them out."""
EVERY = 50
"""Steps between looks at the ends."""
EXHAUSTED = 500
"""Roundings of the largest entry, at which what is left of a vector is nothing else."""


class Recurrence:
    """The three-term recurrence from each of some vectors, (m, n), without orthogonalisation.

    Lost orthogonality repeats values that are found already; it moves neither the ends nor the means by more than
    rounding (Paige 1980, https://doi.org/10.1016/0024-3795(80)90167-6; Golub & Meurant 2010, section 4.1). Only three
    vectors are kept.
    """

    def __init__(self, product: Product, start: Tensor) -> None:
        self.product = product
        self.q = start / start.norm(dim=1, keepdim=True)
        self.before = torch.zeros_like(self.q)
        self.diagonal: list[Tensor] = []
        self.beside: list[Tensor] = []

    def step(self) -> None:
        """Add a row to each tridiagonal matrix; where the space is exhausted, one apart from the rest."""
        last = self.beside[-1] if self.beside else self.q.new_zeros(len(self.q))
        w = self.product(self.q) - last[:, None] * self.before
        level = (w * self.q).sum(dim=1)
        w = w - level[:, None] * self.q
        length = w.norm(dim=1)
        self.diagonal.append(torch.where(last == 0, self.diagonal[0], level) if self.diagonal else level)
        rounding = EXHAUSTED * torch.finfo(w.dtype).eps * torch.stack(self.diagonal).abs().amax(0)
        length = torch.where(length > rounding, length, 0.0)
        if len(self.beside):
            length = torch.where(last == 0, 0.0, length)
        self.beside.append(length)
        self.before, self.q = self.q, torch.where(length > 0, 1 / length, 0.0)[:, None] * w

    def matrices(self) -> Tensor:
        """Return the tridiagonal matrices, (m, steps, steps)."""
        beside = torch.stack(self.beside[:-1], 1) if len(self.beside) > 1 else self.q.new_zeros((len(self.q), 0))
        return torch.diag_embed(torch.stack(self.diagonal, 1)) + sum(torch.diag_embed(beside, k) for k in (-1, 1))


def ends(product: Product, start: Tensor, steps: int, tolerance: float) -> tuple[float, float, bool]:
    """Return the smallest and largest eigenvalue from within, and whether both have settled.

    `start` is one row, (1, n). An end has settled when the residual of its Ritz vector is below `tolerance` times its
    value, which puts an eigenvalue that near; until both have, up to `steps` products are taken. The smallest that has
    not settled is an upper bound on the smallest eigenvalue, as the largest always is a lower one on the largest.
    """
    if steps < 1:
        raise InputError(f"steps is {steps}, but Lanczos takes at least 1.")
    recurrence = Recurrence(product, start)
    for step in range(1, steps + 1):
        recurrence.step()
        rest = float(recurrence.beside[-1])
        if step % EVERY and step != steps and rest > 0:
            continue
        diagonal = torch.cat(recurrence.diagonal).numpy()
        beside = torch.cat(recurrence.beside[:-1]).numpy() if step > 1 else diagonal[:0]
        low, down = eigh_tridiagonal(diagonal, beside, select="i", select_range=(0, 0))
        high, up = eigh_tridiagonal(diagonal, beside, select="i", select_range=(step - 1, step - 1))
        settled = all(
            rest * abs(vector[-1, 0]) <= tolerance * abs(value[0]) for value, vector in ((low, down), (high, up))
        )
        if settled or rest == 0:
            break
    return float(low[0]), float(high[0]), settled or rest == 0


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
