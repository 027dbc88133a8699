"""Blocks of examples: their state between two steps, their stored parts, and the union of the parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from unperturbed.evaluation.evidence import Evidence
from unperturbed.types import Batch, Inputs


@dataclass
class Tally:
    """The counts of one attack in a block."""

    broken: int = 0
    broken_last: int = 0
    """Of those, breaks by the last climb: more climbs would break more."""
    unverified: int = 0
    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0
    replaced: bool = False
    """Whether the attack met a gradient that was not finite."""


@runtime_checkable
class State(Protocol):
    """The state of a block between two steps: a dataclass whose other fields are tensors, one row per example."""

    @property
    def batch(self) -> Batch:
        """The examples of the block."""

    @property
    def tallies(self) -> list[Tally]:
        """One for each attack that has begun."""

    @property
    def warnings(self) -> list[str]:
        """Warnings about the block."""

    @property
    def evidence(self) -> Evidence:
        """The behaviour of gradients, after the attacks."""


S = TypeVar("S", bound=State)


@dataclass(frozen=True, eq=False)
class Part:
    """A finished block, as plain values."""

    table: Mapping[str, list[Any]]
    """By column."""
    tallies: list[Tally]
    """One an attack."""
    warnings: list[str]
    adversarial: Inputs | None = None
    """The perturbed inputs of the broken examples, if there are any and they were not written to a file."""
    evidence: Evidence = field(default_factory=Evidence)
    """The behaviour of gradients."""


def table_in_order(parts: Sequence[Part], order: Tensor) -> dict[str, list[Any]]:
    """Return the table of all parts; `order` has the positions of their examples in the split."""
    back = order.argsort().tolist()
    columns = {name: [value for part in parts for value in part.table[name]] for name in parts[0].table}
    return {name: [values[row] for row in back] for name, values in columns.items()}


def inputs_in_order(parts: Sequence[Part], order: Tensor) -> Inputs | None:
    """Return the points of the examples with an `attack`, in the order of the table; None if they are in files."""
    inputs = [part.adversarial for part in parts if part.adversarial is not None]
    if not inputs:
        return None
    names = [name for part in parts for name in part.table["attack"]]
    number_of = {row: number for number, row in enumerate(row for row, name in enumerate(names) if name)}
    return torch.cat(inputs)[[number_of[row] for row in order.argsort().tolist() if row in number_of]]
