"""The targeted attack on the likeliest other classes, one after the other."""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from unperturbed.attacks.base import Attack, AttackResult
from unperturbed.attacks.eot import averaged
from unperturbed.attacks.gradient import check_climbs
from unperturbed.attacks.targets import ByLogit, TargetOrder
from unperturbed.checks import ANY, NOT_MORE, check_fields
from unperturbed.errors import InputError
from unperturbed.losses import margin, targeted_margin
from unperturbed.maximise.ascent import Ascent, search
from unperturbed.maximise.pgd import PGD
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Model, PerExample, Rows, TargetedLoss


@dataclass(frozen=True)
class MultiTargeted(Attack):
    """Climb `loss` towards each of the targets, each from a new start, until the example breaks.

    By default f_t - f_y towards all other classes (Gowal et al. 2019, https://arxiv.org/abs/1910.09338); with APGD, the
    targeted difference-of-logits ratio and 9 targets it is APGD-T (Croce & Hein 2020,
    https://arxiv.org/abs/2003.01690). An iterate of any wrong class counts as a break.

    Attributes:
        label: name of the attack in tables.
        loss: the loss to climb.
        ascent: the step rule.
        targets: the number of classes; None: all but the label.
        order: the order of the classes: from the largest logit at x, or `ByDistance()`.
        restarts: the largest number of rounds over all targets.
        draws: forwards over which loss and margin are averaged, for networks that draw random numbers (see `eot.py`).
        enough: the margin above which an example's search ends; with infinity every climb runs to its end.
    """

    bears_rounding: ClassVar[bool] = True
    needs_gradient: ClassVar[bool | None] = True
    label: str = "MultiTargeted"
    loss: TargetedLoss = targeted_margin
    ascent: Ascent = field(default_factory=lambda: PGD(steps=100))
    targets: int | None = None
    order: TargetOrder = ByLogit()
    restarts: int = 1
    draws: int = 1
    enough: float = 0.0

    def __post_init__(self) -> None:
        """Refuse numbers that leave nothing to do."""
        check_fields(self, enough=ANY, restarts=NOT_MORE, draws=NOT_MORE, targets=NOT_MORE)
        check_climbs(self.label, self.restarts, self.draws, self.enough)
        if self.targets is not None and self.targets < 1:
            raise InputError(f"{self.label} with targets {self.targets}: at least 1, or None for all other classes.")

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        """Attack every example; iterates are ranked by margin."""
        others = self.order(model, batch, threat, batch_size)
        targets = others[:, : self.targets]
        count = targets.shape[1]
        score = _Towards(model, batch.y, targets, self.loss, torch.zeros_like(batch.y))
        mean, climbs = averaged(score, self.draws), count * self.restarts
        best = search(self.ascent, mean, batch.x, threat, noise, climbs, batch_size, self.enough)
        rounds = (best.restart + count - 1) // count
        forwards, backwards = self.order.passes(others.shape[1] + 1)
        passes, n = self.draws * best.passes, len(batch.y)
        queries = forwards + self.draws * best.queries
        return AttackResult(
            best.z, best.rank, best.finite, rounds, forwards * n + passes, backwards * n + passes, queries
        )

    def to_the_end(self) -> "MultiTargeted":
        """Return the attack in which every climb runs to its end."""
        return replace(self, enough=math.inf)


@dataclass(frozen=True, eq=False)
class _Towards:
    """The score of climbs, whose numbers determine their targets."""

    model: Model
    y: Rows
    targets: Tensor
    loss: TargetedLoss
    climb: Tensor

    def of_climb(self, numbers: Rows, moves: Rows) -> "_Towards":
        return replace(self, climb=numbers)

    def __call__(self, z: Inputs, rows: Rows) -> tuple[PerExample, PerExample]:
        logits, y = self.model(z), self.y[rows]
        target = self.targets[rows, self.climb % self.targets.shape[1]]
        return self.loss(logits, y, target), margin(logits, y).detach()
