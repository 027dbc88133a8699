"""The interface of attacks and their results."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, is_dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from unperturbed.checks import check_fields
from unperturbed.maximise.climb_queue import slots_needed
from unperturbed.networks.precision import plainly
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Logits, Model, Norm, PerExample, Rows


@dataclass(frozen=True, eq=False)
class AttackResult:
    """An attack's result for each example of a batch."""

    z: Inputs
    """The point of largest margin."""
    margin: PerExample
    """max_{j != y} f_j - f_y there, as computed by the attack: positive is a break, still to be verified."""
    finite: Tensor
    """Bool: whether all values that the attack computed for the example were finite."""
    restart: Rows
    """The number of starts up to the one that broke the example, or of all starts."""
    passes: int
    """Examples through the network, forward."""
    backwards: int | None = None
    """Examples through the network, backward; None: as many as forward."""
    queries: Rows | None = None
    """Forwards for each example up to its break, or all of its forwards; None: not counted."""
    warnings: tuple[str, ...] = ()
    """Warnings about the result."""


class Attack(ABC):
    """Searches the threat set of each example for a misclassified point."""

    label: str
    """The name of the attack in tables."""
    restarts: int
    """The largest number of starts from an example (with all targets each time); 1 without restarts."""
    draws: int = 1
    """Number of forwards over which loss and margin are averaged, for networks that draw random numbers."""
    bears_rounding: ClassVar[bool] = False
    """Whether the search is as good on a network in bfloat16, whose margins have errors of about one percent."""
    needs_gradient: ClassVar[bool | None] = None
    """Whether the search follows the network's input gradient; None: unknown."""
    needs_radius: ClassVar[bool] = True
    """Whether the search needs the radius; if not, the attack is a `MinimumNorm` attack as well."""

    def __post_init__(self) -> None:
        """Check the settings of an attack that is a dataclass; raises InputError."""
        if is_dataclass(self):
            check_fields(self)

    @abstractmethod
    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        """Attack every example of the batch; the network sees `batch_size` examples at a time."""

    def supports(self, norm: Norm) -> bool:
        """Tell whether the attack searches in this norm: most have no form for L0 and patches."""
        return norm not in ("L0", "Patch")

    def to_the_end(self) -> "Attack":
        """Return the attack that does not stop at the first break, for points of the largest margin.

        By default, the attack itself.
        """
        return self


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest misclassified point found for each example, at any distance."""

    z: Inputs
    """That point; x if no point was found."""
    distance: PerExample
    """Its distance; infinite if no point was found."""
    found: AttackResult
    """The point of largest margin inside the threat set, with the counts of the search."""


@runtime_checkable
class MinimumNorm(Protocol):
    """An attack without a radius: it searches for the nearest misclassified point."""

    label: str

    def nearest(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> Nearest:
        """Return the nearest misclassified points found; the threat gives norm and box."""


@runtime_checkable
class Refining(Protocol):
    """An attack that can start from misclassified points, and looks for nearer ones around them."""

    label: str

    def refine(self, model: Model, batch: Batch, z: Inputs, threat: Threat, batch_size: int) -> Nearest:
        """Return the nearest misclassified points found; the threat gives norm and box."""


def padded_logits(model: Model, x: Inputs, batch_size: int) -> Logits:
    """Return the logits of x, in batches of at most `batch_size` examples (padded by repetition)."""
    logits, size = [], slots_needed(len(x), batch_size)
    with torch.no_grad():
        if len(x) == 0:
            return model(x)  # type: ignore[no-any-return]
        for chunk in torch.split(x, size):
            rows = torch.arange(size, device=x.device) % len(chunk)
            logits.append(model(chunk[rows])[: len(chunk)])
    return torch.cat(logits)


def likely_targets(model: Model, batch: Batch, count_limit: int | None, batch_size: int) -> Tensor:
    """Return the other classes of each example, the likeliest first, `most` of them or all: (n, targets).

    By the logits in the precision of the weights, also where the search is in a lower one, which ties logits.
    """
    with plainly():
        logits = padded_logits(model, batch.x, batch_size)
    other_logits = logits.scatter(1, batch.y[:, None], -torch.inf).nan_to_num(nan=-torch.inf)
    count = logits.shape[1] - 1
    ranked = other_logits.sort(dim=1, descending=True, stable=True).indices
    ranked = ranked[ranked != batch.y[:, None]].view(len(ranked), count)
    return ranked[:, : count if count_limit is None else min(count_limit, count)]
