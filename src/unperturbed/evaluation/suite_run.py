"""A suite on one block of examples, to its end, and the resulting doubts about the robust accuracy."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

from unperturbed.attacks.gradient import Suite
from unperturbed.engines.base import Report
from unperturbed.evaluation.block import Block, untouched
from unperturbed.evaluation.checked_model import CheckedModel
from unperturbed.evaluation.evidence import (
    FALLEN,
    FALLEN_BEFORE_CHECK,
    Doubt,
    doubts_of,
    examined,
    fallen_without_gradients,
    total,
)
from unperturbed.evaluation.outputs import FLAT
from unperturbed.evaluation.parts import Part, State
from unperturbed.evaluation.randomised import (
    RANDOM,
    RandomBlock,
    draws_of,
    draws_random_numbers,
    random_block,
    randomness_warnings,
)
from unperturbed.evaluation.search import Networks
from unperturbed.findings import Verdict
from unperturbed.maximise.climb_queue import Watch, watched
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs


@runtime_checkable
class Attacked(State, Protocol):
    """A block of examples under a suite: the state after the attacks so far."""

    z: Inputs

    def verdicts(self) -> list[Verdict]:
        """Return the verdicts, once the block is concluded."""

    def table(self, threat: Threat, suite: Suite) -> dict[str, list[Any]]:
        """Return the per-example table, by column."""

    def adversarial(self) -> Inputs:
        """Return the perturbed inputs of the broken examples, on the CPU."""

    def most_robust(self) -> int | None:
        """Return an upper bound on the number of robust examples; None if unknown."""

    def attack(self, networks: Networks, threat: Threat, suite: Suite, seed: int) -> None:
        """Run the suite's next attack."""

    def conclude(self, networks: Networks, seed: int) -> None:
        """Finish the block after all attacks."""


A = TypeVar("A", bound=Attacked)


def kind_of(suite: Suite) -> type[Block] | type[RandomBlock]:
    """Return the type of a suite's blocks: of accuracies of a single forward, or of means over draws."""
    return RandomBlock if draws_of(suite) > 1 else Block


def begin_block(networks: Networks, batch: Batch, suite: Suite, seed: int) -> Block | RandomBlock:
    """Return a block of a suite before any attack."""
    if kind_of(suite) is RandomBlock:
        return random_block(networks, batch, suite, seed)
    return untouched(networks.reported, batch, networks.batch_size, seed)


def run_suite(
    networks: Networks,
    block: A,
    threat: Threat,
    suite: Suite,
    seed: int,
    keep: Callable[[A], None],
    report: Report,
) -> None:
    """Run the remaining attacks of a suite on a block, stored after every attack; report the finished share."""
    while len(block.tallies) < len(suite.attacks):
        with watched(_watch(block, suite, report)):
            block.attack(networks, threat, suite, seed)
        keep(block)
        _watch(block, suite, report)(0.0, 0)


def attacked_part(networks: Networks, block: Attacked, threat: Threat, suite: Suite, seed: int) -> Part:
    """Return the part of a block after all attacks, with the evidence of its gradients."""
    block.conclude(networks, seed)
    random = draws_random_numbers(networks.reported, block.batch.x, networks.batch_size)
    standing = torch.tensor([verdict == "survived" for verdict in block.verdicts()], device=block.z.device)
    evidence = examined(
        networks.reported, block.batch, block.z, standing, threat, seed, networks,
        random=random, replaced=any(tally.replaced for tally in block.tallies),
    )  # fmt: skip
    warnings = [*block.warnings, *randomness_warnings(suite, random)]
    return Part(block.table(threat, suite), block.tallies, warnings, block.adversarial(), evidence)


def doubts_about(
    checked_model: CheckedModel, suite: Suite, parts: Sequence[Part], n: int, batch_size: int
) -> list[Doubt]:
    """Return the doubts about a robust accuracy: from the network, its gradients, and breaks without gradients."""
    broken = [sum(part.tallies[number].broken for part in parts) for number in range(len(suite.attacks))]
    evidence = total([part.evidence for part in parts])
    random = randomness_warnings(suite, evidence.random > 0 and draws_of(suite) == 1)
    return [
        *checked_model.doubts(batch_size),
        *(Doubt("the network draws random numbers", text) for text in random if text.startswith(RANDOM)),
        *doubts_of(evidence, n, flat_told=any(text.startswith(FLAT) for text in checked_model.warnings)),
        *fallen_without_gradients(suite.attacks, broken, n, FALLEN if suite.gate is None else FALLEN_BEFORE_CHECK),
    ]


def _watch(block: Attacked, suite: Suite, report: Report) -> Watch:
    """Return a callback for the progress of the next attack on a block: how many examples still stand."""
    finished, n, attacks = len(block.tallies), len(block.batch.y), len(suite.attacks)
    label, standing = suite.attacks[min(finished, attacks - 1)].label, block.most_robust()

    def watch(share: float, over: int) -> None:
        counted = f"{n} examples" if standing is None else f"{standing - over} of {n} examples still stand"
        report((finished + share) / attacks, f"{label}: {counted}")

    return watch
