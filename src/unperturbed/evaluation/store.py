"""Where an evaluation is kept: what it is of, a part per finished block, the unfinished one, and a summary."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from unperturbed.errors import InputError
from unperturbed.evaluation.block import Block, Tally
from unperturbed.evaluation.evidence import Evidence
from unperturbed.evaluation.nearest import Surroundings
from unperturbed.evaluation.randomised import RandomBlock
from unperturbed.findings import Outcome
from unperturbed.runs import write_json
from unperturbed.runs.tables import read_table, write_table
from unperturbed.runs.tensors import DamagedError, read_tensors, write_tensors
from unperturbed.runs.verify import digest, file_hash, read_object, read_sealed, write_sealed
from unperturbed.types import Batch, Inputs

log = logging.getLogger("unperturbed")
JOB = "job.json"
CARRIED = "part-carried.safetensors"
"""Points from other threat sets that lie in this one's."""
FILES = ("parquet", "safetensors")
"""What a finished block consists of, beside the JSON file that says so and holds their hashes."""
OUTDATED = "The folder held an evaluation of the same weights in another network (edited code?): it was measured anew."
Kept = Block | RandomBlock | Surroundings
B = TypeVar("B", bound=Kept)


@dataclass(frozen=True, eq=False)
class Part:
    """A finished block, as plain values."""

    table: Mapping[str, list[Any]]
    """By column."""
    tallies: list[Tally]
    """One an attack."""
    warnings: list[str]
    adversarial: Inputs | None
    """The perturbed inputs of the broken examples, where they were not written to a file."""
    evidence: Evidence
    """How gradients behaved."""


