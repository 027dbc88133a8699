"""One block of examples under a suite: attack after attack, each on what still stands, every success verified."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unperturbed.attacks.base import Attack, padded_logits
from unperturbed.attacks.gradient import Suite
from unperturbed.findings import Verdict
from unperturbed.losses import margin
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Labels, Model, PerExample

TIE = 1e-4
"""A final margin this close to 0 is counted as a tie: float32 rounding at another batch size may turn it."""


@dataclass
class Tally:
    """What one attack has done so far."""

    name: str
    broken: int = 0
    broken_last: int = 0
    """Of those, by the last climb allowed: more would break more."""
    unverified: int = 0
    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0


@dataclass(eq=False)
class Block:
    """What is known of a block of examples, a row an example; the attacks fill it in."""

    batch: Batch
    prediction: Labels
    clean_margin: PerExample
    z: Inputs
    """The point of largest verified margin."""
    margin: PerExample
    """There."""
    finite: Tensor
    """Bool: whether everything computed so far was finite."""
    standing: Tensor
    """Bool: correct, and not broken so far."""
    refuted: Tensor
    """Bool: whether an attack claimed a break that a fresh forward did not confirm."""
    attack: list[str]
    """Which attack broke the example, or nothing."""
    restart: Labels
    """Climbs that the last attack on the example began."""

    def verdicts(self) -> list[Verdict]:
        """Return the verdicts.

        Only what was correct wherever it was looked at has survived: where the logits tied, a value was not finite, or
        a fresh forward gave another answer than the attack saw, nobody knows.
        """
        sound = self.finite & ~self.refuted & ~(self.standing & (self.margin >= 0))
        return [
            "broken" if attack else "unknown" if not sound else "survived" if standing else "misclassified"
            for attack, sound, standing in zip(self.attack, sound.tolist(), self.standing.tolist(), strict=True)
        ]

    def table(self, threat: Threat) -> dict[str, list[Any]]:
        """Return the per-example table, by column."""
        return {
            "id": self.batch.ids.tolist(),
            "label": self.batch.y.tolist(),
            "prediction": self.prediction.tolist(),
            "verdict": list(self.verdicts()),
            "attack": self.attack,
            "restart": self.restart.tolist(),
            "clean_margin": self.clean_margin.tolist(),
            "margin": self.margin.tolist(),
            "distance": threat.distance(self.batch.x, self.z).tolist(),
        }

    def adversarial(self) -> Inputs:
        """Return the perturbed inputs of the broken examples."""
        return self.z[[row for row, attack in enumerate(self.attack) if attack]]


def evaluate_block(
    model: Model, batch: Batch, threat: Threat, suite: Suite, seed: int, places: int, tallies: list[Tally]
) -> Block:
    """Return the block after all the attacks of the suite."""
    block = untouched(model, batch, places)
    for number, (attack, tally) in enumerate(zip(suite.attacks, tallies, strict=True)):
        rows = block.standing.nonzero()[:, 0]
        if len(rows) > 0:
            noise = Noise.of(seed, batch.ids[rows]).fold(number)
            attack_rows(model, block, rows, attack, threat, noise, places, tally)
    return block


def untouched(model: Model, batch: Batch, places: int) -> Block:
    """Return the block before any attack. A tie of the logits is not a correct classification."""
    logits = padded_logits(model, batch.x, places)
    finite = logits.isfinite().all(dim=1)
    clean = torch.where(finite, margin(logits, batch.y), torch.nan)
    return Block(
        batch=batch,
        prediction=logits.argmax(dim=1),
        clean_margin=clean,
        z=batch.x.clone(),
        margin=clean.clone(),
        finite=finite,
        standing=finite & (clean < 0),
        refuted=torch.zeros_like(finite),
        attack=[""] * len(batch.y),
        restart=torch.zeros_like(batch.y),
    )


def attack_rows(
    model: Model, block: Block, rows: Labels, attack: Attack, threat: Threat, noise: Noise, places: int, tally: Tally
) -> None:
    """Run one attack on some rows of a block, verify what it found, and enter both into block and tally."""
    began = time.perf_counter()
    batch = Batch(block.batch.x[rows], block.batch.y[rows], block.batch.ids[rows])
    found = attack(model, batch, threat, noise, places)
    verified = verify(model, batch, found.z, threat, places)
    broken = verified > 0
    refuted = (found.margin > 0) & ~broken

    better = verified > block.margin[rows]
    block.margin[rows[better]], block.z[rows[better]] = verified[better], found.z[better]
    block.restart[rows] = found.restart
    block.finite[rows[~found.finite]] = False
    block.refuted[rows[refuted]] = True
    block.standing[rows[broken]] = False
    for row in rows[broken].tolist():
        block.attack[row] = attack.label

    tally.broken += int(broken.sum())
    if attack.restarts > 1:
        tally.broken_last += int((broken & (found.restart == attack.restarts)).sum())
    tally.unverified += int(refuted.sum())
    tally.forwards += found.passes
    tally.backwards += found.passes if found.backwards is None else found.backwards
    tally.seconds += time.perf_counter() - began


def verify(model: Model, batch: Batch, z: Inputs, threat: Threat, places: int) -> PerExample:
    """Return the margin at z from a fresh forward; -inf where z lies outside the threat set or nothing finite came.

    A margin within `TIE` of 0 could turn with the company in the batch, so those examples are computed alone.
    """
    allowed = threat.contains(batch.x, z)
    inside = torch.where(allowed.view(-1, *[1] * (z.dim() - 1)), z, batch.x)
    margins = margin(padded_logits(model, inside, places), batch.y)
    for row in (margins.abs() <= TIE).nonzero()[:, 0].tolist():
        margins[row] = margin(padded_logits(model, inside[row : row + 1], 1), batch.y[row : row + 1])[0]
    return torch.where(allowed & margins.isfinite(), margins, -torch.inf)
