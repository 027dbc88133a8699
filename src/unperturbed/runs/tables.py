"""Tables of examples as Parquet files, passed to Arrow as open files, since it reads a colon in a path as a scheme."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from unperturbed.errors import InputError
from unperturbed.reading import regular
from unperturbed.runs.files import write_atomically

LARGEST = 2**30
"""The largest table in memory, in bytes."""


def write_table(path: Path, columns: Mapping[str, list[Any]]) -> None:
    """Write a table atomically."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            pyarrow.parquet.write_table(pyarrow.table(dict(columns)), file)

    write_atomically(path, write)


def read_table(path: Path) -> dict[str, list[Any]]:
    """Return the columns of a table.

    Raises:
        InputError: for a table with columns of anything but plain values and lists of them, or of more values than
        `LARGEST` bytes hold: a few kilobytes may stand for a column of any length.
        OSError, pyarrow.ArrowException: if it cannot be read.
    """
    with regular(path).open("rb") as stream:
        file = pyarrow.parquet.ParquetFile(stream)
        if nested := [field.name for field in file.schema_arrow if _is_deep(field.type)]:
            raise InputError(f"{path} has the nested column {nested[0]!r:.80}, which no table of examples has.")
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        values = sum(group.column(column).num_values for group in groups for column in range(group.num_columns))
        if values > LARGEST // 8:
            raise InputError(f"{path} holds {values:,} values: it is no table of examples.")
        batches, size = list[Any](), 0
        for batch in file.iter_batches(batch_size=1024):
            batches.append(batch)
            if (size := size + batch.nbytes) > LARGEST:
                raise InputError(f"{path} expands to more than {LARGEST:,} bytes: it is no table of examples.")
        table = pyarrow.Table.from_batches(batches, file.schema_arrow)
    columns: dict[str, list[Any]] = table.to_pydict()
    return columns


def _is_deep(kind: pyarrow.DataType) -> bool:
    """Tell whether a column holds more than plain values, or lists of them (one for each draw of a random network)."""
    inner = kind.value_type if pyarrow.types.is_list(kind) else kind
    return bool(pyarrow.types.is_nested(inner))
