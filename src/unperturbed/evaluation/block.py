"""One block of examples under a suite: every attack runs on the unbroken examples, every success is verified."""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from unperturbed.attacks.base import Attack, AttackResult, padded_logits
from unperturbed.attacks.gradient import Suite
from unperturbed.evaluation.evidence import Evidence
from unperturbed.evaluation.parts import Tally
from unperturbed.evaluation.search import Networks, search
from unperturbed.findings import Verdict
from unperturbed.losses import margin
from unperturbed.maximise.slopes import noticing
from unperturbed.networks.failures import failed_on, failed_on_all, isolate, within_memory
from unperturbed.networks.modes import own_randomness
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Labels, Logits, Model, PerExample


@dataclass(eq=False)
class Block:
    """The state of a block of examples, one row per example; the attacks update it."""

    batch: Batch
    prediction: Labels
    clean_margin: PerExample
    z: Inputs
    """The point of largest verified margin."""
    margin: PerExample
    """There."""
    finite: Tensor
    """Bool: whether all values computed so far were finite."""
    standing: Tensor
    """Bool: correct, and unbroken so far."""
    refuted: Tensor
    """Bool: whether an attack claimed a break that a fresh forward did not confirm."""
    broken_by: Labels
    """The number of the attack that broke the example, or -1."""
    restart: Labels
    """Number of climbs by the last attack on the example."""
    queries: Labels
    """Number of forwards for the example, up to its break."""
    unlike: Tensor
    """Bool: whether gradients in lower precision differed from the network's."""
    tallies: list[Tally] = field(default_factory=list)
    """One for each attack that has run."""
    warnings: list[str] = field(default_factory=list)
    evidence: Evidence = field(default_factory=Evidence)
    """The behaviour of gradients, after the attacks."""

    def verdicts(self) -> list[Verdict]:
        """Return the verdicts.

        Only an example that was correct at every verified point has survived; if the logits tied, a value was not
        finite, or a fresh forward refuted an attack's claim, the verdict is unknown.
        """
        sound = self.finite & ~self.refuted & ~(self.standing & (self.margin >= 0))
        return [
            "broken" if attack >= 0 else "unknown" if not sound else "survived" if standing else "misclassified"
            for attack, sound, standing in zip(
                self.broken_by.tolist(), sound.tolist(), self.standing.tolist(), strict=True
            )
        ]

    def table(self, threat: Threat, suite: Suite) -> dict[str, list[Any]]:
        """Return the per-example table, by column."""
        labels = [attack.label for attack in suite.attacks] + [""]  # -1 is the last
        return {
            "id": self.batch.ids.tolist(),
            "label": self.batch.y.tolist(),
            "prediction": self.prediction.tolist(),
            "verdict": list(self.verdicts()),
            "attack": [labels[number] for number in self.broken_by.tolist()],
            "restart": self.restart.tolist(),
            "queries": self.queries.tolist(),
            "clean_margin": self.clean_margin.tolist(),
            "margin": self.margin.tolist(),
            "distance": threat.distance(self.batch.x, self.z).tolist(),
        }

    def adversarial(self) -> Inputs:
        """Return the perturbed inputs of the broken examples, on the CPU."""
        return self.z[self.broken_by >= 0].contiguous().cpu()

    def most_robust(self) -> int:
        """Return the number of unbroken examples, an upper bound on the number of robust ones."""
        return int(self.standing.sum())

    def attack(self, networks: Networks, threat: Threat, suite: Suite, seed: int) -> None:
        """Run the suite's next attack."""
        attack_block(networks, self, threat, suite, seed)

    def conclude(self, networks: Networks, seed: int) -> None:
        """Finish the block after all attacks; every success is verified already."""


def untouched(model: Model, batch: Batch, batch_size: int, seed: int) -> Block:
    """Return the block before any attack. A tie of the logits is not a correct classification."""

    def clean_logits(rows: Labels) -> Logits:
        return within_memory(lambda size: padded_logits(model, batch.x[rows], size), batch_size)[0]

    with _draws_of(seed, batch, -1):
        parts, failures = isolate(clean_logits, torch.arange(len(batch.y)))
    if not parts:
        raise failed_on_all(failures)
    logits: Logits = torch.full((len(batch.y), parts[0][1].shape[1]), torch.nan).to(batch.x)
    for rows, values in parts:
        logits[rows] = values
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
        broken_by=torch.full_like(batch.y, -1),
        restart=torch.zeros_like(batch.y),
        queries=torch.zeros_like(batch.y),
        unlike=torch.zeros_like(finite),
        warnings=failed_on(failures, batch.ids, "the forward"),
    )


def attack_block(networks: Networks, block: Block, threat: Threat, suite: Suite, seed: int) -> None:
    """Run the suite's next attack on the unbroken examples, verify its points, and update the block."""
    number = len(block.tallies)
    attack, tally, began = suite.attacks[number], Tally(), time.perf_counter()
    rows = block.standing.nonzero()[:, 0]
    batch = replace(block.batch, z=block.z)
    if len(rows) > 0:
        noise = Noise.of(seed, block.batch.ids).fold(number)
        with _draws_of(seed, block.batch, number), noticing() as replaced:
            parts, failures = isolate(
                lambda part: search(networks, batch, part, block.unlike[part], attack, threat, noise),
                rows,
            )
        tally.replaced = replaced.any
        for part, (result, margins, unlike) in parts:
            block.unlike[part] = unlike
            block.warnings += result.warnings
            _enter(block, part, result, margins, number, attack, tally)
        block.finite[list(failures)] = False
        block.warnings += failed_on(failures, block.batch.ids, attack.label)
        if len(parts) > 1 and not failures:
            block.warnings.append(f"{attack.label} failed on {len(rows)} examples together, and ran on smaller parts.")
    tally.seconds = time.perf_counter() - began
    block.tallies.append(tally)


def _draws_of(seed: int, batch: Batch, number: int) -> AbstractContextManager[None]:
    """Fix the random numbers of the network's draws for this attack on this block."""
    return own_randomness(int(Noise.of(seed, batch.ids[:1]).fold(number).keys), batch.x.device)


def _enter(
    block: Block, rows: Labels, result: AttackResult, margins: PerExample, number: int, attack: Attack, tally: Tally
) -> None:
    """Update block and tally by an attack's result for these rows, with the verified margins."""
    broken = margins > 0
    refuted = (result.margin > 0) & ~broken
    better = margins > block.margin[rows]
    block.margin[rows[better]], block.z[rows[better]] = margins[better], result.z[better]
    block.restart[rows] = result.restart
    block.queries[rows] += 0 if result.queries is None else result.queries
    block.finite[rows[~result.finite]] = False
    block.refuted[rows[refuted]] = True
    block.standing[rows[broken]] = False
    block.broken_by[rows[broken]] = number

    tally.broken += int(broken.sum())
    if attack.restarts > 1:
        tally.broken_last += int((broken & (result.restart == attack.restarts)).sum())
    tally.unverified += int(refuted.sum())
    tally.forwards += result.passes
    tally.backwards += result.passes if result.backwards is None else result.backwards
