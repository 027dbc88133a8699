"""Robust accuracy: a verdict per example, verified, and a headline with its interval."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from unperturbed.attacks.gradient import Suite
from unperturbed.checks import COUNT, SEED, checked
from unperturbed.data.split import Split
from unperturbed.engines.base import Engine
from unperturbed.engines.group import group, meet
from unperturbed.evaluation.batch_size import physical_batch_size
from unperturbed.evaluation.block import Block
from unperturbed.evaluation.carry import store_points, with_carried, with_points, write_points
from unperturbed.evaluation.chance import chance_warnings
from unperturbed.evaluation.checked_model import CheckedModel, check_model, measured_split
from unperturbed.evaluation.devices import shared_by_devices
from unperturbed.evaluation.gate import through_gate
from unperturbed.evaluation.identity import identity, of_suite
from unperturbed.evaluation.measurement import Measured, Measurement, Question, Task, measurement, memory_warnings
from unperturbed.evaluation.parts import Part, inputs_in_order
from unperturbed.evaluation.randomised import RandomBlock, draws_of, over_draws
from unperturbed.evaluation.search import TIE, as_searched, precision_of_search
from unperturbed.evaluation.smaller_radii import points_of_smaller_radii
from unperturbed.evaluation.suite_run import attacked_part, begin_block, doubts_about, kind_of, run_suite
from unperturbed.evaluation.tuning import precision_of_job, tuning_of
from unperturbed.findings import AttackRecord, Outcome, Progress, Verdict, silent
from unperturbed.networks.logits import Output
from unperturbed.networks.settings import UNTUNED, Tuning
from unperturbed.statistics.intervals import wilson
from unperturbed.storage.opened import published, results_and_weights
from unperturbed.suites.by_name import SUITES as SUITES
from unperturbed.suites.by_name import find_suite, suite_with_gate
from unperturbed.threat import Threat


@published(results_and_weights)
@checked(seed=SEED, batch_size=COUNT, devices=COUNT)
@shared_by_devices
def evaluate(
    model: nn.Module,
    data: Any,
    threat: Threat,
    suite: str | Suite | Callable[..., Any] = "fast",
    *,
    out: Path | str | None = None,
    overwrite: bool = False,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    precision: Literal["auto", "32"] = "auto",
    tuning: Tuning = UNTUNED,
    output: Output = None,
    gate: bool = True,
    estimate: float | None = None,
    devices: int = 1,
    engine: str | Engine | None = None,
    progress: Progress = silent,
) -> Outcome:
    """Return the clean accuracy, and the robust accuracy: the share of examples on which every attack fails.

    Runs in eval mode and leaves the model as it was. Every success is verified by a fresh forward in the weights' own
    precision (float32 or float64), strictly (a tie is no success) and inside the threat set. An example on which the
    network fails even alone is unknown and never counts as robust.

    With `out`, results are stored: the same call resumes an interrupted one, with the same table as an uninterrupted
    one. Processes of one `torch.distributed` group share the examples.

    Args:
        model: returns logits: a tensor, a tuple's first item, or an object with `.logits`.
        data: a `Data` (its test split), a `Split`, a pair of arrays (inputs, labels), or a map-style dataset.
        threat: the threat set; inputs must lie within its bounds.
        suite: a name ("fast", "standard", "plus", "rand", "pgd", "apgd-ce,square") or a `Suite`.
        out: folder for `SUITE.json` and, in a folder `SUITE/`, the per-example tables and adversarial inputs.
        overwrite: replace another evaluation that `out` holds.
        seed: of the attacks' random starts.
        batch_size: examples in a batch, raised to a power of two; fewer if fewer remain.
        precision: "auto" lets attacks that tolerate rounding search in bfloat16 if the processor multiplies it natively
            and the network is convolutional, and repeats searches near a break in float32; "32": all in float32.
        tuning: how the searches run the network: by a fixed rule, by measured times, or by hand. A resumed evaluation
            keeps its choice. Verdicts do not depend on it, but on the points that are found.
        output: the part of the model's output with the logits: a position, a name, or a function of it.
        gate: for a suite with a gate ("fast"): attack a sample of the survivors by the stronger suite, and all of them
            where that breaks too many, or where something speaks against the accuracy.
        estimate: for a suite with a gate: half the width, in percentage points, of the 95% interval of the accuracy
            that the stronger suite alone would leave; the sample grows until it is reached. "standard" means "fast"
            here.
        devices: number of processes that share the examples: each on a GPU, if the model is on one, or with a part of
            the processor's threads. Model, data and suite must be picklable.
        engine: executes the blocks of examples: a name, an import path or an `Engine`; None: this process, or its
            `torch.distributed` group.
        progress: called after every attack on a block of examples, and about twice a second during one, with a bound
            that counts claims not verified yet.

    Raises:
        InputError: for data outside the bounds or with NaN, labels that do not fit the outputs, an unknown suite, and
        if `out` holds an evaluation of other weights, data, threat, suite, seed or version, or one begun with another
        version of torch or on another kind of device.
    """
    began = time.perf_counter()
    split = measured_split(data)
    checked_model = check_model(model, split, threat, seed, output)
    attacks = suite_with_gate(find_suite(suite), gate, estimate).against(threat.norm, checked_model.classes)
    ruled = precision_of_search(checked_model, precision, tuning)
    size = physical_batch_size(batch_size, checked_model, len(split))
    networks = as_searched(checked_model, replace(ruled, compiled=False), size)  # a job may have begun otherwise
    searched = checked_model.dtype if networks.rough is None else torch.bfloat16
    question = Question(
        noun="evaluation",
        checked_models=[checked_model],
        split=split,
        threat=threat,
        identity=of_suite(identity(model, checked_model, split, threat, seed), attacks)
        | {"search": str(searched).removeprefix("torch.")},
        rounding=networks.rounding(checked_model.examples),
        seed=seed,
        batch_size=networks.batch_size,
        asked=batch_size,
        began=began,
        tuned=tuning_of(checked_model, ruled, networks.batch_size, batch_size, len(split), attacks, tuning),
    )
    with measurement(question, None if out is None else Path(out) / attacks.name, overwrite, engine) as job:
        begun = precision_of_job(job.settings, precision_of_search(checked_model, precision))
        networks = as_searched(checked_model, begun, job.batch_size)

        def measure(task: Task[Block | RandomBlock]) -> Part:
            block = begin_block(networks, task.batch, attacks, seed) if task.begun is None else task.begun
            run_suite(networks, block, threat, attacks, seed, task.keep, task.report)
            block.warnings.extend(memory_warnings(networks, job.batch_size))
            return attacked_part(networks, block, threat, attacks, seed)

        measured = job.run(kind_of(attacks), measure, progress)
        outcome = _with_doubts(_outcome(attacks, measured, job), checked_model, attacks, measured, job)
        chance = chance_warnings(checked_model, split, threat, outcome.clean_accuracy, seed)
        outcome = replace(outcome, warnings=(*outcome.warnings, *chance))
        if draws_of(attacks) > 1:
            outcome = over_draws(outcome)
        if attacks.gate is not None:

            def attack(part: Split, stronger: Suite, name: str) -> tuple[Outcome, Path | None]:
                folder = None if out is None else Path(out) / attacks.name / name
                options: dict[str, Any] = {"seed": seed, "batch_size": batch_size, "precision": precision}
                options["tuning"] = tuning
                options |= {"output": output, "engine": engine, "progress": progress, "overwrite": overwrite}
                return evaluate(model, part, threat, stronger, out=folder, **options), folder

            outcome, points = through_gate(outcome, attacks.gate, threat, split, seed, attack)
            if out is not None and group()[0] == 0 and points.rows:
                store_points(outcome, points, Path(out))
        return job.finish(_with_stored_points(with_carried(outcome, job.store), threat, split, out), measured)


def _with_stored_points(outcome: Outcome, threat: Threat, split: Split, out: Path | str | None) -> Outcome:
    """Return the outcome with the breaks of stored evaluations at smaller radii; the points are stored in `out`."""
    if out is None or "draws" in outcome.examples:
        return outcome
    points = points_of_smaller_radii(outcome, threat, split, Path(out))
    meet()  # all processes have read the unchanged folders
    if group()[0] == 0:
        write_points(outcome, points, Path(out))
    return with_points(outcome, points)


def _outcome(suite: Suite, measured: Measured, job: Measurement) -> Outcome:
    """Return the outcome of all parts."""
    table, parts = measured.table(), measured.parts
    n = len(table["verdict"])
    counts: dict[Verdict, int] = {
        "misclassified": table["verdict"].count("misclassified"),
        "broken": table["verdict"].count("broken"),
        "survived": table["verdict"].count("survived"),
        "unknown": table["verdict"].count("unknown"),
    }
    correct = sum(margin < 0 for margin in table["clean_margin"])
    not_finite = sum(margin != margin for margin in table["clean_margin"])
    unverified = sum(tally.unverified for part in parts for tally in part.tallies)
    return Outcome(
        suite=suite.name,
        note=suite.note,
        threat=str(job.question.threat),
        n=n,
        clean_accuracy=wilson(correct, n, correct + not_finite),
        robust_accuracy=wilson(counts["survived"], n, counts["survived"] + counts["unknown"]),
        counts=counts,
        attacks=_records(suite, parts, correct, n),
        ties=sum(abs(margin) <= TIE for margin in table["margin"]),
        unverified=unverified,
        seconds=measured.seconds,
        warnings=(
            *job.question.checked_models[0].warnings,
            *job.warnings,
            *measured.warnings(),
            *_last_restarts(suite, parts),
            *_undecided(unverified, counts["unknown"]),
        ),
        environment=job.environment,
        examples=table,
        adversarial=inputs_in_order(parts, measured.order),
    )


def _records(suite: Suite, parts: list[Part], standing: int, n: int) -> tuple[AttackRecord, ...]:
    """Return the record of each attack; `standing` is the number of examples before the first."""
    records = []
    for number, attack in enumerate(suite.attacks):
        tallies = [part.tallies[number] for part in parts]
        broken = sum(tally.broken for tally in tallies)
        standing -= broken
        records.append(
            AttackRecord(
                attack.label,
                broken,
                standing / n,
                sum(tally.seconds for tally in tallies),
                sum(tally.forwards for tally in tallies),
                sum(tally.backwards for tally in tallies),
            )
        )
    return tuple(records)


def _last_restarts(suite: Suite, parts: list[Part]) -> list[str]:
    warnings = []
    for number, attack in enumerate(suite.attacks):
        broken = sum(part.tallies[number].broken_last for part in parts)
        if broken:
            text = f"{broken} examples broke only in the last restart of {attack.label}: more would break more."
            warnings.append(text)
    return warnings


def _undecided(unverified: int, unknown: int) -> list[str]:
    warnings = []
    if unverified:
        warnings.append(f"{unverified} successes claimed by an attack were refuted by a fresh forward.")
    if unknown:
        reasons = "failures, values that are not finite, tied logits, or claims refuted by a fresh forward"
        warnings.append(f"{unknown} examples could not be decided ({reasons}): not counted as robust.")
    return warnings


def _with_doubts(
    outcome: Outcome, checked_model: CheckedModel, suite: Suite, measured: Measured, job: Measurement
) -> Outcome:
    """Return the outcome with the doubts about its robust accuracy."""
    doubts = doubts_about(checked_model, suite, measured.parts, outcome.n, job.batch_size)
    return replace(
        outcome,
        warnings=(*outcome.warnings, *(doubt.text for doubt in doubts if doubt.text not in outcome.warnings)),
        doubts=tuple(dict.fromkeys(doubt.short for doubt in doubts if doubt.short)),
    )
