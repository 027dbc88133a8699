"""Local linearity regularisation."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from unperturbed.checks import AT_LEAST_ONE, NOT_NEGATIVE, check_fields
from unperturbed.curvature.linearity import least_linear, linearity_gap
from unperturbed.curvature.products import cross_entropy_with, not_proven, slope, three_point_slope
from unperturbed.curvature.safeguards import check_slope, dropout_warning, piecewise_linear_warning
from unperturbed.errors import InputError
from unperturbed.losses import cross_entropy
from unperturbed.maximise.adam import Adam
from unperturbed.maximise.ascent import Maximiser
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.base import Method, several_processes
from unperturbed.networks.modes import Again, clean_batch_stats
from unperturbed.networks.precision import plainly
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Inputs, Model, PerExample, Targets, Terms

Measured = tuple[PerExample, PerExample, PerExample]
Added = tuple[PerExample, PerExample]
SHORT = 0.02
"""The part of the way from x to z after which the slope is taken: a compromise between curvature and rounding."""


@dataclass(frozen=True)
class LLR(Method):
    """nominal * l(x) + gap * gamma + slope * |<z - x, g>|, where gamma = |l(z) - l(x) - <z - x, g>| (Qin et al. 2019).

    z maximises gamma over S(x), and g is the gradient at x: https://arxiv.org/abs/1907.02610, eq. 8. Both added terms
    together bound |l(z) - l(x)|. All three losses and the gradient carry gradient to the weights, z does not. The
    search runs in eval mode; the loss is measured at the clean batch's statistics of batch norm.

    Attributes:
        nominal: weight of the clean loss.
        gap: weight of gamma.
        slope: weight of |<z - x, g>|.
        maximiser: the search for z.
        exact_inner: climb the true gradient of gamma; False: leave the linear model out of it, as released code does.
        form: of the slope: "exact" (forward mode where it is proven for the network, else reverse) or "differences"
            of the losses at x, at z and a short way from x to z, for smooth networks: less time and memory.
        parts: pieces of the batch in which the added terms are computed, and computed again for their gradient: less
            memory, more time.
    """

    name: ClassVar[str] = "llr"
    ramp: ClassVar[float] = 0.25
    first_order: ClassVar[str] = "--method.form differences"
    nominal: float = 2.0
    gap: float = 4.0
    slope: float = 1.2
    maximiser: Maximiser = field(default_factory=lambda: PGD(steps=2))
    exact_inner: bool = True
    form: Literal["exact", "differences"] = "exact"
    parts: int = 1

    def __post_init__(self) -> None:
        """Refuse negative weights, another form, and less than one part."""
        check_fields(self, nominal=NOT_NEGATIVE, gap=NOT_NEGATIVE, slope=NOT_NEGATIVE, parts=AT_LEAST_ONE)

    @classmethod
    def released(cls, eps: float = 8 / 255) -> "LLR":
        """Return the released code's search for this eps: ten steps of Adam of 0.1 in input units, inexact."""
        return cls(maximiser=Adam(steps=10, step_size=0.1 / eps), exact_inner=False)

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Maximise the distance of the loss from its linear model."""
        return Inner(least_linear(model, batch, threat, noise, self.maximiser, exact=self.exact_inner))

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the clean loss, gamma and the absolute slope, weighted means over the batch."""
        with clean_batch_stats(model) as same_statistics:
            if self.form == "differences":
                clean = _plain_loss(model, batch.x, batch.targets)
                terms = partial(_difference_terms, model)
                gap, slope = _in_parts(self.parts, same_statistics, terms, batch.x, inner.z, batch.targets, clean)
            elif self.parts > 1:
                clean = cross_entropy(model(batch.x), batch.targets)
                terms = partial(_added_terms, model)
                gap, slope = _in_parts(self.parts, same_statistics, terms, batch.x, inner.z, batch.targets)
            else:
                clean, gap, slope = _exact_terms(model, batch.x, inner.z, batch.targets)
        return {
            "clean": self.nominal * clean.mean(),
            "gap": self.gap * gap.abs().mean(),
            "slope": self.slope * slope.abs().mean(),
        }

    def check(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> list[str]:
        """Return a note on the form of the slope; raises for settings whose gradient is wrong or missing."""
        if self.parts > 1 and several_processes():
            raise InputError("parts > 1 computes forwards again during the backward: not with several processes.")
        if self.parts > 1 and self.form == "exact" and (reason := not_proven(model)):
            raise InputError(f"parts > 1 with the exact slope needs forward mode: {reason}. Take form='differences'.")
        if self.form == "exact":
            check_slope(model, batch, threat, noise)
        return piecewise_linear_warning(model, batch.x, self.name) + dropout_warning(model, batch.x, self.name)

    def examine(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> dict[str, PerExample]:
        """Return gamma, the slope, their sum, and the change of the loss that it bounds."""
        gap = linearity_gap(model, batch, threat, noise, self.maximiser)
        bound = gap.gap + gap.slope.abs()
        return {"gap": gap.gap, "slope": gap.slope.abs(), "bound": bound, "change": (gap.far - gap.clean).abs()}


def _exact_terms(model: Model, x: Inputs, z: Inputs, targets: Targets) -> Measured:
    """Return l(x), l(z) - l(x) - <z - x, g> and <z - x, g>."""
    loss = cross_entropy_with(targets)
    with plainly():
        clean, along = slope(model, x, z - x, loss)
        return clean, loss(model(z)) - clean - along, along


def _added_terms(model: Model, x: Inputs, z: Inputs, targets: Targets) -> Added:
    """Return the latter two."""
    _, gap, along = _exact_terms(model, x, z, targets)
    return gap, along


def _difference_terms(model: Model, x: Inputs, z: Inputs, targets: Targets, clean: PerExample) -> Added:
    """Return the same by differences, with l(x) from `_plain_loss`, whose rounding cancels in the gap."""
    far = _plain_loss(model, z, targets)
    near = _plain_loss(model, x + SHORT * (z - x), targets)
    along = three_point_slope(clean, near, far, SHORT)
    return far - clean - along, along


def _plain_loss(model: Model, x: Inputs, targets: Targets) -> PerExample:
    with plainly():
        return cross_entropy(model(x), targets)


def _in_parts(parts: int, same_statistics: Again, terms: Callable[..., Added], *tensors: Tensor) -> Added:
    """Return the terms of the tensors, with the graph of one part at a time in memory."""

    def part(*piece: Tensor) -> Tensor:
        with same_statistics():
            return torch.stack(terms(*piece))

    if parts == 1:
        return terms(*tensors)
    pieces = zip(*(tensor.chunk(parts) for tensor in tensors), strict=True)
    gap, slope = torch.cat([checkpoint(part, *piece, use_reentrant=False) for piece in pieces], dim=1)
    return gap, slope
