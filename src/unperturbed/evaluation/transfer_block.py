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
"""Where the suite stopped at the first wrong answer: what is barely wrong on one model is often right on another."""
CORRECT, WRONG, UNKNOWN = 1, 0, -1
STANDINGS = {CORRECT: "correct", WRONG: "wrong", UNKNOWN: "unknown"}


@dataclass(frozen=True, eq=False)
class Peer:
    """One of the models.

    Attributes:
        name: of the model.
        checked_model: the model, found fit to be measured.
        networks: the model as it is searched.
        suite: that attacks it.
        random: whether two forwards differ.
    """

    name: str
    checked_model: CheckedModel
    networks: Networks
    suite: Suite
    random: bool


def column(name: str) -> str:
    """Return the table's column that says how a model stands at the points found."""
    return f"on {name}"


def transfer_part(
    peers: Sequence[Peer], task: Task[Block], threat: Threat, seed: int, batch_size: int, stored: bool
) -> Part:
    """Attack one model, and return a part whose table says how every model stands at the points found.

    The points themselves, which may be many, are returned where they are `stored` only.
    """
    source = peers[task.network]
    block = task.begun or untouched(source.networks.reported, task.batch, source.networks.batch_size, seed)
    share = len(source.suite.attacks) / (len(source.suite.attacks) + 1)

    def report(done: float, text: str) -> None:
        task.report(done, f"{source.name}: {text}")

    run_suite(
        source.networks, block, threat, source.suite, seed, task.keep, lambda done, text: report(share * done, text)
    )
    with watched(lambda done, _: report(share + (1 - share) * done, FURTHER.label)):
        _go_further(source, block, threat, seed)
    block.evidence = examined(
        source.networks.reported, block.batch, block.z, block.standing, threat, seed, source.networks,
        random=source.random, replaced=any(tally.replaced for tally in block.tallies),
    )  # fmt: skip
    warnings = [f"{source.name}: {text}" for text in block.warnings]
    table = block.table(threat, source.suite)
    for target, batch in zip(peers, task.batches, strict=True):
        codes, failures = (_own(block), list[str]()) if target is source else _at(target, batch, block.z, threat)
        table[column(target.name)] = [STANDINGS[code] for code in codes.tolist()]
        warnings += failures
    for peer in peers:
        warnings += [f"{peer.name}: {text}" for text in memory_warnings(peer.networks, batch_size)]
    task.report(1.0, f"attacked {source.name}")
    return Part(table, block.tallies, warnings, block.adversarial() if stored else None, block.evidence)


def _go_further(source: Peer, block: Block, threat: Threat, seed: int) -> None:
    """Find points as wrong as can be where the example no longer stands."""
    networks, batch, number = source.networks, block.batch, len(source.suite.attacks)

    def climb(rows: Tensor, batch_size: int) -> tuple[AttackResult, PerExample]:
        some = Batch(batch.x[rows], batch.y[rows], batch.ids[rows])
        found = FURTHER(networks.reported, some, threat, Noise.of(seed, some.ids).fold(number), batch_size)
        return found, verify(networks.reported, some, found.z, threat, batch_size)

    began, fallen = time.perf_counter(), (~block.standing).nonzero()[:, 0]
    parts, failures = carefully(climb, fallen, networks) if len(fallen) > 0 else ([], {})
    for rows, (found, verified) in parts:
        better = verified > block.margin[rows]
        block.margin[rows[better]], block.z[rows[better]] = verified[better], found.z[better]
    block.warnings += failed_on(failures, batch.ids, "the climb to its end")
    block.tallies.append(Tally(seconds=time.perf_counter() - began))


def _at(target: Peer, batch: Batch, z: Inputs, threat: Threat) -> tuple[Tensor, list[str]]:
    """Return how the target stands at points that another model's attack found, and on what it fails."""
    z = threat.boxed(z.to(batch.x))  # the box is another in another precision, by a rounding

    def look(rows: Tensor, batch_size: int) -> PerExample:
        some = Batch(batch.x[rows], batch.y[rows], batch.ids[rows])
        return verify(target.networks.reported, some, z[rows], threat, batch_size)

    margins = torch.full_like(batch.x.flatten(1)[:, 0], -torch.inf)
    parts, failures = carefully(look, torch.arange(len(z), device=z.device), target.networks)
    for rows, verified in parts:
        margins[rows] = verified
    codes = standing(torch.where(margins == -torch.inf, torch.nan, margins))
    return codes, [
        f"{target.name}: {text}" for text in failed_on(failures, batch.ids, "the forward on another's points")
    ]


def _own(block: Block) -> Tensor:
    """Return how a model stands at its own points."""
    codes = {"survived": CORRECT, "unknown": UNKNOWN}
    return torch.tensor([codes.get(verdict, WRONG) for verdict in block.verdicts()])


def standing(margins: Tensor) -> Tensor:
    """Return for margins how a model stands there: `CORRECT` below 0, `UNKNOWN` for NaN, else `WRONG`."""
    known = torch.where(margins < 0, CORRECT, WRONG)
    return torch.where(margins.isnan(), UNKNOWN, known).cpu()
