"""One block of examples under random perturbations: how many of the draws are classified correctly."""

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
"""How often, about, the counts of a block are kept before it is finished."""


@dataclass(eq=False)
class Counts:
    """What is known of a block of examples, a row an example."""

    batch: Batch
    clean: PerExample
    """The margin without a perturbation; NaN where the logits are not finite."""
    right: Labels
    """Draws that are classified correctly."""
    unknown: Labels
    """Draws whose logits are not finite."""
    done: Tensor
    """How many draws are counted, a single number."""
    tallies: list[Tally] = field(default_factory=list)
    """A single one: seconds and forwards of all the draws."""
    warnings: list[str] = field(default_factory=list)
    evidence: Evidence = field(default_factory=Evidence)
    """Nothing: no gradient is taken."""

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
    """Return the counts of a block after so many draws; those of an interrupted call are kept."""
    batch, noise = task.batch, Noise.of(seed, task.batch.ids)

    def look(z: Inputs) -> tuple[PerExample, list[str]]:
        result, at_once.batch_size = within_memory(lambda few: _margins(model, batch, z, few), at_once.batch_size)
        return result

    began, counts = time.perf_counter(), task.begun
    if counts is None:
        clean, warnings = look(batch.x)
        none = torch.zeros_like(batch.y)
        counts = Counts(batch, clean, none, none.clone(), torch.tensor(0), [Tally()], warnings)
    for draw in range(int(counts.done), draws):
        margins, _ = look(threat.sample(batch.x, noise.fold(draw)))
        counts.right += margins < 0
        counts.unknown += margins.isnan()
        counts.done += 1
        now = time.perf_counter()
        counts.tallies[0].seconds += now - began
        counts.tallies[0].forwards += len(batch.y)
        began = now
        if (draw + 1) % max(draws // TIMES, 1) == 0 and draw + 1 < draws:
            task.keep(counts)
        task.report((draw + 1) / draws, f"draw {draw + 1} of {draws}")
    return counts


def _margins(model: Model, batch: Batch, z: Inputs, batch_size: int) -> tuple[PerExample, list[str]]:
    """Return the margins at z, NaN where the logits are not finite or the network fails even alone, and a warning."""
    parts, failures = isolate(lambda rows: padded_logits(model, z[rows], batch_size), torch.arange(len(z)))
    if not parts:
        raise failed_on_all(failures)
    margins = torch.full((len(z),), torch.nan).to(z)
    for rows, logits in parts:
        margins[rows] = torch.where(logits.isfinite().all(dim=1), margin(logits, batch.y[rows]), torch.nan)
    reasons = [repr(error) for error in failures.values()]
    return margins, [f"On {len(reasons)} examples the forward failed, even alone: {reasons[0]:.200}"] if reasons else []
