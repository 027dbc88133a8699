"""Processes that tests start and kill."""

import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest


class Process(subprocess.Popen[str]):
    """A process whose output goes to files, so that it never waits for a reader."""

    def __init__(self, *words: str, environment: Mapping[str, str]) -> None:
        self._files = [tempfile.TemporaryFile("w+") for _ in range(2)]
        out, err = self._files
        super().__init__(words, text=True, env=environment, stdout=out, stderr=err)

    def output(self) -> tuple[str, str]:
        """Wait for the end of the process, and return what it wrote to stdout and stderr."""
        self.wait()
        texts = []
        for file in self._files:
            with file:
                file.seek(0)
                texts.append(file.read())
        return texts[0], texts[1]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; fail if the process ends before."""
        while not condition():
            if self.poll() is not None:
                pytest.fail("The process ended before the condition came: " + "".join(self.output()))
            time.sleep(0.01)


def is_running(process: int) -> bool:
    """Tell whether a process runs, by Linux's /proc; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