@dataclass(frozen=True)
class Store:
    """Where the blocks of a job are kept; with `folder=None`, nothing is stored.

    Every file is verified when it is read: a block whose files are not as they were written, or that belongs to another
    job, is an unfinished one.
    """

    folder: Path | None

    def begin(self, job: Mapping[str, Any], overwrite: bool) -> dict[str, Any]:
        """Make or find the folder of a job; return the job as it was begun.

        A job is told by its `is_of`. One with something `undescribed` in it could be another one: it begins anew. So
        does one of the same weights in a network that computes something else (`is_outdated`). Raises InputError where
        the folder holds another job, unless that may be overwritten.
        """
        if self.folder is None:
            return dict(job)
        begun, differences = self._begun(job)
        if begun is not None and not differences and "undescribed" not in job["is_of"]:
            return begun
        if differences and not overwrite and not self.is_outdated(job):
            raise self._another(differences)
        self.clear()
        write_sealed(self.folder / JOB, job)
        return dict(job)

    def is_outdated(self, job: Mapping[str, Any]) -> bool:
        """Tell whether the folder holds this job but for what the network computes: its code was edited, say."""
        if self.folder is None or not (self.folder / JOB).exists():
            return False
        before = read_object(self.folder / JOB).get("is_of")
        if not isinstance(before, Mapping):
            return False
        return {name for name, value in job["is_of"].items() if before.get(name) != value} == {"network"}

    def join(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Return the job as this or another process has begun it; raises InputError where the folder holds another."""
        if self.folder is None:
            return dict(job)
        begun, differences = self._begun(job)
        if begun is None or differences:
            raise self._another(differences or [f"{JOB} is missing"])
        return begun

    def _begun(self, job: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the job in the folder, None without one, and how it differs from this one."""
        assert self.folder is not None
        path = self.folder / JOB
        if not path.exists():
            return None, []
        begun, differences = read_sealed(path), _differences(read_object(path).get("is_of"), job["is_of"])
        return begun, differences if begun or differences else [f"{JOB} is damaged"]

    def _another(self, differences: Sequence[str]) -> InputError:
        return InputError(
            f"{self.folder} holds another evaluation ({'; '.join(differences)}): give another --out, or --overwrite."
        )

    def clear(self) -> None:
        """Remove an earlier evaluation, which may have had more parts; nothing else that lies there."""
        if self.folder is None:
            return
        (self.folder.parent / f"{self.folder.name}.json").unlink(missing_ok=True)
        for part in (*self.folder.glob("part-*.*"), *self.folder.glob(".part-*"), self.folder / JOB):
            part.unlink(missing_ok=True)

    def finish(self, number: int, table: Mapping[str, list[Any]], block: Kept) -> Part:
        """Keep a finished block: its table as Parquet, its broken examples' perturbed inputs as safetensors.

        Row k of `adversarial` belongs to the k-th broken example of the table. What the attacks did comes last, as
        JSON, and says that the block is finished.
        """
        inputs = block.adversarial().contiguous().cpu()
        if self.folder is None:
            return Part(table, block.tallies, block.warnings, inputs, block.evidence)
        write_tensors(self._path(number, "safetensors"), {"adversarial": inputs}, {})
        write_table(self._path(number, "parquet"), table)
        hashes = {suffix: file_hash(self._path(number, suffix)) for suffix in FILES}
        write_sealed(self._path(number, "json"), self._place(number) | _done(block) | {"files": hashes})
        self._path(number, "unfinished").unlink(missing_ok=True)
        return self.read(number)

    def is_finished(self, number: int) -> bool:
        """Tell whether a block is finished, and its files are as they were written; a damaged one is reported."""
        if self.folder is None:
            return False
        lacks = self._lacks(number)
        if lacks and any(self._path(number, suffix).exists() for suffix in ("json", *FILES)):
            log.warning("%s: %s. This block is measured again.", self.folder, lacks)
        return not lacks

    def read(self, number: int) -> Part:
        """Return a finished block."""
        done = read_sealed(self._path(number, "json"))
        table = read_table(self._path(number, "parquet"))
        tallies = [Tally(**tally) for tally in done["attacks"]]
        return Part(table, tallies, done["warnings"], None, Evidence(**done["evidence"]))

    def read_adversarial(self, number: int) -> Inputs:
        """Return the perturbed inputs of the broken examples of a finished block."""
        return read_tensors(self._path(number, "safetensors"))[0]["adversarial"]

    def keep(self, number: int, block: Kept) -> None:
        """Write what is known of a block between two attacks."""
        if self.folder is None:
            return
        tensors = {name: getattr(block, name).contiguous().cpu() for name in _tensors(type(block))}
        write_tensors(self._path(number, "unfinished"), tensors, self._place(number) | _done(block))

    def begun(self, number: int, batch: Batch, kind: type[B]) -> B | None:
        """Return what is known of a block that was interrupted; None if nothing is, or it is damaged."""
        if self.folder is None or not self._path(number, "unfinished").exists():
            return None
        try:
            tensors, about = read_tensors(self._path(number, "unfinished"))
            if about is None or {**about, **self._place(number)} != about:
                raise DamagedError("it is of another job")
        except DamagedError as error:
            log.warning("%s is damaged (%s). This block begins anew.", self._path(number, "unfinished"), error)
            return None
        known: dict[str, Any] = {name: tensors[name].to(batch.y.device) for name in _tensors(kind)}
        tallies = [Tally(**each) for each in about["attacks"]]
        return kind(batch=batch, tallies=tallies, warnings=about["warnings"], **known)

    def summarise(self, findings: Mapping[str, Any]) -> None:
        """Write `NAME.json`, beside the folder of this name."""
        if self.folder is not None:
            write_json(self.folder.parent / f"{self.folder.name}.json", findings)

    def _lacks(self, number: int) -> str:
        """Return what keeps a block from being a finished one of this job; "" where nothing does."""
        done = read_sealed(self._path(number, "json"))
        if not done:
            return f"{self._path(number, 'json').name} is missing or damaged"
        if {**done, **self._place(number)} != done:
            return f"{self._path(number, 'json').name} is of another job"
        for suffix in FILES:
            if file_hash(self._path(number, suffix)) != done["files"][suffix]:
                return f"{self._path(number, suffix).name} is missing or damaged"
        return ""

    def _place(self, number: int) -> dict[str, Any]:
        """Return what says which block of which job a file belongs to."""
        assert self.folder is not None
        return {"job": digest(read_sealed(self.folder / JOB)), "number": number}

    def _path(self, number: int, suffix: str) -> Path:
        assert self.folder is not None
        return self.folder / f"part-{number:05d}.{suffix}"


def carried_of(outcome: Outcome) -> dict[str, Any]:
    """Return what tells whose points a file of carried points holds."""
    return {"threat": outcome.threat} | {name: outcome.environment[name] for name in ("weights", "network", "data")}


def read_again(folder: Path) -> str:
    """Return the warning of a result that was measured by an earlier call."""
    return f"Read again from {folder}, which was finished before."


def table_in_order(parts: Sequence[Part], order: Tensor) -> dict[str, list[Any]]:
    """Return the table of all the parts, whose examples lie in the split at `order`."""
    back = order.argsort().tolist()
    columns = {name: [value for part in parts for value in part.table[name]] for name in parts[0].table}
    return {name: [values[row] for row in back] for name, values in columns.items()}


def inputs_in_order(parts: Sequence[Part], order: Tensor) -> Inputs | None:
    """Return what was found for the examples with an `attack`, as the table has them; None where it is in files."""
    inputs = [part.adversarial for part in parts if part.adversarial is not None]
    if not inputs:
        return None
    names = [name for part in parts for name in part.table["attack"]]
    place = {row: number for number, row in enumerate(row for row, name in enumerate(names) if name)}
    return torch.cat(inputs)[[place[row] for row in order.argsort().tolist() if row in place]]


def _differences(stored: Any, now: Mapping[str, Any]) -> list[str]:
    if not isinstance(stored, Mapping):
        return [f"{JOB} is damaged"]
    differ = [name for name, value in now.items() if stored.get(name) != value]
    if "suite" in differ:  # whose name says more than the settings of its attacks
        differ = [name for name in differ if not name.startswith("attacks")]
    return [f"{name} was {_short(stored.get(name))}, now {_short(now[name])}" for name in differ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:16]}..."


def _tensors(kind: type[Any]) -> list[str]:
    return [each.name for each in fields(kind) if each.name not in ("batch", "tallies", "warnings", "evidence")]


def _done(block: Kept) -> dict[str, Any]:
    return {
        "attacks": [asdict(tally) for tally in block.tallies],
        "warnings": block.warnings,
        "evidence": asdict(block.evidence),
    }
