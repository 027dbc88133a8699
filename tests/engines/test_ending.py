"""A process outlives the launcher that has started it, and keeps the lock of its run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import unperturbed
from support.processes import is_running

LAUNCHER = """
import subprocess, sys, time
words = [sys.executable, "-c", *sys.argv[1:]]
worker = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
print(worker.stdout.readline().strip(), flush=True)
time.sleep(600)
"""
WORKER = """
import os, sys, time
from pathlib import Path
from unperturbed.engines.ending import end_with_launcher
end_with_launcher()
print(os.getpid(), flush=True)
time.sleep(60)
Path(sys.argv[1]).touch()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the process is found by Linux's /proc")
def test_a_process_ends_with_a_killed_launcher(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(str(unperturbed.__file__)).parents[1])}
    words = (sys.executable, "-c", LAUNCHER, WORKER, str(tmp_path / "outlived"))
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        worker = int(launcher.stdout.readline())
        assert is_running(worker)
        launcher.send_signal(signal.SIGKILL)
    while is_running(worker):
        time.sleep(0.01)
    assert not (tmp_path / "outlived").exists()
