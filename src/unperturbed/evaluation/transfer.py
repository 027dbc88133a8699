"""Transfer: the accuracy of every model on the adversarial points of every other."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unperturbed.attacks.gradient import Suite
from unperturbed.checks import COUNT, SEED, checked
from unperturbed.data.split import Split
from unperturbed.engines.base import Engine
from unperturbed.errors import InputError
from unperturbed.evaluation.batch_size import physical_batch_size
from unperturbed.evaluation.block import Block
from unperturbed.evaluation.checked_model import CheckedModel, check_model, home, measured_split
from unperturbed.evaluation.devices import shared_by_devices
from unperturbed.evaluation.evidence import Doubt
from unperturbed.evaluation.identity import identity, of_suite
from unperturbed.evaluation.measurement import Measured, Measurement, Question, Task, measurement
from unperturbed.evaluation.parts import Part
from unperturbed.evaluation.randomised import draws_of, draws_random_numbers
from unperturbed.evaluation.search import Networks
from unperturbed.evaluation.suite_run import doubts_about
from unperturbed.evaluation.transfer_block import (
    CORRECT,
    FURTHER,
    STANDINGS,
    UNKNOWN,
    WRONG,
    Peer,
    column,
    standing,
    transfer_part,
)
from unperturbed.findings import Interval, Progress, Transfer, silent
from unperturbed.networks.logits import Output
from unperturbed.networks.modes import under_attack
from unperturbed.networks.rounding import rounding
from unperturbed.runs.job import UNDESCRIBED
from unperturbed.statistics.intervals import wilson
from unperturbed.storage.opened import published, results_and_weights
from unperturbed.suites.by_name import find_suite
from unperturbed.threat import Threat

OF_EACH = ("weights", "network", "precision", "attacks")
"""The settings in which the models may differ."""


@published(results_and_weights)
@checked(seed=SEED, batch_size=COUNT, devices=COUNT)
@shared_by_devices
def transfer(
    models: Mapping[str, nn.Module],
    data: Any,
    threat: Threat,
    suite: str | Suite = "pgd",
    *,
    out: Path | str | None = None,
    overwrite: bool = False,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    output: Output | Mapping[str, Output] = None,
    devices: int = 1,
    engine: str | Engine | None = None,
    progress: Progress = silent,
) -> Transfer:
    """Attack every model, and return the accuracy of every model on the points of every other.

    The point of an example is that of largest verified margin on the attacked model, even if it is not misclassified.
    If it is (or x is), the search continues to its end for a point of largest margin (`FURTHER`). A model is correct at
    a point if its margin is below 0 in a fresh forward inside the threat set; NaN and infinite margins are unknown,
    never correct. The diagonal is the robust accuracy of `evaluate` without the
    check of a suite with a gate.

    With `out`, results are stored after each attack on each model: the same call resumes an interrupted one, with the
    same matrix as an uninterrupted one.

    Args:
        models: by name, at least two, on one device.
        data: as for `evaluate`.
        threat: the threat set, the same for all.
        suite: a name ("pgd", "standard", "plus", "apgd-ce,square") or a `Suite`, for networks without randomness. The
            default is not that of `evaluate`: a matrix runs no check of survivors, on which "fast" relies.
        out: folder for `transfer.json` and, in `transfer/`, a table and the points for each attacked model.
        overwrite: replace another matrix that `out` holds.
        seed: of the attacks' random starts.
        batch_size: examples in a batch, raised to a power of two.
        devices: processes that share the examples: each on a GPU, where the model is on one, or with a part of the
            processor's threads. Model, data and suite are sent to them, so that they must be picklable.
        engine: executes the blocks of examples: a name, an import path or an `Engine`; None: this process, or its
            `torch.distributed` group.
        progress: called for every attacked model on every block, and about twice a second during one.
        output: the part of the models' outputs with the logits: a position, a name, a function of it, or a mapping from
            names to one of these.

    Raises:
        InputError: for fewer than two models, a suite for random networks, as `evaluate`, and if `out` holds a matrix
        of other models, data, threat, suite, seed or version.
    """
    threat.refuse_sparse("The climb that transfer continues with")
    began = time.perf_counter()
    if len(models) < 2:
        raise InputError(f"Transfer is between models: give two or more, not {len(models)}.")
    split = measured_split(data)
    _check_device(models)
    outputs = output if isinstance(output, Mapping) else dict.fromkeys(models, output)
    if unknown := sorted(set(outputs) - set(models)):
        raise InputError(f"output names {unknown[0]!r}, but the models are {', '.join(models)}.")
    checked_models = {
        name: check_model(model, split, threat, seed, outputs.get(name)) for name, model in models.items()
    }
    suites = {
        name: find_suite(suite).against(threat.norm, checked_model.classes)
        for name, checked_model in checked_models.items()
    }
    first, (examples, *_) = (
        next(iter(suites.values())),
        [checked_model.examples for checked_model in checked_models.values()],
    )
    if draws_of(first) > 1:
        raise InputError(f"The suite {first.name} takes means over draws, which a matrix does not: use standard.")
    physical_size = min(
        physical_batch_size(batch_size, checked_model, len(split)) for checked_model in checked_models.values()
    )
    question = Question(
        noun="matrix",
        checked_models=list(checked_models.values()),
        split=split,
        threat=threat,
        identity=_identity(models, checked_models, split, threat, suites, seed),
        rounding=rounding(
            [checked_model.classifier for checked_model in checked_models.values()], examples, physical_size
        ),
        seed=seed,
        batch_size=physical_size,
        asked=batch_size,
        began=began,
    )
    with measurement(question, None if out is None else Path(out) / "transfer", overwrite, engine) as job:
        peers = [
            Peer(
                name,
                checked_model,
                Networks(checked_model.classifier, checked_model.classifier, None, job.batch_size),
                suites[name],
                _is_random(checked_model),
            )
            for name, checked_model in checked_models.items()
        ]

        def measure(task: Task[Block]) -> Part:
            return transfer_part(peers, task, threat, seed, job.batch_size, stored=out is not None)

        measured = job.run(Block, measure, progress)
        return job.finish(_matrix(peers, measured, job), measured)


def _identity(
    models: Mapping[str, nn.Module],
    checked_models: Mapping[str, CheckedModel],
    split: Split,
    threat: Threat,
    suites: Mapping[str, Suite],
    seed: int,
) -> dict[str, Any]:
    """Return the identity of the matrix: that of an evaluation of the models, with differences by name."""
    extended = {name: replace(suite, attacks=(*suite.attacks, FURTHER)) for name, suite in suites.items()}
    single = {
        name: of_suite(identity(model, checked_models[name], split, threat, seed), extended[name])
        for name, model in models.items()
    }
    common = {key: value for key, value in next(iter(single.values())).items() if key not in (*OF_EACH, UNDESCRIBED)}
    doubts = [f"{name}: {text}" for name, parts in single.items() for text in parts.get(UNDESCRIBED, ())]
    common |= {"models": list(models)} | ({UNDESCRIBED: doubts} if doubts else {})
    return common | {f"{key} of {name}": single[name][key] for name in models for key in OF_EACH}


def _is_random(checked_model: CheckedModel) -> bool:
    with under_attack(checked_model.classifier):
        return draws_random_numbers(checked_model.classifier, checked_model.examples, len(checked_model.examples))


def _randomness(random: bool) -> list[str]:
    return ["it draws random numbers, and each of its entries is by a single draw."] if random else []


def _doubts(peer: Peer, parts: Sequence[Part], n: int) -> list[Doubt]:
    """Return the doubts about a model's accuracy."""
    random = [Doubt("the network draws random numbers", text) for text in _randomness(peer.random)]
    return random + doubts_about(peer.checked_model, peer.suite, parts, n, peer.networks.batch_size)


