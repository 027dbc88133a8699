"""Messages that cannot be written are lost, and the work goes on."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from unperturbed.cli.console import progress, results_only_on_stdout, say
from unperturbed.cli.main import main


def on_a_full_disk() -> IO[str]:
    return open("/dev/full", "w")


def without_a_reader() -> IO[str]:
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


def closed() -> IO[str]:
    stream = open(os.devnull, "w")
    stream.close()
    return stream


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("make", [on_a_full_disk, without_a_reader, closed, lambda: None])
def test_work_goes_on_where_messages_cannot_be_written(
    make: Callable[[], IO[str] | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = make()
    monkeypatch.setattr(sys, "stderr", stream)
    done = 0
    with results_only_on_stdout(), progress() as report:
        for epoch in range(3):
            report(epoch + 1, 3, f"epoch {epoch + 1}/3: loss 1.0")
            done += 1
        say("a line", "warning")
    say("another", "error")
    monkeypatch.undo()
    if stream is not None:
        try:
            stream.close()
        except OSError:
            pass
    assert done == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", [["methods"], ["methods", "--json"]])
def test_a_result_that_cannot_be_printed_ends_with_1_and_says_so(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = on_a_full_disk()
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(words) == 1
    stream.close()  # nothing is left that the end of Python would try to write
    err = capsys.readouterr().err
    assert "standard output" in err and "Files of the command are written" in err
