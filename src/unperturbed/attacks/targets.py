"""In which order a targeted attack tries the other classes."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from unperturbed.attacks.base import likely_targets
from unperturbed.checks import AT_LEAST_ONE, check_fields
from unperturbed.maximise.climb_queue import slots_needed
from unperturbed.maximise.slopes import usable
from unperturbed.networks.precision import plainly
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Labels, Model, PerExample


@runtime_checkable
class TargetOrder(Protocol):
    """The other classes of each example, in the order in which an attack tries them."""

    def __call__(self, model: Model, batch: Batch, threat: Threat, batch_size: int) -> Tensor:
        """Return all of them: (n, classes - 1)."""
        ...

    def passes(self, classes: int) -> tuple[int, int]:
        """Return the forwards and backwards for each example of a network with so many classes."""
        ...


@dataclass(frozen=True)
class ByLogit:
    """The classes of largest logits at x first."""

    def __call__(self, model: Model, batch: Batch, threat: Threat, batch_size: int) -> Tensor:
        """Return all other classes: (n, classes - 1)."""
        return likely_targets(model, batch, None, batch_size)

    def passes(self, classes: int) -> tuple[int, int]:
        """Return one forward, and no backward."""
        return 1, 0


@dataclass(frozen=True)
class ByDistance:
    """The class whose boundary is nearest in the network linearised at x first.

    The distance to the boundary of class k is (f_y - f_k) / ‖grad (f_y - f_k)‖ in the dual norm (MALT, Melamed et al.
    2024, https://arxiv.org/abs/2407.02240, algorithm 1). A class whose gradient is 0 comes last.

    Attributes:
        candidates: classes whose distance is computed, with a backward each: those of largest logits. Others follow.
    """

    candidates: int = 100

    def __post_init__(self) -> None:
        """Refuse a number of candidates below 1."""
        check_fields(self, candidates=AT_LEAST_ONE)

    def __call__(self, model: Model, batch: Batch, threat: Threat, batch_size: int) -> Tensor:
        """Return all other classes: (n, classes - 1)."""
        likely = likely_targets(model, batch, None, batch_size)
        if len(likely) == 0:
            return likely
        candidates, rest = likely[:, : self.candidates], likely[:, self.candidates :]
        size, distances = slots_needed(len(batch.x), batch_size), list[Tensor]()
        with plainly():
            for rows in torch.split(torch.arange(len(batch.x), device=batch.x.device), size):
                padded = rows[torch.arange(size, device=rows.device) % len(rows)]
                values = _distances(model, batch.x[padded], batch.y[padded], candidates[padded], threat)
                distances.append(values[: len(rows)])
        ranked = candidates.gather(1, torch.cat(distances).sort(dim=1, stable=True).indices)
        return torch.cat([ranked, rest], dim=1)

    def passes(self, classes: int) -> tuple[int, int]:
        """Return two forwards, and a backward for each candidate."""
        return 2, min(classes - 1, self.candidates)


def _distances(model: Model, x: Inputs, y: Labels, classes: Tensor, threat: Threat) -> Tensor:
    """Return how far the linearised boundary of each class is: (n, classes); infinite where the gradient is 0."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(x)
        leads = logits.gather(1, y[:, None]) - logits.gather(1, classes)
    columns = list[PerExample]()
    for column in range(classes.shape[1]):
        (slope,) = torch.autograd.grad(leads[:, column].sum(), x, retain_graph=column + 1 < classes.shape[1])
        lead = leads[:, column].detach()
        distance = lead / threat.dual_norm(usable(slope))
        columns.append(torch.where(distance.isnan(), torch.inf, distance))
    return torch.stack(columns, dim=1)
