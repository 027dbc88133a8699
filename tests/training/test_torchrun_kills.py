"""Processes under torchrun are killed by SIGKILL: the others end, and the same command resumes to the same bits."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from test_launchers import environment
from test_processes import free_port

from support.processes import Process, is_running
from support.toys import without_seconds
from unperturbed import runs
from unperturbed.training import checkpoint

LAUNCHER = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
OPTIONS = ("--data", "digits", "--examples", "200", "--model", "mlp", "--method", "fgsm", "--epochs", "24",
           "--batch-size", "16", "--device", "cpu", "--devices", "2", "--checkpoint-minutes", "0")  # fmt: skip
"""A checkpoint after every step."""


class Torchrun(Process):
    """Torchrun with two processes of one run."""

    def __init__(self, folder: Path, strategy: str, *more: str, restarts: int = 0) -> None:
        self.folder = folder
        launcher = (*LAUNCHER, "--master-port", str(free_port()), "--max-restarts", str(restarts))
        words = ("-m", "unperturbed", "train", *OPTIONS, "--strategy", strategy, "--out", str(folder), *more)
        super().__init__(sys.executable, *launcher, *words, environment=environment())

    def workers(self) -> list[int]:
        """Return the process of rank 0, which holds the lock of the run folder, and that of rank 1."""
        first = int(json.loads((self.folder / ".lock.json").read_text())["pid"])
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [first, *(int(child) for child in children if int(child) != first)]


def step(folder: Path) -> int:
    """Return the step of the newest checkpoint; 0 without any."""
    path = folder / runs.CHECKPOINT
    return int(checkpoint.load(path)["state"]["step"]) if path.exists() else 0


def kill_rank_1(run: Torchrun) -> list[int]:
    workers = run.workers()
    os.kill(workers[1], signal.SIGKILL)
    return workers


def kill_rank_0(run: Torchrun) -> list[int]:
    workers = run.workers()
    os.kill(workers[0], signal.SIGKILL)
    return workers


def kill_the_launcher(run: Torchrun) -> list[int]:
    workers = run.workers()
    run.kill()
    return workers


def kill_all(run: Torchrun) -> list[int]:
    workers = run.workers()
    for pid in (run.pid, *workers):
        os.kill(pid, signal.SIGKILL)
    return workers


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the processes are found by Linux's /proc")
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_killed_processes_of_torchrun_resume_to_the_same_bits(strategy: str, tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    whole = Torchrun(straight, strategy)
    assert "To measure robust accuracy" in "".join(whole.output()) and whole.returncode == 0

    for kill in (kill_rank_1, kill_rank_0, kill_the_launcher, kill_all):
        before = step(killed)
        run = Torchrun(killed, strategy, *(["--resume"] if killed.exists() else []))
        run.wait_for(lambda before=before: step(killed) >= before + 3)
        workers = kill(run)
        text = "".join(run.output())  # it ends by itself
        assert run.returncode != 0, text
        while any(is_running(pid) for pid in workers):  # nothing stays behind that holds the lock
            time.sleep(0.05)
        assert not (killed / runs.RESULT).exists()

    resumed = Torchrun(killed, strategy, "--resume")
    text = "".join(resumed.output())
    assert resumed.returncode == 0, text
    for name in (runs.MODEL, runs.BEST):
        assert (killed / name).read_bytes() == (straight / name).read_bytes(), name
    lines, expected = (runs.read_jsonl(folder / runs.METRICS) for folder in (killed, straight))
    assert without_seconds(lines) == without_seconds(expected)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the processes are found by Linux's /proc")
def test_torchrun_restarts_a_killed_process_by_itself(tmp_path: Path) -> None:
    """With --max-restarts, --resume and an existing folder."""
    (tmp_path / "run").mkdir()
    run = Torchrun(tmp_path / "run", "ddp", "--resume", restarts=1)
    run.wait_for(lambda: step(tmp_path / "run") >= 3)
    kill_rank_1(run)
    text = "".join(run.output())
    assert run.returncode == 0, text
    assert "Resumed at step" in text
