"""Tables of examples as Parquet files, passed to Arrow as open files, since it reads a colon in a path as a scheme."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from unperturbed.reading import regular
from unperturbed.runs.files import write_atomically


def write_table(path: Path, columns: Mapping[str, list[Any]]) -> None:
    """Write a table atomically."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            pyarrow.parquet.write_table(pyarrow.table(dict(columns)), file)

    write_atomically(path, write)


def read_table(path: Path) -> dict[str, list[Any]]:
    """Return the columns of a table; raises OSError or pyarrow.ArrowException if it cannot be read."""
    with regular(path).open("rb") as file:
        columns: dict[str, list[Any]] = pyarrow.parquet.read_table(file).to_pydict()
    return columns
