"""Run folders from strangers: links, pipes and devices in the places of files change nothing else and hang nothing."""

import os
from pathlib import Path

import pytest

from unperturbed.errors import InputError, RunError
from unperturbed.reading import regular
from unperturbed.runs import tables
from unperturbed.runs.files import (
    HOST,
    append_jsonl,
    check_links,
    read_jsonl,
    read_yaml,
    write_in_place,
    write_text,
    write_yaml,
)
from unperturbed.runs.lock import locked
from unperturbed.runs.tables import read_table, write_table
from unperturbed.runs.tensors import DamagedError, read_tensors
from unperturbed.runs.verify import file_hash, read_object


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim.txt"
    path.write_text("mine")
    return path


@pytest.mark.parametrize("kind", ["symlink_to", "hardlink_to"])
@pytest.mark.parametrize("name", [".lock", ".lock.json"])
def test_a_lock_that_is_a_link_is_refused_and_the_file_behind_it_stands(
    name: str, kind: str, victim: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    getattr(run / name, kind)(victim)
    with pytest.raises(InputError, match=f"{name} is a link or no regular file"), locked(run):
        pass
    assert victim.read_text() == "mine" and (run / name).samefile(victim)


@pytest.mark.parametrize("kind", ["symlink_to", "hardlink_to"])
def test_files_are_not_changed_through_a_link(kind: str, victim: Path, tmp_path: Path) -> None:
    """By a line at the end, or as a whole; a file that is replaced leaves the one behind the link as it is."""
    path = tmp_path / "metrics.jsonl"
    getattr(path, kind)(victim)
    with pytest.raises(RunError, match=r"metrics\.jsonl"):
        append_jsonl(path, {"epoch": 1})
    with pytest.raises(OSError, match=r"metrics\.jsonl"):
        write_in_place(path, "other")
    write_text(path, "new")
    assert victim.read_text() == "mine" and path.read_text() == "new"


def test_a_temporary_file_that_is_a_link_is_not_written_through(victim: Path, tmp_path: Path) -> None:
    (tmp_path / f".report.{HOST}-{os.getpid()}.html").symlink_to(victim)
    write_text(tmp_path / "report.html", "page")
    assert victim.read_text() == "mine" and (tmp_path / "report.html").read_text() == "page"


@pytest.mark.slow
def test_a_table_that_expands_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column of one repeated value takes a few bytes, and a list may hold any number of values in a row."""
    path = tmp_path / "part.parquet"
    write_table(path, {"id": [7] * 200_000})
    assert path.stat().st_size < 2000 and read_table(path) == {"id": [7] * 200_000}
    monkeypatch.setattr(tables, "LARGEST", 1_000_000)
    with pytest.raises(InputError, match="holds 200,000 values"):
        read_table(path)
    write_table(path, {"id": ["long" * 1000] * 2000})
    with pytest.raises(InputError, match="expands to more than 1,000,000"):
        read_table(path)
    write_table(path, {"draws": [[1, 0], [1, 1]]})
    assert read_table(path) == {"draws": [[1, 0], [1, 1]]}
    write_table(path, {"draws": [[7] * 200_000]})
    with pytest.raises(InputError, match="holds 200,000 values"):
        read_table(path)
    for value in ([[7]], {"a": 7}):
        write_table(path, {"id": [value]})
        with pytest.raises(InputError, match="nested column 'id'"):
            read_table(path)


def test_a_name_that_is_no_text_is_refused_before_a_file_holds_it(tmp_path: Path) -> None:
    """YAML can write half of a pair of surrogates, and no parser reads it back: the run would be lost."""
    for text in ("\udcff", "a\\\udcff"):
        with pytest.raises(InputError, match="no text in UTF-8: rename"):
            write_yaml(tmp_path / "config.yaml", {"classes": [text]})
    assert not (tmp_path / "config.yaml").exists()
    write_yaml(tmp_path / "config.yaml", {"classes": ["\\udcff", "\U0001f600"]})
    assert read_yaml(tmp_path / "config.yaml") == {"classes": ["\\udcff", "\U0001f600"]}
    write_text(tmp_path / "page.html", "a\udcffé")
    assert (tmp_path / "page.html").read_bytes() == "a\\udcffé".encode()


def test_a_folder_that_leads_out_of_the_run_is_refused_without_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("run/inside", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    run = tmp_path / "run"
    (run / "within").symlink_to(run / "inside")
    check_links(run)
    (run / "inside/evaluation").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="out of the run folder"):
        check_links(run)
    monkeypatch.setenv("UNPERTURBED_TRUST", "1")
    check_links(run)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_are_not_read(kind: str, tmp_path: Path) -> None:
    """A pipe would be waited for, and /dev/zero read until memory is full."""
    path = tmp_path / "file"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(OSError, match="no regular file"):
        regular(path)
    assert read_jsonl(path) == [] and read_object(path) == {} and file_hash(path) == ""
    with pytest.raises(DamagedError):
        read_tensors(path)
