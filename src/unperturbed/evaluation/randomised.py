"""Networks that draw random numbers: their accuracy is a mean over draws."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unperturbed.attacks.base import AttackResult, padded_logits
from unperturbed.attacks.gradient import Suite
from unperturbed.evaluation.evidence import Evidence
from unperturbed.evaluation.parts import Tally
from unperturbed.evaluation.search import Networks
from unperturbed.findings import Outcome, Verdict
from unperturbed.losses import margin
from unperturbed.maximise.slopes import noticing
from unperturbed.networks.failures import carefully, failed_on, isolate, within_memory
from unperturbed.networks.modes import own_randomness
from unperturbed.noise import Noise
from unperturbed.statistics.intervals import wilson_over_draws
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Labels, Logits, Model, Rows

DRAWS = 100
"""Number of draws in an accuracy, all different from those of the attacks."""
RANDOM = "The network draws random numbers"


def draws_of(suite: Suite) -> int:
    """Return the number of draws in the means that the suite's attacks climb; above 1, accuracies are means as well."""
    return max(attack.draws for attack in suite.attacks)


def draws_random_numbers(model: Model, x: Inputs, batch_size: int) -> bool:
    """Tell whether two forwards of the same batch differ in any bit.

    The random state is restored. A network that differs only once in many forwards may go undetected.
    """

    def alike(rows: Rows) -> bool:
        def twice(size: int) -> bool:
            first, second = (padded_logits(model, x[rows], size) for _ in range(2))
            return torch.equal(first.nan_to_num(), second.nan_to_num())

        return within_memory(twice, batch_size)[0]

    with own_randomness(0, x.device):
        parts, _ = isolate(alike, torch.arange(len(x)))
    return not all(equal for _, equal in parts)


def randomness_warnings(suite: Suite, draws: bool) -> list[str]:
    """Return a warning if a network draws random numbers, or draws none, under a suite for the other kind."""
    if draws and draws_of(suite) == 1:
        return [
            f"{RANDOM}: two forwards of the same inputs differ. The suite "
            f"{suite.name} decides by a single draw and its attacks climb single draws: use rand."
        ]
    if not draws and draws_of(suite) > 1:
        return [f"The network draws no random numbers: the suite {suite.name} is the weaker one, use standard."]
    return []


def margins_over_draws(
    model: Model, batch: Batch, z: Inputs, draws: Sequence[int], seed: int, batch_size: int
) -> Tensor:
    """Return the margin at z in each of these draws, (n, draws), NaN if a logit is not finite.

    A draw's random numbers come from the seed, its number and the first example's id; the random state is restored. So
    two points are compared in the same draws.
    """
    columns = []
    for draw in draws:
        logits = _logits_of_draw(model, batch, z, draw, seed, batch_size)
        columns.append(torch.where(logits.isfinite().all(dim=1), margin(logits, batch.y), torch.nan))
    return torch.stack(columns, dim=1)


def _logits_of_draw(model: Model, batch: Batch, z: Inputs, draw: int, seed: int, batch_size: int) -> Logits:
    key = Noise.of(seed, batch.ids[:1]).fold(draw).keys
    with own_randomness(int(key), z.device):
        return padded_logits(model, z, batch_size)


