"""Where an evaluation is kept: a part per finished block, and a summary, each written whole."""

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from safetensors.torch import save_file

from unperturbed.findings import Outcome
from unperturbed.runs import write_atomically, write_json
from unperturbed.types import Inputs


def clear(folder: Path, suite: str) -> None:
    """Remove the summary and the parts of an earlier evaluation, which may have had more of them."""
    (folder / f"{suite}.json").unlink(missing_ok=True)
    for part in (*(folder / suite).glob("part-*.parquet"), *(folder / suite).glob("part-*.safetensors")):
        part.unlink()


def write_part(folder: Path, number: int, table: dict[str, list[Any]], adversarial: Inputs) -> None:
    """Write a block's table as Parquet and its broken examples' perturbed inputs as safetensors.

    Row k of `adversarial` belongs to the k-th broken example of the table.
    """
    stem = f"part-{number:05d}"
    inputs = {"adversarial": adversarial.contiguous().cpu()}
    write_atomically(folder / f"{stem}.safetensors", lambda path: save_file(inputs, path))
    columns = pyarrow.table(table)
    write_atomically(folder / f"{stem}.parquet", lambda path: pyarrow.parquet.write_table(columns, path))


def write_summary(folder: Path, outcome: Outcome) -> None:
    """Write `SUITE.json`."""
    write_json(folder / f"{outcome.suite}.json", outcome.json())
