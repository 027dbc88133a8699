"""One block of examples, attacked on one model of several and measured on all of them."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unperturbed.attacks.base import AttackResult
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.evaluation.block import Block, untouched
from unperturbed.evaluation.checked_model import CheckedModel
from unperturbed.evaluation.evidence import examined
from unperturbed.evaluation.measurement import Task, memory_warnings
from unperturbed.evaluation.parts import Part, Tally
from unperturbed.evaluation.search import Networks, verify
from unperturbed.evaluation.suite_run import run_suite
from unperturbed.losses import margin
from unperturbed.maximise.apgd import APGD
from unperturbed.maximise.climb_queue import watched
from unperturbed.networks.failures import carefully, failed_on
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, PerExample

FURTHER: GradientAttack = GradientAttack("APGD-margin", margin, APGD(), enough=math.inf)
"""The attack that continues after a break, since a barely misclassified point is often correct on another model."""
CORRECT, WRONG, UNKNOWN = 1, 0, -1
STANDINGS = {CORRECT: "correct", WRONG: "wrong", UNKNOWN: "unknown"}


@dataclass(frozen=True, eq=False)
class Peer:
    """One of the models of a matrix.

    Attributes:
        name: of the model.
        checked_model: the model, found fit to be measured.
        networks: the model in the precisions of the search.
        suite: the attacks on it.
        random: whether two forwards differ.
    """

    name: str
    checked_model: CheckedModel
    networks: Networks
    suite: Suite
    random: bool


def column(name: str) -> str:
    """Return the name of the table's column for a model's correctness at the points."""
    return f"on {name}"


def transfer_part(
    peers: Sequence[Peer], task: Task[Block], threat: Threat, seed: int, batch_size: int, stored: bool
) -> Part:
    """Attack one model, and return a part whose table has the correctness of every model at the points.

    The points, which may be many, are returned only if they are `stored`.
    """
    source = peers[task.network]
    block = task.begun or untouched(source.networks.reported, task.batch, source.networks.batch_size, seed)
    share = len(source.suite.attacks) / (len(source.suite.attacks) + 1)

    def report(finished: float, text: str) -> None:
        task.report(finished, f"{source.name}: {text}")

    run_suite(
        source.networks,
        block,
        threat,
        source.suite,
        seed,
        task.keep,
        lambda finished, text: report(share * finished, text),
    )
    with watched(lambda finished, _: report(share + (1 - share) * finished, FURTHER.label)):
        _go_further(source, block, threat, seed)
    block.evidence = examined(
        source.networks.reported, block.batch, block.z, block.standing, threat, seed, source.networks,
        random=source.random, replaced=any(tally.replaced for tally in block.tallies),
    )  # fmt: skip
    warnings = [f"{source.name}: {text}" for text in block.warnings]
    table = block.table(threat, source.suite)
    for target, batch in zip(peers, task.batches, strict=True):
        codes, failures = (
            (_at_own_points(block), list[str]()) if target is source else _at(target, batch, block.z, threat)
        )
        table[column(target.name)] = [STANDINGS[code] for code in codes.tolist()]
        warnings += failures
    for peer in peers:
        warnings += [f"{peer.name}: {text}" for text in memory_warnings(peer.networks, batch_size)]
    task.report(1.0, f"attacked {source.name}")
    return Part(table, block.tallies, warnings, block.adversarial() if stored else None, block.evidence)


def _go_further(source: Peer, block: Block, threat: Threat, seed: int) -> None:
    """Find points of the largest margin for broken examples."""
    networks, batch, number = source.networks, block.batch, len(source.suite.attacks)

    def climb(rows: Tensor, batch_size: int) -> tuple[AttackResult, PerExample]:
        part = Batch(batch.x[rows], batch.y[rows], batch.ids[rows])
        result = FURTHER(networks.reported, part, threat, Noise.of(seed, part.ids).fold(number), batch_size)
        return result, verify(networks.reported, part, result.z, threat, batch_size)

    began, fallen = time.perf_counter(), (~block.standing).nonzero()[:, 0]
    parts, failures = carefully(climb, fallen, networks) if len(fallen) > 0 else ([], {})
    for rows, (found, verified) in parts:
        better = verified > block.margin[rows]
        block.margin[rows[better]], block.z[rows[better]] = verified[better], found.z[better]
    block.warnings += failed_on(failures, batch.ids, "the climb to its end")
    block.tallies.append(Tally(seconds=time.perf_counter() - began))


def _at(target: Peer, batch: Batch, z: Inputs, threat: Threat) -> tuple[Tensor, list[str]]:
    """Return the target's correctness at another model's points, and a sentence on failures."""
    z = threat.boxed(z.to(batch.x))  # the box differs by rounding in another precision

    def look(rows: Tensor, batch_size: int) -> PerExample:
        part = Batch(batch.x[rows], batch.y[rows], batch.ids[rows])
        return verify(target.networks.reported, part, z[rows], threat, batch_size)

    margins = torch.full_like(batch.x.flatten(1)[:, 0], -torch.inf)
    parts, failures = carefully(look, torch.arange(len(z), device=z.device), target.networks)
    for rows, verified in parts:
        margins[rows] = verified
    codes = standing(torch.where(margins == -torch.inf, torch.nan, margins))
    return codes, [
        f"{target.name}: {text}" for text in failed_on(failures, batch.ids, "the forward on another's points")
    ]


def _at_own_points(block: Block) -> Tensor:
    """Return a model's correctness at its adversarial points."""
    codes = {"survived": CORRECT, "unknown": UNKNOWN}
    return torch.tensor([codes.get(verdict, WRONG) for verdict in block.verdicts()])


def standing(margins: Tensor) -> Tensor:
    """Return the correctness for margins: `CORRECT` below 0, `UNKNOWN` for NaN, else `WRONG`."""
    decided = torch.where(margins < 0, CORRECT, WRONG)
    return torch.where(margins.isnan(), UNKNOWN, decided).cpu()
