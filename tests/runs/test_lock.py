import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unperturbed.errors import InputError, RunError
from unperturbed.runs import lock
from unperturbed.runs.files import HOST
from unperturbed.runs.lock import alone_in, locked

HOLD = """
import sys, time
from pathlib import Path
from unperturbed.runs.lock import locked
with locked(Path(sys.argv[1]), *sys.argv[2:]):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path, *name: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), *name], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_folder_that_another_process_writes_is_refused_with_host_pid_and_time(tmp_path: Path) -> None:
    process = holder(tmp_path / "run")
    try:
        with pytest.raises(InputError, match=rf"process {process.pid} on {HOST} since 20..-") as refused:
            with locked(tmp_path / "run"):
                pass
        assert "give another --out" in str(refused.value)
    finally:
        process.kill()
        process.communicate()


def test_the_lock_of_a_killed_process_is_taken_over_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = holder(tmp_path / "run")
    process.kill()
    process.communicate()
    assert (tmp_path / "run/.lock.json").exists()
    with caplog.at_level("INFO", logger="unperturbed"), locked(tmp_path / "run"):
        pass
    assert f"belonged to process {process.pid} on {HOST}" in caplog.text and "taken over" in caplog.text
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())


def test_two_names_in_one_folder_do_not_disturb_each_other(tmp_path: Path) -> None:
    with locked(tmp_path, "a"), locked(tmp_path, "b"), pytest.raises(InputError), locked(tmp_path, "a"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("silent", [False, True])
def test_a_holder_on_another_host_is_believed_until_it_is_silent(silent: bool, tmp_path: Path) -> None:
    """Where the file system keeps the locks of the operating system to each host."""
    beside = tmp_path / ".lock.json"
    beside.write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": "then", "command": "unperturbed train"}))
    if silent:
        long_ago = time.time() - lock.PATIENCE - 60
        os.utime(beside, (long_ago, long_ago))
        with locked(tmp_path):
            pass
    else:
        with pytest.raises(InputError, match="process 1 on elsewhere since then"), locked(tmp_path):
            pass


@pytest.mark.parametrize("alive", [False, True])
def test_a_holder_dated_in_the_future_is_believed_if_another_heartbeat_follows(
    alive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that was set back would otherwise lock a folder for as long as it was ahead."""
    beside, later = tmp_path / ".lock.json", time.time() + 86400
    beside.write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": "then", "command": "unperturbed train"}))
    os.utime(beside, (later, later))

    def wait(seconds: float) -> None:
        assert seconds > lock.BEAT
        if alive:
            os.utime(beside)

    monkeypatch.setattr(lock.time, "sleep", wait)
    if alive:
        with pytest.raises(InputError, match="process 1 on elsewhere"), locked(tmp_path):
            pass
    else:
        with locked(tmp_path):
            pass


def test_without_locks_of_the_operating_system_existence_is_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.FileLock, "acquire", unsupported)
    with locked(tmp_path), pytest.raises(InputError, match=f"process {os.getpid()} on"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_folder_that_was_moved_or_replaced_ends_the_job(tmp_path: Path) -> None:
    for replaced in (False, True):
        folder = tmp_path / f"run{replaced}"
        with pytest.raises(RunError, match="was moved or deleted"), locked(folder):
            folder.rename(tmp_path / f"away{replaced}")
            if replaced:
                folder.mkdir()


def test_nothing_is_left_of_a_job_that_wrote_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wrong"), locked(tmp_path / "a/b"):
        raise InputError("wrong")
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match="cannot be made"), locked(tmp_path / "run"):
        pass


def test_temporary_files_of_dead_processes_are_removed_and_no_others(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "checkpoints").mkdir()
    dead = [tmp_path / f".best.{HOST}-{ended.pid}.safetensors", tmp_path / f"checkpoints/.last.{HOST}-{ended.pid}.pt"]
    alive = [tmp_path / f".best.{HOST}-{os.getppid()}.safetensors", tmp_path / f".best.elsewhere-{ended.pid}.pt"]
    others = [tmp_path / ".gitignore", tmp_path / f"notes.{HOST}-{ended.pid}.txt"]
    (tmp_path / "pgd").mkdir()
    beside = [tmp_path / f".{name}.{HOST}-{ended.pid}.json" for name in ("pgd-robustbench", "standard")]
    for path in (*dead, *alive, *others, *beside):
        path.write_text("")
    with locked(tmp_path / "pgd"):
        pass
    assert [path.exists() for path in beside] == [False, True], "only what is named for the folder"
    with locked(tmp_path):
        pass
    assert [path.exists() for path in (*dead, *alive, *others)] == [False, False, True, True, True, True]


def test_the_arguments_by_name_decide_what_is_locked(tmp_path: Path) -> None:
    @alone_in(lambda given: None if given["out"] is None else (given["out"], ""))
    def work(number: int, *, out: Path | None = None) -> bool:
        return out is not None and (out / ".lock").exists()

    assert work(1, out=tmp_path) and not work(1)
    with locked(tmp_path), pytest.raises(InputError, match="is being written"):
        work(1, out=tmp_path)


def test_a_folder_that_takes_no_lock_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lock, "write_in_place", full)
    for _ in range(2):  # the first failure leaves no lock behind
        with pytest.raises(RunError, match="run cannot be written into .No space left"), locked(tmp_path / "run"):
            pass
    assert not list(tmp_path.iterdir())
