"""Where an evaluation is kept: what it is of, a part per finished block, the unfinished one, and a summary."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import pyarrow
import pyarrow.parquet
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unperturbed.errors import InputError
from unperturbed.evaluation.block import Block, Tally
from unperturbed.evaluation.nearest import Surroundings
from unperturbed.evaluation.randomised import RandomBlock
from unperturbed.findings import Outcome
from unperturbed.runs import write_atomically, write_json
from unperturbed.types import Batch, Inputs

JOB = "job.json"
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


def begin(folder: Path, job: Mapping[str, Any], overwrite: bool) -> dict[str, Any]:
    """Make or find the folder of a job; return the job as it was begun.

    A job is told by its `is_of`. Raises InputError where the folder holds another job, unless that may be overwritten.
    """
    path = folder / JOB
    if path.exists():
        begun = _loaded(path)
        differences = _differences(begun.get("is_of", {}), job["is_of"]) if begun else [f"{JOB} is damaged"]
        if not differences:
            return dict(begun)
        if not overwrite:
            raise InputError(
                f"{folder} holds another evaluation ({'; '.join(differences)}): give another --out, or --overwrite."
            )
    clear(folder)
    write_json(path, job)
    return dict(job)


def _loaded(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds; nothing if it is damaged."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} was {_short(stored.get(name))}, now {_short(value)}"
        for name, value in now.items()
        if stored.get(name) != value
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:16]}..."


def begun_when_finished(folder: Path, n: int, models: int = 1) -> int | None:
    """Return when the evaluation of n examples that the folder holds was begun, in ns; None if it is not finished."""
    block = _loaded(folder / JOB).get("block", 0)
    finished = block > 0 and all(is_finished(folder, number) for number in range(-(-n // block) * models))
    return (folder / JOB).stat().st_mtime_ns if finished else None


def clear(folder: Path) -> None:
    """Remove an earlier evaluation, which may have had more parts; nothing else that lies there."""
    (folder.parent / f"{folder.name}.json").unlink(missing_ok=True)
    for part in (*folder.glob("part-*.*"), *folder.glob(".part-*"), folder / JOB):
        part.unlink(missing_ok=True)


def write_part(folder: Path, number: int, table: Mapping[str, list[Any]], inputs: Inputs) -> None:
    """Write a block's table as Parquet, and its broken examples' perturbed inputs as safetensors.

    Row k of `adversarial` belongs to the k-th broken example of the table.
    """
    tensors = {"adversarial": inputs.contiguous().cpu()}
    write_atomically(_path(folder, number, "safetensors"), lambda path: save_file(tensors, path))
    columns = pyarrow.table(dict(table))
    write_atomically(_path(folder, number, "parquet"), lambda path: pyarrow.parquet.write_table(columns, path))


def finish(folder: Path, number: int, table: Mapping[str, list[Any]], block: Kept) -> None:
    """Write a finished block. What the attacks did comes last, as JSON, and says that the block is finished."""
    write_part(folder, number, table, block.adversarial())
    write_json(_path(folder, number, "json"), _done(block))
    _path(folder, number, "unfinished").unlink(missing_ok=True)


def is_finished(folder: Path, number: int) -> bool:
    """Tell whether a block is finished, and its files are there."""
    there = all(_path(folder, number, suffix).exists() for suffix in ("parquet", "safetensors"))
    return there and bool(_loaded(_path(folder, number, "json")))


def read_part(folder: Path, number: int) -> Part:
    """Return a finished block."""
    done = json.loads(_path(folder, number, "json").read_text())
    table = pyarrow.parquet.read_table(_path(folder, number, "parquet")).to_pydict()
    return Part(table, [Tally(**tally) for tally in done["attacks"]], done["warnings"], None)


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


def write_unfinished(folder: Path, number: int, block: Kept) -> None:
    """Write what is known of a block between two attacks."""
    tensors = {name: getattr(block, name).contiguous().cpu() for name in _tensors(type(block))}
    metadata = {"done": json.dumps(_done(block))}
    write_atomically(_path(folder, number, "unfinished"), lambda path: save_file(tensors, path, metadata))


def read_unfinished(folder: Path, number: int, batch: Batch, kind: type[B]) -> B | None:
    """Return what is known of a block that was interrupted; None if nothing is, or it cannot be read."""
    try:
        with safe_open(_path(folder, number, "unfinished"), "pt") as file:
            tensors: dict[str, Any] = {name: file.get_tensor(name).to(batch.y.device) for name in _tensors(kind)}
            done = json.loads(file.metadata()["done"])
    except (OSError, SafetensorError, ValueError):
        return None
    return kind(batch=batch, tallies=[Tally(**each) for each in done["attacks"]], warnings=done["warnings"], **tensors)


def _tensors(kind: type[Any]) -> list[str]:
    return [each.name for each in fields(kind) if each.name not in ("batch", "tallies", "warnings")]


def write_summary(folder: Path, outcome: Outcome) -> None:
    """Write `SUITE.json`, beside the folder."""
    write_json(folder.parent / f"{folder.name}.json", outcome.json())


def _done(block: Kept) -> dict[str, Any]:
    return {"attacks": [asdict(tally) for tally in block.tallies], "warnings": block.warnings}


def _path(folder: Path, number: int, suffix: str) -> Path:
    return folder / f"part-{number:05d}.{suffix}"
