"""The common part of all measurements of networks on examples: a job of blocks in the order of ids.

A measurement defines the work on a block and the sum of the parts. This module has the rest: the order of the examples,
the identity and the folder of the job, its lock, blocks and units, resuming, the engine, progress, warnings about the
run, environment and seconds.
"""

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor

from unperturbed.data.split import Split
from unperturbed.engines.base import Engine, Keep, Report, Unit, threads_of
from unperturbed.engines.by_name import find_engine
from unperturbed.engines.group import Group, group, meet
from unperturbed.errors import InputError
from unperturbed.evaluation.checked_model import CheckedModel
from unperturbed.evaluation.parts import Part, S, table_in_order
from unperturbed.evaluation.store import Snapshot, Store
from unperturbed.findings import Progress, Result
from unperturbed.networks.failures import Seeing
from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.processor import SETTING
from unperturbed.runs.job import Job
from unperturbed.threat import Threat
from unperturbed.types import Batch

BLOCK = 1024
"""The largest number of examples in a block, which is held in memory and written together."""
LOADED = "Loaded from"
"""The beginning of the warning that a result comes from an earlier call."""
R = TypeVar("R", bound=Result[Any])


@dataclass(frozen=True, eq=False)
class Question:
    """The question of a measurement, and everything that its answer depends on.

    Attributes:
        noun: the noun for the measurement in messages.
        checked_models: the networks, each attacked on every block.
        split: the examples.
        threat: the threat set.
        identity: everything that the results depend on, by name.
        rounding: whether the networks round all rows in the same way.
        seed: of all random numbers.
        batch_size: examples in a batch.
        asked: the batch size from the caller.
        began: the time of the start, by `time.perf_counter`.
        block: largest number of examples in a block; 0: `BLOCK`.
        tuned: returns further settings of a new job, or others, such as a measured batch size; it gets the number of
            processes that share the job.
    """

    noun: str
    checked_models: Sequence[CheckedModel]
    split: Split
    threat: Threat
    identity: Mapping[str, Any]
    rounding: Mapping[str, Any]
    seed: int
    batch_size: int
    asked: int | Literal["auto"]
    began: float
    block: int = 0
    tuned: Callable[[int], Mapping[str, Any]] | None = None


@dataclass(frozen=True, eq=False)
class Task(Generic[S]):
    """A block of examples, for one of the networks.

    Attributes:
        network: the place of the network among the checked_models.
        batch: the examples, on that network's device and in its precision.
        batches: the same for every network.
        begun: the state of the block from an interrupted call.
        keep: stores the state between two steps.
        report: reports the finished share.
    """

    network: int
    batches: Sequence[Batch]
    begun: S | None
    keep: Callable[[S], None]
    report: Report

    @property
    def batch(self) -> Batch:
        """The examples, on the network's device and in its precision."""
        return self.batches[self.network]


@dataclass(frozen=True, eq=False)
class Measured:
    """The parts of a measurement, and the facts of its run."""

    parts: list[Part]
    """The parts by block, and within a block by network."""
    order: Tensor
    """The positions of the parts' examples in the split."""
    seconds: float
    networks: int

    def parts_of(self, network: int) -> list[Part]:
        """Return the parts of one of the networks."""
        return self.parts[network :: self.networks]

    def table(self, network: int = 0) -> dict[str, list[Any]]:
        """Return the per-example table of one of the networks, in the order of the split."""
        return table_in_order(self.parts_of(network), self.order)

    def warnings(self) -> list[str]:
        """Return the warnings of all parts, without duplicates."""
        return list(dict.fromkeys(text for part in self.parts for text in part.warnings))


