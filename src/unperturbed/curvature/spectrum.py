"""The extreme eigenvalues of the input Hessian."""

import torch
from torch import Tensor

from unperturbed.curvature.products import LossOnLogits, hessian_product
from unperturbed.errors import InputError
from unperturbed.noise import Noise
from unperturbed.types import Inputs, Model, PerExample


def extreme_eigenvalues(
    model: Model, x: Inputs, loss: LossOnLogits, noise: Noise, steps: int = 20
) -> tuple[PerExample, PerExample]:
    """Return estimates of the smallest and largest eigenvalue of each example's input Hessian, from inside.

    Lanczos with full orthogonalisation (Golub & Van Loan, section 10.1), all examples at once: `steps` Hessian
    products by double backward. Ritz values lie inside the spectrum, so both ends are reached from within. For a
    network under attack.
    """
    if steps < 1:
        raise InputError(f"steps is {steps}, but Lanczos takes at least 1.")
    flat = (len(x), -1)
    q = noise.normal(x.shape[1:], x.dtype).reshape(flat)
    basis = [q / q.norm(dim=1, keepdim=True)]
    diagonal: list[Tensor] = []
    off_diagonal: list[Tensor] = []
    for _ in range(min(steps, q.shape[1])):
        w = hessian_product(model, x, basis[-1].view_as(x), loss).reshape(flat)
        diagonal.append((w * basis[-1]).sum(dim=1))
        for _ in range(2):  # a single pass leaves the rounding of large components
            for b in basis:
                w = w - (w * b).sum(dim=1, keepdim=True) * b
        length = w.norm(dim=1)
        off_diagonal.append(length)
        basis.append(w / length.clamp(min=torch.finfo(x.dtype).tiny)[:, None])
    size = len(diagonal)
    # Where the Krylov space is exhausted the length is rounding: the rest of the matrix must have no effect.
    scale = torch.stack([d.abs() for d in diagonal]).amax(0) + torch.stack(off_diagonal).amax(0)
    alive = torch.stack([b > 1e-6 * scale for b in off_diagonal]).cummin(0).values
    matrix = x.new_zeros((len(x), size, size))
    for k in range(size):
        active = alive[k - 1] if k else torch.ones_like(alive[0])
        matrix[:, k, k] = torch.where(active, diagonal[k], diagonal[0])
        if k:
            matrix[:, k, k - 1] = matrix[:, k - 1, k] = torch.where(active, off_diagonal[k - 1], 0.0)
    values = torch.linalg.eigvalsh(matrix)
    return values[:, 0], values[:, -1]