@dataclass(eq=False)
class RandomBlock:
    """The state of a block of examples of a network that draws random numbers, one row per example."""

    batch: Batch
    prediction: Labels
    """The prediction at x in the first draw (-1 until the attacks are finished)."""
    z: Inputs
    """The point with the most wrong draws."""
    clean_margins: Tensor
    """At x, in each draw."""
    margins: Tensor
    """At z, in the same draws. Both are NaN until the attacks are finished."""
    wrongness: Tensor
    """The wrongness of z, in the few draws of its selection."""
    finite: Tensor
    """Bool: whether all values of the attacks were finite."""
    found_by: Labels
    """The number of the attack that found z; -1 if z is x."""
    restart: Rows
    """Number of climbs of the last attack."""
    queries: Rows
    """Number of the attacks' forwards for the example."""
    tallies: list[Tally] = field(default_factory=list)
    """One for each attack that has run."""
    warnings: list[str] = field(default_factory=list)
    evidence: Evidence = field(default_factory=Evidence)
    """The behaviour of gradients, after the attacks."""

    def verdicts(self) -> list[Verdict]:
        """Return the verdicts, by the majority of draws; unknown where a draw was not finite or the vote is tied."""
        verdicts: list[Verdict] = []
        for clean, at_z in zip(_typical(self.clean_margins).tolist(), _typical(self.margins).tolist(), strict=True):
            decided = not (math.isnan(clean) or math.isnan(at_z))
            verdicts.append(
                "unknown" if not decided else "misclassified" if clean >= 0 else
                "survived" if at_z < 0 else "broken" if at_z > 0 else "unknown"
            )  # fmt: skip
        return verdicts

    def table(self, threat: Threat, suite: Suite) -> dict[str, list[Any]]:
        """Return the per-example table, by column; margins are medians over draws, their signs are in the last two.

        `clean_draws` and `draws` hold a number for each draw: 1 right, 0 wrong, -1 not finite.
        """
        verdicts = self.verdicts()
        labels = [attack.label for attack in suite.attacks] + [""]
        names = [labels[number] for number in self.found_by.tolist()]
        return {
            "id": self.batch.ids.tolist(),
            "label": self.batch.y.tolist(),
            "prediction": self.prediction.tolist(),
            "verdict": list(verdicts),
            "attack": [name if verdict == "broken" else "" for name, verdict in zip(names, verdicts, strict=True)],
            "restart": self.restart.tolist(),
            "queries": self.queries.tolist(),
            "clean_margin": _typical(self.clean_margins).tolist(),
            "margin": _typical(self.margins).tolist(),
            "distance": threat.distance(self.batch.x, self.z).tolist(),
            "clean_draws": _signs(self.clean_margins).tolist(),
            "draws": _signs(self.margins).tolist(),
        }

    def adversarial(self) -> Inputs:
        """Return the perturbed inputs of the broken examples, on the CPU."""
        broken = [row for row, verdict in enumerate(self.verdicts()) if verdict == "broken"]
        return self.z[broken].contiguous().cpu()

    def most_robust(self) -> None:
        """Return None: before the final draws, no bound is known."""

    def attack(self, networks: Networks, threat: Threat, suite: Suite, seed: int) -> None:
        """Run the suite's next attack."""
        attack_random_block(networks, self, threat, suite, seed)

    def conclude(self, networks: Networks, seed: int) -> None:
        """Evaluate x and the adversarial points in draws that no attack has used."""
        look_again(networks, self, seed)


def random_block(networks: Networks, batch: Batch, suite: Suite, seed: int) -> RandomBlock:
    """Return the block before any attack, of a suite whose accuracies are means over draws."""
    n, unknown = len(batch.y), torch.full((len(batch.y), DRAWS), torch.nan).to(batch.x)
    parts, failures = carefully(
        lambda rows, batch_size: _look(
            networks, _rows(batch, rows), batch.x[rows], _selection_draws(suite), seed, batch_size
        ),
        torch.arange(n, device=batch.y.device),
        networks,
    )
    wrongness = batch.x.new_full((n,), torch.inf, dtype=torch.float64)  # a failure at x counts as the worst
    for rows, margins in parts:
        wrongness[rows] = _wrongness(margins)
    finite = torch.ones_like(batch.y, dtype=torch.bool)
    finite[list(failures)] = False
    return RandomBlock(
        batch=batch,
        prediction=torch.full_like(batch.y, -1),
        z=batch.x.clone(),
        clean_margins=unknown,
        margins=unknown.clone(),
        wrongness=wrongness,
        finite=finite,
        found_by=torch.full_like(batch.y, -1),
        restart=torch.zeros_like(batch.y),
        queries=torch.zeros_like(batch.y),
        warnings=failed_on(failures, batch.ids, "the forward"),
    )


