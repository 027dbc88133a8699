import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unperturbed.cli.console import Result
from unperturbed.cli.main import main
from unperturbed.cli.options import Parsed
from unperturbed.engines.launch import together
from unperturbed.errors import RunError


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGTERM, 143, "interrupted by SIGTERM"),
        (signal.SIGHUP, 129, "interrupted by SIGHUP"),
        (signal.SIGINT, 130, "interrupted"),
    ],
)
def test_a_signal_is_an_interruption_with_a_message_and_its_exit_code(
    number: int, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(given: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(10)

    monkeypatch.setattr("unperturbed.cli.models.run", run)
    inherited = signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    try:  # a shell starts what runs in the background with SIGINT ignored
        before = signal.getsignal(number)
        assert main(["models"]) == code
        assert words in capsys.readouterr().err and signal.getsignal(number) is before
    finally:
        signal.signal(number, inherited)


def test_an_ignored_hangup_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under nohup."""
    seen = []

    def run(parsed: Parsed) -> Result:
        seen.append(signal.getsignal(signal.SIGHUP))
        return Result([], [])

    monkeypatch.setattr("unperturbed.cli.models.run", run)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main(["models"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert seen == [signal.SIG_IGN]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_that_a_signal_ended_is_not_said_to_lack_memory(number: int) -> None:
    words = "Process 2 of 2 was ended by SIGTERM" if number == signal.SIGTERM else "perhaps memory ran out"
    with pytest.raises(RunError, match=words):
        together(2, _ended, number)


def _ended(number: int) -> None:
    if os.environ["LOCAL_RANK"] == "1":
        os.kill(os.getpid(), number)
    time.sleep(30)


@pytest.mark.long
@pytest.mark.slow
def test_a_live_run_refuses_company_and_says_how_to_resume_when_it_is_ended(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "unperturbed", "train", "--data", "digits", "--threat", "Linf:0.1", "--out", "run"]
    words += ["--epochs", "500", "--method", "fgsm", "--device", "cpu"]
    run = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 120
        while not (tmp_path / "run/checkpoints/last.pt").exists():
            assert run.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        for more in ([], ["--resume"]):
            second = subprocess.run([*words, *more], cwd=tmp_path, capture_output=True, text=True)
            assert second.returncode == 2 and f"is being written by process {run.pid} on" in second.stderr
        run.send_signal(signal.SIGTERM)
        error = run.communicate(timeout=60)[1]
    finally:
        run.kill()
        run.communicate()
    assert run.returncode == 143 and "interrupted by SIGTERM" in error and "--resume" in error
    assert not list((tmp_path / "run").glob(".*"))
