"""Blocks of examples: what is known of one between two steps, what is kept of it, and all of them put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from unperturbed.evaluation.evidence import Evidence
from unperturbed.types import Batch, Inputs


@dataclass
class Tally:
    """What one attack has done in a block."""

    broken: int = 0
    broken_last: int = 0
    """Of those, by the last climb allowed: more would break more."""
    unverified: int = 0
    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0
    replaced: bool = False
    """Whether a gradient on the way was not finite."""


@runtime_checkable
class State(Protocol):
    """What is known of a block between two steps: a dataclass whose other fields are tensors, a row an example."""

    @property
    def batch(self) -> Batch:
        """The examples of the block."""

    @property
    def tallies(self) -> list[Tally]:
        """One for each attack that has begun."""

    @property
    def warnings(self) -> list[str]:
        """What makes the numbers of the block doubtful."""

    @property
    def evidence(self) -> Evidence:
        """How gradients behaved, once the attacks are done."""


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
    """The perturbed inputs of the broken examples, where there are any and they were not written to a file."""
    evidence: Evidence = field(default_factory=Evidence)
    """How gradients behaved."""


def table_in_order(parts: Sequence[Part], order: Tensor) -> dict[str, list[Any]]:
    """Return the table of all the parts, whose examples lie in the split at `order`."""
    back = order.argsort().tolist()
    columns = {name: [value for part in parts for value in part.table[name]] for name in parts[0].table}
    return {name: [values[row] for row in back] for name, values in columns.items()}


def inputs_in_order(parts: Sequence[Part], order: Tensor) -> Inputs | None:
    """Return what was found for the examples with an `attack`, as the table has them; None where it is in files."""
    inputs = [part.adversarial for part in parts if part.adversarial is not None]
    if not inputs:
        return None
    names = [name for part in parts for name in part.table["attack"]]
    place = {row: number for number, row in enumerate(row for row, name in enumerate(names) if name)}
    return torch.cat(inputs)[[place[row] for row in order.argsort().tolist() if row in place]]
