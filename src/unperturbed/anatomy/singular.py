"""Singular values of dense matrices, where values near rounding may be lost for speed."""

import torch
from torch import Tensor

BY_GRAM = 256
"""Matrices whose smaller side is larger are decomposed by their Gram matrix."""


def singular_values(matrices: Tensor) -> Tensor:
    """Return the singular values of matrices (..., rows, columns), real or complex, in double precision: (..., min),
    ascending.

    For large matrices they are roots of the smaller Gram matrix's eigenvalues: the largest is as exact, and values
    below 1e-7 of it become 0.
    """
    rows, columns = matrices.shape[-2:]
    if min(rows, columns) <= BY_GRAM:
        values: Tensor = torch.linalg.svdvals(matrices).flip(-1)
        return values
    gram = matrices @ matrices.mH if rows <= columns else matrices.mH @ matrices
    squares: Tensor = torch.linalg.eigvalsh(gram)
    return torch.where(squares > 1e-14 * squares[..., -1:], squares, 0.0).sqrt()