@dataclass(frozen=True, eq=False)
class Measurement:
    """A running measurement, from `measurement`."""

    question: Question
    store: Store
    engine: Engine
    settings: Mapping[str, Any]
    """The settings from the start of the job."""
    warnings: list[str]
    """The warnings about the run."""
    read: list[int]
    """The finished parts of an earlier call."""

    @property
    def batch_size(self) -> int:
        """The batch size: a resumed job keeps its initial one."""
        return int(self.settings["batch_size"])

    @property
    def environment(self) -> dict[str, Any]:
        """Everything that the results depend on: versions, hashes, settings, and the rounding of rows."""
        return {
            **self.settings["is_of"],
            **self.settings.get("rounding", {}),
            **self.settings.get("run_as", {}),
            "python": platform.python_version(),
            "batch_size": self.batch_size,
            "threads": self.settings["threads"],
        }

    def run(self, kind: Callable[..., S], measure: Callable[[Task[S]], Part], progress: Progress) -> Measured:
        """Measure every unfinished block of every network by the engine, and return all parts.

        Args:
            kind: the type of the state that `measure` stores between two steps.
            measure: returns the part of a block; the networks are in eval mode, and the random state comes from the
                seed.
            progress: a callback; it gets the finished examples, all examples, and a short text.
        """
        question = self.question
        checked_models, n = question.checked_models, len(question.split)
        order = question.split.names().argsort(stable=True)  # so that results do not depend on the order of the split
        blocks = torch.split(order, self.settings["block"])
        units = [
            self._unit(number, blocks[number // len(checked_models)], kind, measure)
            for number in range(len(blocks) * len(checked_models))
        ]
        finished = [unit.number for unit in units if self.store.is_finished(unit.number)]
        resumed = bool(finished) or any(self.store.is_begun(unit.number) for unit in units)
        waiting = [unit for unit in units if unit.number not in set(finished)]
        if waiting and len(units) < self.engine.workers:
            self.warnings.append(_idle(len(units), self.engine.workers, question.noun))
        before = n * len(checked_models) - sum(unit.size for unit in waiting)
        results = self.engine.map(waiting, lambda done, text: progress((before + done) / len(checked_models), n, text))
        parts = dict(results)
        parts |= {number: self.store.read(number) for number in finished}
        self.read.extend(finished)
        in_order = [parts[unit.number] for unit in units]
        seconds = time.perf_counter() - self.question.began
        if resumed:
            seconds = sum(tally.seconds for part in in_order for tally in part.tallies)
        return Measured(in_order, order, seconds, len(checked_models))

    def finish(self, result: R, measured: Measured) -> R:
        """Write the summary of a result, and return it, with a warning if it comes from an earlier call."""
        if group()[0] == 0:
            self.store.summarise(result.json())
        if self.store.folder is None or len(self.read) < len(measured.parts):
            return result
        text = f"{LOADED} {self.store.folder}, where an earlier call finished this {self.question.noun}."
        return replace(result, warnings=(*result.warnings, text))

    def _unit(
        self, number: int, rows: Tensor, kind: Callable[..., S], measure: Callable[[Task[S]], Part]
    ) -> Unit[Part]:
        store = self.store
        return Unit(
            number,
            len(rows),
            _Block(self.question, number % len(self.question.checked_models), rows, kind, measure),
            lambda: store.read(number) if store.is_finished(number) else None,
            lambda: store.begun(number),
            lambda state: store.keep(number, state),
            lambda part: store.finish(number, part),
        )


@dataclass(frozen=True, eq=False)
class _Block(Generic[S]):
    """The work on one block of examples for one of the networks. It writes no files, so that any process can do it."""

    question: Question
    network: int
    rows: Tensor
    kind: Callable[..., S]
    measure: Callable[[Task[S]], Part]

    def __call__(self, begun: Snapshot | None, keep: Keep, report: Report) -> Part:
        """Measure the block from a state, or from the beginning, and return its part."""
        question = self.question
        batches = [
            checked_model.batch(question.split, self.rows, question.threat) for checked_model in question.checked_models
        ]
        batch = batches[self.network]
        state = None if begun is None else begun.restored(batch, self.kind)
        task = Task(self.network, batches, state, lambda state: keep(Snapshot.of(state)), report)
        with ExitStack() as stack:
            stack.enter_context(as_reported(question.checked_models[0].device))
            for checked_model in question.checked_models:
                stack.enter_context(under_attack(checked_model.classifier))
            stack.enter_context(own_randomness(question.seed, batch.x.device))
            return self.measure(task)


@contextmanager
def measurement(
    question: Question, folder: Path | None, overwrite: bool, engine: str | Engine | None = None
) -> Iterator[Measurement]:
    """Begin or resume a measurement, which holds the lock of its folder during the block.

    Args:
        question: the question.
        folder: the folder for the parts, with the summary in a JSON file of the same name next to it; None: not stored.
        overwrite: replace another measurement in the folder.
        engine: executes the blocks, by name or itself; None: the `torch.distributed` group's processes, or this one.

    Raises:
        InputError: if the folder holds another measurement or is in use, and if several processes have no folder.
    """
    engine = find_engine(engine)
    if folder is None and isinstance(engine, Group):
        raise InputError("Several processes share their results through files: give `out`, a folder that all can see.")
    settings: dict[str, Any] = {
        "is_of": dict(question.identity),
        "threads": threads_of(engine),
        "rounding": dict(question.rounding),
        "batch_size": question.batch_size,
        "block": block_size(len(question.split), engine.workers, question.block or BLOCK),
    }
    store, job = Store(folder), Job(folder, question.noun)
    with job.alone():
        first = group()[0] == 0
        warnings = [_outdated(question.noun)] if first and job.is_outdated(settings) else []
        if first:
            if question.tuned is not None and job.begun(settings, overwrite) is None:
                settings |= question.tuned(engine.workers)
            job.claim(settings, overwrite, store.clear)
        meet()
        settings = job.join(settings)
        warnings = [
            *_batch_sizes(question, settings),
            *warnings,
            *_other_threads(question, settings, threads_of(engine)),
        ]
        yield Measurement(question, store, engine, settings, warnings, [])


def block_size(n: int, workers: int, limit: int) -> int:
    """Return the number of examples in a block, such that all workers have the same number of blocks."""
    if workers == 1:
        return min(limit, n)
    return -(-n // (-(-n // (limit * workers)) * workers))


def memory_warnings(seeing: Seeing, batch_size: int) -> list[str]:
    """Return a warning if memory ran out and the batch size was lowered."""
    if seeing.batch_size >= batch_size:
        return []
    return [f"Memory ran out: the network saw {seeing.batch_size} examples at a time in the end."]


def _batch_sizes(question: Question, settings: Mapping[str, Any]) -> list[str]:
    warnings, n, requested = list[str](), len(question.split), question.asked
    if requested != "auto" and requested > n:
        warnings.append(f"The batch size {requested} is larger than the data ({n}); it was lowered.")
    if requested != "auto" and question.batch_size != settings["batch_size"]:
        initial = settings["batch_size"]
        warnings.append(f"The {question.noun} resumes with the batch size that it began with, {initial}.")
    return warnings


def _other_threads(question: Question, settings: Mapping[str, Any], threads: int) -> list[str]:
    """Return warnings if the job was begun with another number of threads or another MKL_CBWR."""
    if question.checked_models[0].device.type != "cpu":
        return []
    effect = "the last bits of the results may differ, and verdicts where they are ties."
    warnings = list[str]()
    if threads != settings["threads"]:
        warnings.append(
            f"The {question.noun} began with {settings['threads']} threads and resumes with {threads}: {effect}"
        )
    current = os.environ.get(SETTING, "")
    before = settings.get("rounding", {}).get(SETTING, current)  # earlier versions did not record it
    if before != current:
        warnings.append(
            f"The {question.noun} began with {SETTING}={before or '(unset)'} and resumes with {current or '(unset)'}: "
            f"{effect}"
        )
    return warnings


def _outdated(noun: str) -> str:
    return f"The folder held the {noun} of the same weights in another network (edited code?): it was measured anew."


def _idle(units: int, workers: int, noun: str) -> str:
    return (
        f"The {noun} began in {units} block{'s' * (units > 1)} of examples, so that only {units} of {workers} "
        "processes have work: given another --out, they share it evenly."
    )