def _matrix(peers: Sequence[Peer], measured: Measured, job: Measurement) -> Transfer:
    """Return the matrix of all parts."""
    names, first = tuple(peer.name for peer in peers), peers[0].suite
    tables = [measured.table(number) for number in range(len(peers))]
    codes = {word: code for code, word in STANDINGS.items()}
    results = torch.tensor([[[codes[word] for word in table[column(name)]] for name in names] for table in tables])
    worst = torch.where((results == WRONG).any(0), WRONG, results.amin(0))
    n = len(tables[0]["id"])
    doubts = {peer.name: _doubts(peer, measured.parts_of(number), n) for number, peer in enumerate(peers)}
    shorts = {name: tuple(dict.fromkeys(doubt.short for doubt in doubts[name] if doubt.short)) for name in names}
    warnings = [
        *(
            f"{peer.name}: {text}"
            for peer in peers
            for text in (*peer.checked_model.warnings, *_randomness(peer.random))
        ),
        *job.warnings,
        *measured.warnings(),
        *(f"{name}: {doubt.text}" for name in names for doubt in doubts[name]),
    ]
    return Transfer(
        names=names,
        suite=first.name,
        note=f"{first.note}; off the diagonal on points found without the model's help",
        threat=str(job.question.threat),
        n=n,
        clean_accuracy=tuple(_share(standing(torch.tensor(table["clean_margin"]))) for table in tables),
        accuracy=tuple(tuple(map(_share, row)) for row in results),
        worst=tuple(map(_share, worst)),
        seconds=measured.seconds,
        warnings=tuple(dict.fromkeys(warnings)),
        environment=_environment(job.environment, names),
        examples={name: tables[0][name] for name in ("id", "label")}
        | {
            f"{name} on points of {source}": table[column(name)]
            for source, table in zip(names, tables, strict=True)
            for name in names
        },
        doubts={name: short for name, short in shorts.items() if short},
    )


def _environment(environment: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return an environment with the differing settings of the models by name."""
    common = {key: value for key, value in environment.items() if " of " not in key}
    return common | {key: {name: environment[f"{key} of {name}"] for name in names} for key in OF_EACH}


def _share(codes: Tensor) -> Interval:
    correct = int((codes == CORRECT).sum())
    return wilson(correct, len(codes), correct + int((codes == UNKNOWN).sum()))


def _on(name: str) -> str:
    """Return the name of the table's column for a model's correctness at the points."""
    return f"on {name}"


def _check_device(models: Mapping[str, nn.Module]) -> None:
    devices = {name: home(model)[0] for name, model in models.items()}
    if len(set(devices.values())) > 1:
        device_list = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise InputError(f"The models lie on different devices ({device_list}): move them to one.")
