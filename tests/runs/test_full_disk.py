import resource
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from torch import nn

from unperturbed.errors import RunError
from unperturbed.runs import append_jsonl, write_atomically, write_json
from unperturbed.runs.tensors import write_tensors
from unperturbed.training import checkpoint
from unperturbed.weights.files import save_weights

LARGE = torch.rand(50_000)


def write_table(path: Path) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            pyarrow.parquet.write_table(pyarrow.table({"a": LARGE.tolist()}), file)

    write_atomically(path, write)


WRITERS: dict[str, Callable[[Path], None]] = {
    "safetensors": lambda path: write_tensors(path, {"a": LARGE}, {}),
    "parquet": write_table,
    "pt": lambda path: checkpoint.save(path, {"a": LARGE}),
    "json": lambda path: write_json(path, {"a": LARGE.tolist()}),
    "jsonl": lambda path: append_jsonl(path, {"a": LARGE.tolist()}),
    "weights": lambda path: save_weights(nn.Linear(300, 300), path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_ends_every_write_with_a_sentence_and_leaves_what_was_there(name: str, tmp_path: Path) -> None:
    """A limit on the size of a file is what a process can set: the writers see the same failure."""
    path = tmp_path / f"file.{name}"
    path.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(RunError, match=r"Cannot write .*file|file.pt cannot be written"):
            WRITERS[name](path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old" and [each.name for each in tmp_path.iterdir()] == [path.name]
