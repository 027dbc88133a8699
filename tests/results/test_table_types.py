"""Tables of a stranger whose checksums are right, but whose values are of other types."""

from pathlib import Path
from typing import Any

import pytest

from unperturbed.errors import InputError
from unperturbed.evaluation.stored import read_summary, with_examples
from unperturbed.runs.tables import read_table, write_table
from unperturbed.runs.verify import file_hash, read_sealed, write_sealed


@pytest.mark.parametrize("change", [{"label": "1"}, {"verdict": 7}, {"id": None}])
def test_a_table_of_other_types_is_refused_though_its_checksums_are_right(change: dict[str, Any], run: Path) -> None:
    folder = run / "evaluation" / "pgd"
    table = read_table(folder / "part-00000.parquet")
    ((column, value),) = change.items()
    write_table(folder / "part-00000.parquet", table | {column: [value] * len(table[column])})
    content = read_sealed(folder / "part-00000.json")
    content["files"]["parquet"] = file_hash(folder / "part-00000.parquet")
    write_sealed(folder / "part-00000.json", content)
    path = folder.with_name("pgd.json")
    with pytest.raises(InputError, match=f"has the {column} {value!r}, which does not fit"):
        with_examples(path, read_summary(path))
