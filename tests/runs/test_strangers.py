"""Run folders from strangers: links, pipes and devices in the places of files change nothing else and hang nothing."""

import os
from pathlib import Path

import pytest

from unperturbed.errors import InputError, RunError
from unperturbed.reading import regular
from unperturbed.runs.files import append_jsonl, check_links, read_jsonl
from unperturbed.runs.lock import locked
from unperturbed.runs.tensors import DamagedError, read_tensors
from unperturbed.runs.verify import file_hash, read_object


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim.txt"
    path.write_text("mine")
    return path


@pytest.mark.parametrize("name", [".lock", ".lock.json"])
def test_a_lock_that_is_a_link_is_refused_and_the_file_behind_it_stands(
    name: str, victim: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / name).symlink_to(victim)
    with pytest.raises(InputError, match=f"{name} is no regular file"), locked(run):
        pass
    assert victim.read_text() == "mine" and (run / name).is_symlink()


def test_lines_are_not_appended_through_a_link(victim: Path, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.symlink_to(victim)
    with pytest.raises(RunError, match=r"metrics\.jsonl"):
        append_jsonl(path, {"epoch": 1})
    assert victim.read_text() == "mine"


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
