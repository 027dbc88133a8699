"""The files of a measurement: a part per finished block, the unfinished block, and a summary."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from unperturbed.evaluation.evidence import Evidence
from unperturbed.evaluation.parts import Part, S, State, Tally
from unperturbed.findings import Outcome
from unperturbed.runs.job import JOB, MARK, Job
from unperturbed.runs.tables import read_table, write_table
from unperturbed.runs.tensors import DamagedError, read_tensors, write_tensors
from unperturbed.runs.verify import file_hash, read_sealed, write_sealed
from unperturbed.types import Batch, Inputs

log = logging.getLogger("unperturbed")
CARRIED = "part-carried.safetensors"
"""The file of points from other threat sets that lie in this one."""
FILES = ("parquet", "safetensors")
"""The suffixes of a finished block's files, apart from the JSON file with their hashes."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The state of a block between two steps as plain data, for files and other processes."""

    tensors: Mapping[str, Tensor]
    """On the CPU, by name."""
    records: Mapping[str, Any]
    """The records of the attacks so far, warnings and evidence."""

    @staticmethod
    def of(state: State) -> "Snapshot":
        """Return the snapshot of a state."""
        tensors = {name: getattr(state, name).contiguous().cpu() for name in _tensors(type(state))}
        return Snapshot(tensors, _records(state))

    def restored(self, batch: Batch, kind: Callable[..., S]) -> S:
        """Return the state, with the examples of the block, on their device."""
        tensors: dict[str, Any] = {name: self.tensors[name].to(batch.y.device) for name in _tensors(kind)}
        tallies = [Tally(**tally) for tally in self.records["attacks"]]
        return kind(batch=batch, tallies=tallies, warnings=self.records["warnings"], **tensors)


@dataclass(frozen=True)
class Store:
    """The files of a job's blocks; with `folder=None`, nothing is stored.

    Every file is verified at reading: a block with changed files, or of another job, counts as unfinished.
    """

    folder: Path | None

    def clear(self) -> None:
        """Remove an earlier measurement, which may have had more parts; other files stay."""
        if self.folder is None:
            return
        (self.folder.parent / f"{self.folder.name}.json").unlink(missing_ok=True)
        for part in (*self.folder.glob("part-*.*"), *self.folder.glob(".part-*"), self.folder / JOB):
            part.unlink(missing_ok=True)

    def finish(self, number: int, part: Part) -> Part:
        """Store a finished block: its table as Parquet, its broken examples' perturbed inputs as safetensors.

        Row k of `adversarial` belongs to the k-th broken example of the table. The records of the attacks come last, as
        JSON, and mark the block as finished.
        """
        if self.folder is None:
            return part
        if part.adversarial is not None:
            write_tensors(self._path(number, "safetensors"), {"adversarial": part.adversarial}, {})
        write_table(self._path(number, "parquet"), part.table)
        hashes = {suffix: file_hash(path) for suffix in FILES if (path := self._path(number, suffix)).exists()}
        write_sealed(self._path(number, "json"), self._place(number) | _records(part) | {"files": hashes})
        self._path(number, "unfinished").unlink(missing_ok=True)
        return self.read(number)

    def is_finished(self, number: int) -> bool:
        """Tell whether a block is finished and its files are unchanged; a damaged one is reported."""
        if self.folder is None:
            return False
        lacks = self._lacks(number)
        if lacks and any(self._path(number, suffix).exists() for suffix in ("json", *FILES)):
            log.warning("%s: %s. This block is measured again.", self.folder, lacks)
        return not lacks

    def read(self, number: int) -> Part:
        """Return a finished block."""
        content = read_sealed(self._path(number, "json"))
        table = read_table(self._path(number, "parquet"))
        tallies = [Tally(**tally) for tally in content["attacks"]]
        return Part(table, tallies, content["warnings"], None, Evidence(**content["evidence"]))

    def read_adversarial(self, number: int) -> Inputs:
        """Return the perturbed inputs of the broken examples of a finished block."""
        return read_tensors(self._path(number, "safetensors"))[0]["adversarial"]

    def keep(self, number: int, state: Snapshot) -> None:
        """Store the state of a block between two steps."""
        if self.folder is not None:
            write_tensors(self._path(number, "unfinished"), state.tensors, self._place(number) | dict(state.records))

    def is_begun(self, number: int) -> bool:
        """Tell whether the state of an interrupted block is stored."""
        return self.folder is not None and self._path(number, "unfinished").exists()

    def begun(self, number: int) -> Snapshot | None:
        """Return the stored state of an interrupted block; None if there is none, or it is damaged."""
        if not self.is_begun(number):
            return None
        try:
            tensors, about = read_tensors(self._path(number, "unfinished"))
            if about is None or {**about, **self._place(number)} != about:
                raise DamagedError("it is of another job")
        except DamagedError as error:
            log.warning("%s is damaged (%s). This block begins anew.", self._path(number, "unfinished"), error)
            return None
        return Snapshot(tensors, about)

    def summarise(self, findings: Mapping[str, Any]) -> None:
        """Write `NAME.json`, with its hash, next to the folder of this name."""
        if self.folder is not None:
            write_sealed(self.folder.parent / f"{self.folder.name}.json", findings)

    def _lacks(self, number: int) -> str:
        """Return the reason why a block is not a finished one of this job; "" if it is."""
        content = read_sealed(self._path(number, "json"))
        if not content:
            return f"{self._path(number, 'json').name} is missing or damaged"
        if {**content, **self._place(number)} != content:
            return f"{self._path(number, 'json').name} is of another job"
        if not isinstance(content.get("files"), dict):
            return f"{self._path(number, 'json').name} is damaged"
        for suffix, expected in content["files"].items():
            if file_hash(self._path(number, suffix)) != expected:
                return f"{self._path(number, suffix).name} is missing or damaged"
        return ""

    def _place(self, number: int) -> dict[str, Any]:
        """Return the fields that identify the block and the job of a file."""
        assert self.folder is not None
        return {MARK: Job(self.folder).mark(), "number": number}

    def _path(self, number: int, suffix: str) -> Path:
        assert self.folder is not None
        return self.folder / f"part-{number:05d}.{suffix}"


def carried_of(outcome: Outcome) -> dict[str, Any]:
    """Return the fields that identify the measurement of a file of carried points."""
    return {"threat": outcome.threat} | {name: outcome.environment[name] for name in ("weights", "network", "data")}


def _tensors(kind: Any) -> list[str]:
    return [field.name for field in fields(kind) if field.name not in ("batch", "tallies", "warnings", "evidence")]


def _records(block: State | Part) -> dict[str, Any]:
    return {
        "attacks": [asdict(tally) for tally in block.tallies],
        "warnings": block.warnings,
        "evidence": asdict(block.evidence),
    }
