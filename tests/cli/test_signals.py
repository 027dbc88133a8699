import os
import signal
import time
from typing import Any

import pytest

from unperturbed.cli.main import main
from unperturbed.cli.processes import _silent


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
    before = signal.getsignal(number)
    assert main(["models"]) == code
    assert words in capsys.readouterr().err and signal.getsignal(number) is before


def test_an_ignored_hangup_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under nohup."""
    seen = []
    monkeypatch.setattr("unperturbed.cli.models.run", lambda given: seen.append(signal.getsignal(signal.SIGHUP)))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with pytest.raises(AttributeError):  # it returned nothing
            main(["models"])
    finally:
        signal.signal(signal.SIGHUP, before)
    assert seen == [signal.SIG_IGN]


def test_a_worker_that_a_signal_ended_is_not_said_to_lack_memory() -> None:
    class Ended:
        exitcode = -signal.SIGTERM

        def join(self, timeout: float) -> None:
            pass

    workers: list[Any] = [Ended(), Ended()]
    assert str(_silent(1, workers)) == "Process 2 of 2 was ended by SIGTERM."
    Ended.exitcode = -signal.SIGKILL
    assert "perhaps memory ran out" in str(_silent(0, workers))
