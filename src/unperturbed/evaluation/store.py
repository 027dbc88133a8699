"""Where an evaluation is kept: what it is of, a part per finished block, the unfinished one, and a summary."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import pyarrow
import pyarrow.parquet
import torch
from torch import Tensor

from unperturbed.errors import InputError
from unperturbed.evaluation.block import Block, Tally
from unperturbed.evaluation.nearest import Surroundings
from unperturbed.evaluation.randomised import RandomBlock
from unperturbed.runs import write_atomically, write_json
from unperturbed.runs.tensors import DamagedError, read_tensors, write_tensors
from unperturbed.runs.verify import digest, file_hash, read_object, read_sealed, write_sealed
from unperturbed.types import Batch, Inputs

log = logging.getLogger("unperturbed")
JOB = "job.json"
FILES = ("parquet", "safetensors")
"""What a finished block consists of, beside the JSON file that says so and holds their hashes."""
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


@dataclass(frozen=True)
class Store:
    """Where the blocks of a job are kept; without a folder nowhere, and then none was ever begun.

    Every file is verified when it is read: a block whose files are not as they were written, or that belongs to another
    job, is an unfinished one.
    """

    folder: Path | None

    def begin(self, job: Mapping[str, Any], overwrite: bool) -> dict[str, Any]:
        """Make or find the folder of a job; return the job as it was begun.

        A job is told by its `is_of`. Raises InputError where the folder holds another job, unless that may be
        overwritten.
        """
        if self.folder is None:
            return dict(job)
        path = self.folder / JOB
        if path.exists():
            begun = read_sealed(path)
            differences = _differences(read_object(path).get("is_of"), job["is_of"])
            if not differences and begun:
                return begun
            differences = differences or [f"{JOB} is damaged"]
            if not overwrite:
                raise InputError(
                    f"{self.folder} holds another evaluation ({'; '.join(differences)}): give another --out, or "
                    "--overwrite."
                )
        self.clear()
        write_sealed(path, job)
        return dict(job)

    def begun_when_finished(self, n: int, models: int = 1) -> int | None:
        """Return when the evaluation of n examples that is kept here was begun, in ns; None if it is not finished."""
        if self.folder is None:
            return None
        block = read_sealed(self.folder / JOB).get("block", 0)
        finished = block > 0 and not any(self._lacks(number) for number in range(-(-n // block) * models))
        return (self.folder / JOB).stat().st_mtime_ns if finished else None

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
            return Part(table, block.tallies, block.warnings, inputs)
        write_tensors(self._path(number, "safetensors"), {"adversarial": inputs}, {})
        write_atomically(self._path(number, "parquet"), lambda path: _write_table(table, path))
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
        with self._path(number, "parquet").open("rb") as file:  # of a path, Arrow takes a colon for a scheme's
            table = pyarrow.parquet.read_table(file).to_pydict()
        return Part(table, [Tally(**tally) for tally in done["attacks"]], done["warnings"], None)

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


def _write_table(table: Mapping[str, list[Any]], path: Path) -> None:
    with path.open("wb") as file:
        pyarrow.parquet.write_table(pyarrow.table(dict(table)), file)


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
    return [each.name for each in fields(kind) if each.name not in ("batch", "tallies", "warnings")]


def _done(block: Kept) -> dict[str, Any]:
    return {"attacks": [asdict(tally) for tally in block.tallies], "warnings": block.warnings}
