"""Derivatives by finite differences, Hessians in full, and networks whose loss is a given function."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from unperturbed.curvature.products import LossOnLogits
from unperturbed.types import Inputs, Logits


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Return all the numbers in a row."""
    return torch.cat([t.flatten() for t in tensors])


def weight_gradient(value: Tensor, model: nn.Module) -> Tensor:
    """Return the gradient in all the weights in a row, 0 where there is none."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return flat(torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True, materialize_grads=True))


def derivative(function: Callable[[], Tensor], model: nn.Module, direction: Tensor, h: float = 1e-5) -> float:
    """Return the derivative of the function along a direction in the space of the weights, by central differences."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    pieces = direction.split([weight.numel() for weight in weights])
    centre, ends = [weight.detach().clone() for weight in weights], []
    for step in (h, -h, 0.0):
        with torch.no_grad():
            for weight, middle, piece in zip(weights, centre, pieces, strict=True):
                weight.copy_(middle + step * piece.view_as(weight))
            ends.append(float(function())) if step else None
    return (ends[0] - ends[1]) / (2 * h)


def gradient_error(function: Callable[[], Tensor], model: nn.Module, directions: int = 3) -> float:
    """Return how far autograd's weight gradient is from finite differences along random directions.

    In units of the gradient's length; the directions are about as long as one weight's change.
    """
    gradient, draw = weight_gradient(function(), model), torch.Generator().manual_seed(0)
    errors = []
    for _ in range(directions):
        direction = torch.randn(gradient.shape, generator=draw, dtype=gradient.dtype)
        direction *= 3 / direction.norm()
        errors.append(abs(derivative(function, model, direction) - float(gradient @ direction)))
    assert gradient.norm() > 1e-6, "there is something to compare"
    return max(errors) / float(gradient.norm())


def hessians(model: nn.Module, x: Inputs, loss: LossOnLogits) -> Tensor:
    """Return the Hessian of each example's loss in the flattened input, in full; `loss` is that of the whole batch."""
    made = []
    for row in range(len(x)):

        def of_one(z: Tensor, row: int = row) -> Tensor:
            return loss(model(torch.cat([x[:row], z.view_as(x[:1]), x[row + 1 :]])))[row]

        made.append(torch.func.hessian(of_one)(x[row].flatten()))
    return torch.stack(made).detach()


def times(matrices: Tensor, v: Inputs) -> Inputs:
    """Return each example's matrix times its vector, in the shape of the inputs."""
    return torch.einsum("nij,nj->ni", matrices, v.flatten(1)).view_as(v)


class GivenLoss(nn.Module):
    """A classifier of two classes whose cross-entropy with the label 0 is exactly a given positive function.

    With l the function, the logits are log p for p = (exp(-l), 1 - exp(-l)).
    """

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Inputs) -> Logits:
        value = self.function(x)
        return torch.stack([-value, (-(-value).expm1()).log()], dim=1)


class Polynomial(nn.Module):
    """offset + <b, x> + <x, H x> / 2 + cubic * sum_i x_i^3 / 6: all of its derivatives are known."""

    def __init__(self, b: Tensor, hessian: Tensor | None = None, cubic: float = 0.0, offset: float = 8.0) -> None:
        super().__init__()
        self.b = nn.Parameter(b)
        self.hessian = nn.Parameter(torch.zeros(len(b), len(b), dtype=b.dtype) if hessian is None else hessian)
        self.cubic, self.offset = cubic, offset

    def forward(self, x: Inputs) -> Tensor:
        x = x.flatten(1)
        square = torch.einsum("ni,ij,nj->n", x, self.hessian, x) / 2
        return self.offset + x @ self.b + square + self.cubic * x.pow(3).sum(1) / 6

    def gradient(self, x: Inputs) -> Inputs:
        """Return the gradient at x, detached."""
        flat = x.flatten(1)
        return (self.b + flat @ self.hessian + self.cubic * flat.square() / 2).detach().view_as(x)


def random_matrix(d: int, seed: int = 0, sign: str = "any") -> Tensor:
    """Return a symmetric matrix in float64: "any", or "negative" semidefinite with a null space."""
    root = torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if sign == "negative":
        return -root[:, 1:] @ root[:, 1:].T / d
    return (root + root.T) / 2
