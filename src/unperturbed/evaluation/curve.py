"""Robust accuracy against eps: for every example, an upper bound on the distance to the nearest misclassified point."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from unperturbed.attacks.augmented_lagrangian import AugmentedLagrangian
from unperturbed.attacks.base import Attack
from unperturbed.attacks.descent import Descent
from unperturbed.attacks.fast_minimum_norm import FastMinimumNorm
from unperturbed.attacks.gradient import Suite
from unperturbed.attacks.primal_dual import PrimalDual
from unperturbed.checks import COUNT, SEED, checked
from unperturbed.engines.base import Engine
from unperturbed.errors import InputError
from unperturbed.evaluation.batch_size import physical_batch_size
from unperturbed.evaluation.chance import chance_warnings
from unperturbed.evaluation.checked_model import CheckedModel, check_model, measured_split
from unperturbed.evaluation.devices import shared_by_devices
from unperturbed.evaluation.distances import Distances, SearchRecord
from unperturbed.evaluation.evidence import Doubt, doubts_of, fallen_without_gradients, total
from unperturbed.evaluation.identity import identity, of_suite
from unperturbed.evaluation.measurement import Measured, Measurement, Question, Task, measurement, memory_warnings
from unperturbed.evaluation.nearest import AtOnce, Search
from unperturbed.evaluation.outputs import FLAT
from unperturbed.evaluation.parts import Part, inputs_in_order
from unperturbed.evaluation.randomised import RANDOM
from unperturbed.evaluation.surroundings import Surroundings
from unperturbed.findings import Progress, Verdict, silent
from unperturbed.networks.logits import Output
from unperturbed.networks.rounding import rounding
from unperturbed.statistics.intervals import wilson
from unperturbed.storage.opened import published, results_and_weights
from unperturbed.suites.autoattack import PLUS, STANDARD
from unperturbed.suites.patch import PATCH
from unperturbed.suites.pgd import PGD_SUITE
from unperturbed.suites.sparse import SPARSE
from unperturbed.threat import Threat


def _with_gradients(attacks: tuple[Attack, ...]) -> tuple[Attack, ...]:
    return tuple(attack for attack in attacks if attack.needs_gradient)


_PRIMAL_DUAL, _LAGRANGIAN = Descent("PDPGD", PrimalDual()), Descent("ALMA", AugmentedLagrangian())
_FMN = Descent("FMN", FastMinimumNorm())
_SHORTER, _FASTER = (Descent(f"ALMA-{rate}", AugmentedLagrangian(steps=500, rate=rate)) for rate in (0.1, 0.2))
_FIRST, _SECOND = (Descent(f"PDPGD-T{place}", PrimalDual(steps=250), target=place) for place in (1, 2))
NEAREST: Suite = replace(
    STANDARD,
    name="nearest",
    attacks=(*_with_gradients(STANDARD.attacks), _PRIMAL_DUAL, _FIRST, _SECOND),
    l1=(*_with_gradients(STANDARD.l1), _LAGRANGIAN, _FMN, _PRIMAL_DUAL),
    l2=(*_with_gradients(STANDARD.attacks), _LAGRANGIAN, _SHORTER, _FASTER, _PRIMAL_DUAL, _SECOND),
    note="AutoAttack without Square, and descents to the nearest points: distances and accuracies are upper bounds",
)
SUITES = {suite.name: suite for suite in (NEAREST, PGD_SUITE, STANDARD, PLUS, SPARSE, PATCH)}
STEPS = 10
"""Number of even steps from 0 to eps, unless radii are given."""
HELD = 2**24
"""Approximate number of input values in a block, which is held in memory and written together."""
FEWEST = 16
"""The smallest batch, if the requested one is larger: smaller ones cost as much."""


@published(results_and_weights)
@checked(seed=SEED, batch_size=COUNT, devices=COUNT)
@shared_by_devices
def minimum_norm(
    model: nn.Module,
    data: Any,
    threat: Threat,
    suite: str | Suite = "nearest",
    *,
    radii: Sequence[float] | None = None,
    out: Path | str | None = None,
    overwrite: bool = False,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    output: Output = None,
    devices: int = 1,
    engine: str | Engine | None = None,
    progress: Progress = silent,
) -> Distances:
    """Return for every example an upper bound on the distance to the nearest misclassified point, box respected.

    FAB and the descents need no radius and run first. The other attacks of the suite then take one radius after the
    other, the largest first, each time on the examples that have neither broken within it nor survived at a larger one:
    so each example survives the suite at most once, just below its distance. An example that survives at a radius
    counts as robust at the smaller ones, and is not attacked again. Bisection moves every adversarial point towards its
    example, keeping a misclassified end, and at the end the last descent refines the nearest points. Every distance is
    that of a point that a fresh forward in float32 (or float64) misclassifies, strictly.

    With `out`, results are stored after each of these steps: the same call resumes an interrupted one, with the
    same table as an uninterrupted one.

    Args:
        model: returns logits: a tensor, a tuple's first item, or an object with `.logits`.
        data: a `Data` (its test split), a `Split`, a pair of arrays (inputs, labels), or a map-style dataset.
        threat: norm, box, and the largest radius of interest; only attacks without a radius look beyond it.
        suite: a name ("nearest", "standard", "plus", "pgd"; in L0 "sparse", for patches "patch") or a `Suite`.
        radii: those of the attacks that need one; by default 10 even steps from 0 to eps (whole numbers in L0 and
            for patches).
        out: folder for `curve-NORM.json` and, in a folder `curve-NORM/`, the per-example tables and points.
        overwrite: replace other distances that `out` holds.
        seed: of the attacks' random starts.
        batch_size: examples in a batch, raised to a power of two.
        devices: processes that share the examples: each on a GPU, where the model is on one, or with a part of the
            processor's threads. Model, data and suite are sent to them, so that they must be picklable.
        engine: executes the blocks of examples: a name, an import path or an `Engine`; None: this process, or its
            `torch.distributed` group.
        progress: called after every radius, and about twice a second within an attack.
        output: the part of the model's output with the logits: a position, a name, or a function of it.

    Raises:
        InputError: as `evaluate`, for an eps of 0, for radii outside (0, eps], and if `out` holds distances of other
        weights, data, threat, radii, suite, seed or version.
    """
    began = time.perf_counter()
    chosen, split, levels = _suite(suite), measured_split(data), _radii(radii, threat)
    checked_model = check_model(model, split, threat, seed, output)
    attacks = chosen.against(threat.norm, checked_model.classes)
    physical_size = physical_batch_size(batch_size, checked_model, len(split))
    question = Question(
        noun="curve",
        checked_models=[checked_model],
        split=split,
        threat=threat,
        identity=of_suite(identity(model, checked_model, split, threat, seed), attacks) | {"radii": list(levels)},
        rounding=rounding([checked_model.classifier], checked_model.examples, physical_size),
        seed=seed,
        batch_size=physical_size,
        asked=batch_size,
        began=began,
        block=max(256, min(8192, HELD // max(checked_model.examples[0].numel(), 1))),
    )
    with measurement(question, None if out is None else Path(out) / f"curve-{threat.norm}", overwrite, engine) as job:
        fewer_at_once = min(job.batch_size, _share(len(split), len(levels)))
        at_once, fewer = AtOnce(job.batch_size), AtOnce(fewer_at_once)
        search = Search(checked_model.classifier, threat, attacks, levels, seed, at_once, fewer)

        def measure(task: Task[Surroundings]) -> Part:
            block = search(task.batch, task.begun, task.keep, task.report)
            least = min((at_once, fewer), key=lambda seeing: seeing.batch_size)
            lowered = at_once.batch_size < job.batch_size or fewer.batch_size < fewer_at_once
            warnings = memory_warnings(least, job.batch_size) if lowered else []
            table = block.table(attacks)
            return Part(table, block.tallies, [*block.warnings, *warnings], block.adversarial(), block.evidence)

        measured = job.run(Surroundings, measure, progress)
        distances = _with_doubts(_distances(attacks, levels, measured, job), checked_model, attacks, measured, job)
        chance = chance_warnings(checked_model, split, threat, distances.clean_accuracy, seed)
        return job.finish(replace(distances, warnings=(*distances.warnings, *chance)), measured)


def _distances(suite: Suite, levels: tuple[float, ...], measured: Measured, job: Measurement) -> Distances:
    """Return the distances of all parts."""
    table, threat = measured.table(), job.question.threat
    n = len(table["id"])
    correct = sum(margin < 0 for margin in table["clean_margin"])
    not_finite = sum(margin != margin for margin in table["clean_margin"])
    distances = Distances(
        suite=suite.name,
        note=suite.note,
        threat=str(threat),
        eps=threat.eps,
        radii=levels,
        n=n,
        clean_accuracy=wilson(correct, n, correct + not_finite),
        counts={},
        searches=_records(suite, measured.parts, table["attack"]),
        seconds=measured.seconds,
        warnings=(*job.question.checked_models[0].warnings, *job.warnings, *measured.warnings()),
        environment=job.environment,
        examples=table,
        nearest=inputs_in_order(measured.parts, measured.order),
    )
    robust, unknown = distances.standing(threat.eps)
    wrong = n - correct - not_finite
    counts: dict[Verdict, int] = {
        "misclassified": wrong,
        "broken": n - robust - unknown - wrong,
        "survived": robust,
        "unknown": unknown,
    }
    doubtful = max(distances.standing(radius)[1] for radius in levels)
    reasons = "failures, values that are not finite, tied logits, or claims refuted by a fresh forward"
    text = f"{doubtful} examples are in doubt at one of the radii ({reasons}): not counted as robust."
    return replace(distances, counts=counts, warnings=(*distances.warnings, *([text] if doubtful else [])))


def _records(suite: Suite, parts: Sequence[Part], found_by: Sequence[str]) -> tuple[SearchRecord, ...]:
    records = []
    for number, attack in enumerate(suite.attacks):
        tallies = [part.tallies[number] for part in parts]
        records.append(
            SearchRecord(
                attack.label,
                found_by.count(attack.label),
                sum(tally.seconds for tally in tallies),
                sum(tally.forwards for tally in tallies),
                sum(tally.backwards for tally in tallies),
            )
        )
    return tuple(records)


def _with_doubts(
    distances: Distances, checked_model: CheckedModel, suite: Suite, measured: Measured, job: Measurement
) -> Distances:
    """Return the distances with the doubts about the curve."""
    doubts = _doubts(checked_model, suite, measured.parts, distances, job.batch_size)
    return replace(
        distances,
        warnings=tuple(dict.fromkeys([*distances.warnings, *(doubt.text for doubt in doubts)])),
        doubts=tuple(dict.fromkeys(doubt.short for doubt in doubts if doubt.short)),
    )


def _doubts(
    checked_model: CheckedModel, suite: Suite, parts: Sequence[Part], distances: Distances, batch_size: int
) -> list[Doubt]:
    """Return the doubts about the curve: from the network, its gradients, and closer points found by Square."""
    evidence = total([part.evidence for part in parts])
    random = [text for text in distances.warnings if text.startswith(RANDOM)]
    nearest = [
        record.nearest if attack.needs_radius else 0
        for attack, record in zip(suite.attacks, distances.searches, strict=True)
    ]
    return [
        *checked_model.doubts(batch_size),
        *(Doubt("the network draws random numbers", text) for text in random),
        *doubts_of(evidence, distances.n, flat_told=any(text.startswith(FLAT) for text in checked_model.warnings)),
        *fallen_without_gradients(suite.attacks, nearest, distances.n),
    ]


def _share(n: int, levels: int) -> int:
    """Return a power of two near the number of examples per radius, if they spread evenly over the radii."""
    return max(FEWEST, 1 << (math.ceil(n / levels) - 1).bit_length())


def _radii(radii: Sequence[float] | None, threat: Threat) -> tuple[float, ...]:
    """Return the radii in order, without duplicates, including eps; in L0 whole numbers."""
    eps = threat.eps
    if eps == 0:
        raise InputError("eps is 0, but is the largest radius of the curve: give one above 0.")
    if radii is None:
        steps = [eps * k / STEPS for k in range(1, STEPS)]
        return tuple(sorted({*(map(math.ceil, steps) if threat.norm in ("L0", "Patch") else steps), eps}))
    wrong = [radius for radius in radii if not 0 < radius <= eps]
    if wrong:
        raise InputError(f"The radius {wrong[0]:g} does not lie in (0, {eps:g}]: eps is the largest of the curve.")
    return tuple(sorted({*map(float, radii), eps}))


def _suite(suite: str | Suite) -> Suite:
    if isinstance(suite, Suite):
        return suite
    if suite not in SUITES:
        raise InputError(f"There is no suite {suite!r} for distances; there is: {', '.join(SUITES)}.")
    return SUITES[suite]
