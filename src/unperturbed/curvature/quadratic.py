"""The quadratic model of the loss around an input."""

from collections.abc import Callable
from dataclasses import dataclass

from unperturbed.curvature.products import dot
from unperturbed.types import Inputs, PerExample, Rows


@dataclass(frozen=True, eq=False)
class Quadratic:
    """Q(z) = <g, z - x> + 1/2 <z - x, H (z - x)>, a score that defines its gradient.

    (Tsiligkaridis & Roberts 2020, https://arxiv.org/abs/2009.04923, eq. 3.) Q models l(z) - l(x).

    Attributes:
        x: the inputs.
        gradient_at_x: g there.
        product: (v, rows) -> H v for these examples, exactly or by differences of gradients.
    """

    x: Inputs
    gradient_at_x: Inputs
    product: Callable[[Inputs, Rows], Inputs]

    def __call__(self, z: Inputs, rows: Rows) -> PerExample:
        """Return Q(z)."""
        v = z - self.x[rows]
        return dot(self.gradient_at_x[rows] + self.product(v, rows) / 2, v)

    def gradient(self, z: Inputs, rows: Rows) -> Inputs:
        """Return g + H (z - x)."""
        return self.gradient_at_x[rows] + self.product(z - self.x[rows], rows)
