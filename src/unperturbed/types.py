"""The types that every layer shares: tensors named by role, and the few values that pass between layers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

Norm = Literal["Linf", "L2", "L1", "L0", "Patch"]
Inputs = Float[Tensor, "n ..."]
Labels = Int64[Tensor, " n"]
Logits = Float[Tensor, "n k"]
PerExample = Float[Tensor, " n"]
Rows = Int64[Tensor, " n"]
Targets = Labels | Logits
"""Class indices, or a distribution over the classes (label smoothing)."""
Bounds = tuple[float, float] | tuple[Tensor, Tensor] | tuple[np.ndarray, np.ndarray] | None
"""Lowest and highest allowed input, as numbers or as tensors or arrays of one example's shape; None: no box."""
Model = nn.Module
Terms = dict[str, Tensor]
"""Named, weighted scalars; their sum is minimised."""


@runtime_checkable
class Loss(Protocol):
    """A per-example loss on logits."""

    def __call__(self, logits: Logits, y: Labels) -> PerExample:
        """Return one value per example."""
        ...


@runtime_checkable
class TargetedLoss(Protocol):
    """A per-example loss on logits that grows towards a target class."""

    def __call__(self, logits: Logits, y: Labels, target: Labels) -> PerExample:
        """Return one value per example."""
        ...


@runtime_checkable
class LogitMap(Protocol):
    """A function of logits, such as the softmax."""

    def __call__(self, logits: Logits) -> Logits:
        """Return values of the same shape."""
        ...


@runtime_checkable
class Score(Protocol):
    """The function that a maximiser climbs: one value per example, and optionally a second one that ranks iterates."""

    def __call__(self, z: Inputs, rows: Rows) -> PerExample | tuple[PerExample, PerExample]:
        """Score `z`, whose k-th entry is a candidate for example `rows[k]`."""
        ...


@dataclass(frozen=True, eq=False)
class Batch:
    """Inputs, labels and example ids.

    Losses compare with `targets`: the labels unless smoothed. Searches may begin at `z`, the best points so far: x
    unless earlier attacks have found others.
    """

    x: Inputs
    y: Labels
    ids: Labels
    targets: Tensor = field(default_factory=lambda: torch.empty(0))
    z: Tensor = field(default_factory=lambda: torch.empty(0))

    def __post_init__(self) -> None:
        """Set the targets to the labels, and z to x, by default."""
        if self.targets.numel() == 0:
            object.__setattr__(self, "targets", self.y)
        if self.z.numel() == 0:
            object.__setattr__(self, "z", self.x)


@dataclass(frozen=True, eq=False)
class Inner:
    """The result of `perturb` for `loss`; it carries no gradient to the weights."""

    z: Tensor
    """The perturbed inputs, (n, ...), or (k, n, ...) where a method needs several points."""
    reuse: Mapping[str, Tensor] = field(default_factory=dict)
    """Results that `loss` can reuse (clean logits, clean gradient)."""
    log: Mapping[str, PerExample] = field(default_factory=dict)
    """Diagnostics: logged, never minimised."""
