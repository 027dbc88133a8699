"""Descents to the nearest misclassified point: a rule moves each point, and the nearest break that it meets counts."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from unperturbed.attacks.base import Attack, AttackResult, Nearest, likely_targets
from unperturbed.attacks.fast_minimum_norm import FastMinimumNorm
from unperturbed.attacks.points import Look, evaluated
from unperturbed.checks import NONE_OR_MORE, check_fields
from unperturbed.errors import InputError
from unperturbed.losses import targeted_margin
from unperturbed.maximise.climb_queue import slots_needed
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Labels, Logits, Loss, Model, Norm, PerExample


@runtime_checkable
class Rule(Protocol):
    """How a descent moves: examples do not depend on each other, and there are no random numbers."""

    @property
    def steps(self) -> int:
        """Moves, each a forward and an input gradient."""

    @property
    def loss(self) -> Loss:
        """The loss whose gradient the rule follows, positive where the prediction is wrong."""

    def supports(self, norm: Norm) -> bool:
        """Tell whether the rule works in this norm."""

    def begin(self, x: Inputs, start: Inputs, threat: Threat) -> Any:
        """Return the memory of descents that begin at `start`."""

    def move(self, x: Inputs, look: Look, k: int, memory: Any, threat: Threat) -> Inputs:
        """Return the points after move k, from 0, and update the memory."""


@dataclass(frozen=True)
class Descent(Attack):
    """Descend by a rule from x, and then by `polish` from the nearest misclassified point that the rule met.

    `refine` polishes points of other attacks. The radius of the threat does not matter. Rules follow the
    plain norm, also where features have shares of it; distances are those of the threat.

    Attributes:
        label: name of the attack in tables.
        rule: of the first descent.
        polish: of the second descent, with smaller steps.
        target: 1 and more: the rule follows f_t - f_y, where t has this place among the other classes, the likeliest at
            x first (the last class, where there are fewer); 0: the rule follows its own loss.
    """

    needs_gradient: ClassVar[bool | None] = True
    needs_radius: ClassVar[bool] = False
    label: str
    rule: Rule
    polish: FastMinimumNorm = FastMinimumNorm(steps=200, step=0.1, last_step=5e-4, change=0.02, last_change=3e-4)
    target: int = 0
    restarts: int = 1

    def __post_init__(self) -> None:
        """Raise InputError for settings of other types."""
        check_fields(self, target=NONE_OR_MORE)
        if isinstance(self.rule, type) or not isinstance(self.rule, Rule):
            raise InputError(f"The rule is {self.rule!r:.80}: give one of a descent, such as FastMinimumNorm().")

    def supports(self, norm: Norm) -> bool:
        """Tell whether the rule works in this norm."""
        return self.rule.supports(norm)

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        """Look for a misclassified point inside the threat set."""
        return self.nearest(model, batch, threat, noise, batch_size).found

    def nearest(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> Nearest:
        """Look for the nearest misclassified point."""
        record = _Record(batch.x, threat)
        rows = torch.arange(len(batch.x), device=batch.x.device)
        towards = likely_targets(model, batch, self.target, batch_size)[:, -1] if self.target else None
        passes = _descend(self.rule, model, batch, batch.x, rows, record, batch_size, towards)
        passes += _descend(
            self.polish, model, batch, record.nearest, record.distance.isfinite().nonzero()[:, 0], record, batch_size
        )
        return record.result(passes, self.rule.steps + self.polish.steps + 2)

    def refine(self, model: Model, batch: Batch, z: Inputs, threat: Threat, batch_size: int) -> Nearest:
        """Look for nearer misclassified points around misclassified points z."""
        record = _Record(batch.x, threat)
        rows = torch.arange(len(batch.x), device=batch.x.device)
        passes = _descend(self.polish, model, batch, z, rows, record, batch_size)
        return record.result(passes, self.polish.steps + 1)


def _descend(
    rule: Rule,
    model: Model,
    batch: Batch,
    start: Inputs,
    rows: Tensor,
    record: "_Record",
    batch_size: int,
    towards: Labels | None = None,
) -> int:
    """Descend from the start in these rows, record the points, and return the number of passes."""
    if len(rows) == 0:
        return 0
    size, threat, start = slots_needed(len(rows), batch_size), record.threat, start.clone()
    for part in torch.split(rows, size):
        padded = part[torch.arange(size, device=rows.device) % len(part)]
        x, y, z = batch.x[padded], batch.y[padded], start[padded]
        memory = rule.begin(x, z, threat)
        loss = rule.loss if towards is None else partial(_lead, towards[padded])
        for k in range(rule.steps + 1):
            look = evaluated(model, z, y, loss)
            look = replace(look, slope=threat.fixed(torch.zeros_like(x), look.slope))
            record.enter(part, look)
            if k < rule.steps:
                z = threat.fixed(x, threat.boxed(rule.move(x, look, k, memory, threat)))
    return len(rows) * (rule.steps + 1)


def _lead(target: Labels, logits: Logits, y: Labels) -> PerExample:
    return targeted_margin(logits, y, target)


class _Record:
    """The nearest misclassified point, and the point of largest margin inside the threat set, of every example."""

    def __init__(self, x: Inputs, threat: Threat) -> None:
        self.x, self.threat = x, threat
        self.nearest, self.inside = x.clone(), x.clone()
        self.distance, self.margin = x.new_full((len(x),), torch.inf), x.new_full((len(x),), -torch.inf)
        self.finite = torch.ones(len(x), dtype=torch.bool, device=x.device)
        self.informative = torch.zeros_like(self.finite)

    def enter(self, rows: Tensor, look: Look) -> None:
        """Record the first points, one for each row; the others fill the batch."""
        n = len(rows)
        z, margins = look.z[:n], look.margin[:n]
        sound = margins.isfinite()
        self.finite[rows[~sound]] = False
        self.informative[rows] |= look.informative[:n]
        distance = self.threat.distance(self.x[rows], z)
        nearer = sound & (margins > 0) & (distance < self.distance[rows])
        self._put(self.nearest, self.distance, rows, nearer, z, distance)
        better = sound & (margins > self.margin[rows])
        better &= self.threat.contains(self.x[rows], z)
        self._put(self.inside, self.margin, rows, better, z, margins)

    def _put(self, points: Tensor, values: Tensor, rows: Tensor, chosen: Tensor, z: Tensor, value: Tensor) -> None:
        points[rows[chosen]], values[rows[chosen]] = z[chosen], value[chosen]

    def result(self, passes: int, queries: int) -> Nearest:
        ones = torch.ones(len(self.x), dtype=torch.int64, device=self.x.device)
        finite = self.finite & self.informative
        found = AttackResult(self.inside, self.margin, finite, ones, passes, passes, queries * ones)
        return Nearest(self.nearest, self.distance, found)