def attack_random_block(networks: Networks, block: RandomBlock, threat: Threat, suite: Suite, seed: int) -> None:
    """Run the next attack of the suite on the whole block.

    Every attack runs on every example to its end, whatever its draws. Among its points and x, the point with the most
    wrong draws of a few is kept.
    """
    number, began = len(block.tallies), time.perf_counter()
    attack, tally = suite.attacks[number], Tally()
    noise = Noise.of(seed, block.batch.ids).fold(number)

    def run(rows: Rows, batch_size: int) -> tuple[AttackResult, Inputs, Tensor]:
        batch, streams = _rows(block.batch, rows), noise.rows(rows)
        with own_randomness(int(streams.fold(0).keys[0]), batch.x.device):  # the unfolded keys belong to a draw
            result = attack.to_the_end()(networks.reported, batch, threat, streams, batch_size)
        inside = threat.contains(batch.x, result.z)
        z = torch.where(inside.view(-1, *[1] * (batch.x.dim() - 1)), result.z, batch.x)
        return result, z, _wrongness(_look(networks, batch, z, _selection_draws(suite), seed, batch_size))

    with noticing() as replaced:
        parts, failures = carefully(run, torch.arange(len(block.batch.y), device=block.batch.y.device), networks)
    tally.replaced = replaced.any
    for rows, (result, z, wrongness) in parts:
        better = wrongness > block.wrongness[rows]
        improved = rows[better]
        block.z[improved], block.wrongness[improved], block.found_by[improved] = z[better], wrongness[better], number
        block.finite[rows] &= result.finite
        block.restart[rows] = result.restart
        block.queries[rows] += 0 if result.queries is None else result.queries
        tally.forwards += result.passes
        tally.backwards += result.passes if result.backwards is None else result.backwards
    block.finite[list(failures)] = False
    block.warnings += failed_on(failures, block.batch.ids, attack.label)
    tally.seconds = time.perf_counter() - began
    block.tallies.append(tally)


def look_again(networks: Networks, block: RandomBlock, seed: int) -> None:
    """Evaluate x and the adversarial points in `DRAWS` draws that no attack has used."""

    def run(rows: Rows, batch_size: int) -> tuple[Tensor, Tensor, Labels]:
        batch, draws = _rows(block.batch, rows), range(DRAWS)
        clean, margins = (_look(networks, batch, z, draws, seed, batch_size) for z in (batch.x, block.z[rows]))
        return clean, margins, _logits_of_draw(networks.reported, batch, batch.x, 0, seed, batch_size).argmax(dim=1)

    parts, failures = carefully(run, torch.arange(len(block.batch.y), device=block.batch.y.device), networks)
    for rows, (clean, margins, prediction) in parts:
        block.clean_margins[rows], block.margins[rows], block.prediction[rows] = clean, margins, prediction
    unsearched = ~block.finite[:, None] & (block.margins < 0)  # the search was incomplete
    block.margins = torch.where(unsearched, torch.nan, block.margins)
    block.warnings += failed_on(failures, block.batch.ids, "the last look")
    broken = torch.tensor([verdict == "broken" for verdict in block.verdicts()], device=block.found_by.device)
    for number, tally in enumerate(block.tallies):
        tally.broken = int((broken & (block.found_by == number)).sum())


def _look(networks: Networks, batch: Batch, z: Inputs, draws: Sequence[int], seed: int, batch_size: int) -> Tensor:
    return margins_over_draws(networks.reported, batch, z, draws, seed, batch_size)


def _selection_draws(suite: Suite) -> range:
    return range(DRAWS, DRAWS + draws_of(suite))


def _rows(batch: Batch, rows: Rows) -> Batch:
    return Batch(batch.x[rows], batch.y[rows], batch.ids[rows])


def over_draws(outcome: Outcome) -> Outcome:
    """Return the outcome of a suite of random blocks with means over draws as its accuracies."""
    clean, attacked = (np.array(outcome.examples[column]) for column in ("clean_draws", "draws"))
    return replace(
        outcome,
        clean_accuracy=wilson_over_draws(clean == 1, clean == -1),
        robust_accuracy=wilson_over_draws(attacked == 1, attacked == -1),
        environment={**outcome.environment, "draws": DRAWS},
    )


def _wrongness(margins: Tensor) -> Tensor:
    """Return the number of draws that are not right, plus a fraction that orders by the mean margin."""
    mean = margins.double().mean(dim=1).nan_to_num(nan=0.0)
    return (~(margins < 0)).sum(dim=1) + mean.atan() / torch.pi


def _typical(margins: Tensor) -> Tensor:
    """Return the median margin (the larger of two): below 0 if more than half of the draws are right; or NaN."""
    median = margins.sort(dim=1).values[:, margins.shape[1] // 2]
    return torch.where(margins.isnan().any(dim=1), torch.nan, median)


def _signs(margins: Tensor) -> Tensor:
    """Return 1 for a right draw, 0 for a wrong or tied one, -1 for NaN."""
    return torch.where(margins.isnan(), -1, (margins < 0).long())
