"""Data in a store: the same as on this machine, downloaded once, and again where they have changed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from support.object_stores import put_folder, write_digits
from unperturbed.data.sources import Data, keep_place, load_data, with_applicable
from unperturbed.errors import InputError
from unperturbed.imports import Trust
from unperturbed.storage.data_copy import data_copy
from unperturbed.storage.object_store import ObjectStore

FOLDER = "memory://bucket/digits"
FILES = MemoryFileSystem()


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    folder = write_digits(tmp_path / "digits", 40, 10)
    put_folder(FILES, folder, "/bucket/digits")
    return folder


def same(a: Data, b: Data) -> bool:
    rows = torch.arange(len(a.train))
    return torch.equal(a.train.inputs(rows), b.train.inputs(rows)) and torch.equal(a.train.labels, b.train.labels)


def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names, download = list[str](), ObjectStore.download

    def counted(self: ObjectStore, name: str, *args: object) -> None:
        names.append(name)
        download(self, name, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(ObjectStore, "download", counted)
    return names


def test_a_folder_of_parquet_files_is_the_same_as_on_this_machine(digits: Path) -> None:
    here, there = load_data(str(digits)), load_data(FOLDER)
    assert same(here, there) and there.name == here.name == "digits" and there.classes == here.classes
    assert there.place == FOLDER and there.test is not None and len(there.test) == 10


def test_one_parquet_file_is_the_training_split(digits: Path) -> None:
    data = load_data(f"{FOLDER}/train.parquet")
    assert same(data, load_data(str(digits))) and data.test is None and data.name == "train"


def test_one_npz_file_is_read(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).random((6, 4), dtype=np.float32), np.arange(6) % 2
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    FILES.pipe_file("/bucket/a.npz", (tmp_path / "a.npz").read_bytes())
    data = load_data("memory://bucket/a.npz")
    assert torch.equal(data.train.inputs(torch.arange(6)), torch.from_numpy(x)) and data.name == "a"


def test_files_are_downloaded_once_and_changed_ones_again(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = downloads(monkeypatch)
    data_copy(FOLDER, may_download=True)
    assert sorted(names) == ["test.parquet", "train.parquet"]
    data_copy(FOLDER, may_download=True)
    assert len(names) == 2
    FILES.pipe_file("/bucket/digits/test.parquet", (write_digits(digits, 30, 8) / "test.parquet").read_bytes())
    test = load_data(FOLDER).test
    assert names[2:] == ["test.parquet"] and test is not None and len(test) == 8
    FILES.rm("/bucket/digits/test.parquet")
    assert load_data(FOLDER).test is None


def test_an_interrupted_download_is_resumed(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        fetch = ObjectStore.download

        def interrupted(self: ObjectStore, name: str, file: Path, *args: object) -> None:
            fetch(self, name, file, *args)  # type: ignore[arg-type]
            if name == "train.parquet":
                file.write_bytes(file.read_bytes()[:100])
                raise KeyboardInterrupt

        patch.setattr(ObjectStore, "download", interrupted)
        with pytest.raises(KeyboardInterrupt):
            data_copy(FOLDER, may_download=True)
    assert same(load_data(FOLDER), load_data(str(digits)))


def test_nothing_there_is_an_error() -> None:
    with pytest.raises(InputError, match="There are no data memory://bucket/nothing: check the address"):
        load_data("memory://bucket/nothing")


def test_a_place_that_a_file_names_is_not_downloaded(digits: Path) -> None:
    with pytest.raises(InputError, match="stand in a file, and are not on this machine: give them yourself"):
        load_data(FOLDER, Trust())
    load_data(FOLDER, Trust().giving(FOLDER))
    assert load_data(FOLDER, Trust()).place == FOLDER  # from the copy


def test_the_place_and_its_choices_are_kept(digits: Path) -> None:
    spec = f"{FOLDER}?resize=6,6"
    assert keep_place(spec) == spec and with_applicable(FOLDER, resize="6,6", label=None) == spec
    assert load_data(spec).train.shape == (1, 6, 6)


def test_hidden_files_and_those_that_lead_elsewhere_are_left_out(digits: Path, cache: Path) -> None:
    FILES.pipe_file("/bucket/digits/.hidden/x.parquet", b"no")
    data_copy(FOLDER, may_download=True)
    (record,) = cache.rglob("copy.json")
    assert sorted(json.loads(record.read_text())["versions"]) == ["test.parquet", "train.parquet"]
