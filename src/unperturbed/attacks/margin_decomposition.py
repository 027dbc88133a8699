"""Climbs on one term of the margin at a time, where the two terms' gradients cancel each other."""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from unperturbed.attacks.base import Attack, AttackResult
from unperturbed.attacks.eot import averaged
from unperturbed.attacks.gradient import check_climbs
from unperturbed.checks import ANY, NOT_MORE, check_fields
from unperturbed.losses import margin
from unperturbed.maximise.ascent import Ascent, search
from unperturbed.maximise.cosine import CosinePGD
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, LogitMap, Logits, Model, PerExample, Rows


def unit_probabilities(logits: Logits) -> Logits:
    """Return the softmax of the logits scaled to a standard deviation of 3: it saturates at no scale of the logits.

    The scale counts as a constant in the gradient.
    """
    spread = logits.detach().std(dim=1, keepdim=True).clamp(min=torch.finfo(logits.dtype).tiny)
    return (3 * logits / spread).softmax(dim=1)


def same_logits(logits: Logits) -> Logits:
    """Return the logits."""
    return logits


@dataclass(frozen=True)
class MarginDecomposition(Attack):
    """Climb -u_y (every second climb: max_{j != y} u_j) for half of the moves, and the margin max_j u_j - u_y then.

    The first move goes the other way, out of a flat start. With u the logits it is MD (Ma et al. 2023, Imbalanced
    Gradients, https://arxiv.org/abs/2006.13726, algorithm 1), with u the probabilities PMA (Xie et al. 2024,
    https://arxiv.org/abs/2411.15210, section 3), here of logits of unit scale. Iterates are ranked by the margin of
    the logits.

    Attributes:
        label: how tables name the attack.
        outputs: u as a function of the logits.
        ascent: how.
        restarts: climbs an example.
        draws: forwards that loss and margin are the means of, for networks that draw random numbers (see `eot.py`).
        enough: the margin above which an example is let go; with infinity every climb goes to its end.
    """

    bears_rounding: ClassVar[bool] = True
    needs_gradient: ClassVar[bool | None] = True
    label: str = "MD"
    outputs: LogitMap = same_logits
    ascent: Ascent = field(default_factory=CosinePGD)
    restarts: int = 2
    draws: int = 1
    enough: float = 0.0

    def __post_init__(self) -> None:
        """Refuse numbers that leave nothing to do."""
        check_fields(self, enough=ANY, restarts=NOT_MORE, draws=NOT_MORE)
        check_climbs(self.label, self.restarts, self.draws, self.enough)

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        """Attack every example."""
        nothing = torch.zeros_like(batch.y[:1])
        score = averaged(_Decomposed(model, batch.y, self.outputs, self.ascent.steps, nothing, nothing), self.draws)
        best = search(self.ascent, score, batch.x, threat, noise, self.restarts, batch_size, self.enough)
        passes, queries = self.draws * best.passes, self.draws * best.queries
        return AttackResult(best.z, best.rank, best.finite, best.restart, passes, queries=queries)

    def to_the_end(self) -> "MarginDecomposition":
        """Return the attack with every climb to its end."""
        return replace(self, enough=math.inf)


@dataclass(frozen=True, eq=False)
class _Decomposed:
    """The score of climbs after some moves, which say which terms of the margin count."""

    model: Model
    y: Rows
    outputs: LogitMap
    steps: int
    climb: Tensor
    moves: Tensor

    def of_climb(self, numbers: Rows, moves: Rows) -> "_Decomposed":
        return replace(self, climb=numbers, moves=moves)

    def __call__(self, z: Inputs, rows: Rows) -> tuple[PerExample, PerExample]:
        logits, y = self.model(z), self.y[rows]
        u = self.outputs(logits)
        label = u.gather(1, y[:, None])[:, 0]
        rival = margin(u, y) + label
        one_term = torch.where(self.climb % 2 == 0, -label, rival)
        value = torch.where(self.moves < 1, label, torch.where(2 * self.moves < self.steps, one_term, rival - label))
        return value, margin(logits, y).detach()
