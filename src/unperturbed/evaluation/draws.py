"""One block of examples under random perturbations: the number of draws classified correctly."""

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unperturbed.attacks.base import padded_logits
from unperturbed.evaluation.evidence import Evidence
from unperturbed.evaluation.measurement import Task
from unperturbed.evaluation.nearest import AtOnce
from unperturbed.evaluation.parts import Tally
from unperturbed.losses import margin
from unperturbed.networks.failures import failed_on_all, isolate, within_memory
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Labels, Model, PerExample

TIMES = 10
"""Approximate number of times that an unfinished block is stored."""


@dataclass(eq=False)
class Counts:
    """The state of a block of examples, one row per example."""

    batch: Batch
    clean: PerExample
    """The margin without a perturbation; NaN if the logits are not finite."""
    right: Labels
    """Number of draws classified correctly."""
    unknown: Labels
    """Number of draws with logits that are not finite."""
    done: Tensor
    """The number of finished draws, a scalar."""
    tallies: list[Tally] = field(default_factory=list)
    """A single tally: seconds and forwards of all draws."""
    warnings: list[str] = field(default_factory=list)
    evidence: Evidence = field(default_factory=Evidence)
    """None: no gradient is taken."""

    def table(self) -> dict[str, list[Any]]:
        """Return the per-example table, by column."""
        return {
            "id": self.batch.ids.tolist(),
            "label": self.batch.y.tolist(),
            "clean": self.clean.tolist(),
            "right": self.right.tolist(),
            "wrong": (int(self.done) - self.right - self.unknown).tolist(),
            "unknown": self.unknown.tolist(),
        }


def count_draws(model: Model, task: Task[Counts], threat: Threat, draws: int, seed: int, at_once: AtOnce) -> Counts:
    """Return the counts of a block after `draws` draws, continuing an interrupted call."""
    batch, noise = task.batch, Noise.of(seed, task.batch.ids)

    def look(z: Inputs) -> tuple[PerExample, list[str]]:
        result, at_once.batch_size = within_memory(lambda size: margins_at(model, batch, z, size), at_once.batch_size)
        return result

    began, counts = time.perf_counter(), task.begun
    if counts is None:
        clean, warnings = look(batch.x)
        zeros = torch.zeros_like(batch.y)
        counts = Counts(batch, clean, zeros, zeros.clone(), torch.tensor(0), [Tally()], warnings)
    for draw in range(int(counts.done), draws):
        margins, _ = look(threat.sample(batch.x, noise.fold(draw)))
        counts.right += margins < 0
        counts.unknown += margins.isnan()
        counts.done += 1
        time_after = time.perf_counter()
        counts.tallies[0].seconds += time_after - began
        counts.tallies[0].forwards += len(batch.y)
        began = time_after
        if (draw + 1) % max(draws // TIMES, 1) == 0 and draw + 1 < draws:
            task.keep(counts)
        task.report((draw + 1) / draws, f"draw {draw + 1} of {draws}")
    return counts


def margins_at(model: Model, batch: Batch, z: Inputs, batch_size: int) -> tuple[PerExample, list[str]]:
    """Return the margins at z, NaN if the logits are not finite or the network fails even alone, and a warning."""
    parts, failures = isolate(lambda rows: padded_logits(model, z[rows], batch_size), torch.arange(len(z)))
    if not parts:
        raise failed_on_all(failures)
    margins = torch.full((len(z),), torch.nan).to(z)
    for rows, logits in parts:
        margins[rows] = torch.where(logits.isfinite().all(dim=1), margin(logits, batch.y[rows]), torch.nan)
    reasons = [repr(error) for error in failures.values()]
    return margins, [f"On {len(reasons)} examples the forward failed, even alone: {reasons[0]:.200}"] if reasons else []
