"""A worker of the engine `ray`: it computes units, and tells the driver how far it is. It writes no files."""

import os
import platform
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import torch

from unperturbed.engines.base import Report
from unperturbed.errors import InputError
from unperturbed.processor import SETTING


@dataclass(frozen=True)
class Setting:
    """The setting of a worker, which is that of the driver.

    Attributes:
        threads: the number of torch's threads.
        folder: the current folder.
        path: the folders of modules.
        rounding: the value of MKL_CBWR; empty: not set.
    """

    threads: int
    folder: str
    path: tuple[str, ...]
    rounding: str

    @staticmethod
    def here(threads: int) -> "Setting":
        """Return the setting of this process, with that number of threads."""
        return Setting(threads, os.getcwd(), tuple(sys.path), os.environ.get(SETTING, ""))

    def environment(self) -> dict[str, str]:
        """Return the environment variables that the worker's process needs at its start."""
        return {SETTING: self.rounding, "OMP_NUM_THREADS": str(self.threads)}


@dataclass(frozen=True)
class News:
    """The progress of a worker.

    Attributes:
        place: the position of its unit among the units of the job; -1 before the first.
        share: the finished share of the unit.
        text: a short text.
        state: the newest state of the unit, if it is new since the last question.
    """

    place: int = -1
    share: float = 0.0
    text: str = ""
    state: Any = None


def versions() -> dict[str, str]:
    """Return the versions that must be the same in all processes of a job."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"unperturbed": version("unperturbed"), "torch": str(torch.__version__), "python": python}


def processor() -> str:
    """Return the instruction set that torch uses on the processor of this process."""
    return str(torch.backends.cpu.get_cpu_capability())


class Worker:
    """Executes units, one at a time, while another thread answers questions about its progress."""

    def __init__(self, setting: Setting) -> None:
        self._threads = setting.threads
        self._news, self._lock = News(), threading.Lock()
        self._loaded: tuple[Any, Sequence[Callable[..., Any]]] | None = None
        with suppress(OSError):  # on other machines the folder may not exist
            os.chdir(setting.folder)
        sys.path.extend(folder for folder in setting.path if folder not in sys.path)

    def introduce(self, shared: Sequence[Any]) -> tuple[Mapping[str, str], str]:
        """Read the work, and return the versions of this process and the instruction set of its processor."""
        self._computes(shared[0])
        return versions(), processor()

    def execute(self, shared: Sequence[Any], place: int, begun: Any) -> Any:
        """Execute a unit from a state, and return its result.

        Args:
            shared: the reference to the `compute` of all units; in a sequence, so that Ray does not replace it.
            place: the position of the unit among them.
            begun: the state to begin with, or None.
        """
        torch.set_num_threads(self._threads)  # of this thread
        with self._lock:
            self._news = News(place)
        return self._computes(shared[0])[place](begun, self._keep, self._reporter(place))

    def news(self) -> News:
        """Return the progress of the unit in work, and its newest state once."""
        with self._lock:
            news, self._news = self._news, replace(self._news, state=None)
        return news

    def _computes(self, reference: Any) -> Sequence[Callable[..., Any]]:
        """Return the `compute` of all units, which a worker reads once for all of its units."""
        import ray

        if self._loaded is None or self._loaded[0] != reference:
            try:
                self._loaded = reference, ray.get(reference)
            except Exception as error:  # whatever the user's modules raise
                raise InputError(
                    f"A worker cannot read the network, the data or the attacks ({type(error).__name__}: {error}): own "
                    "modules must be importable on all nodes, and a network on a GPU needs --gpus-per-worker 1."
                ) from error
        return self._loaded[1]

    def _keep(self, state: Any) -> None:
        """Keep a copy of the state for the driver, since the work goes on and may change its tensors in place."""
        copied = deepcopy(state)
        with self._lock:
            self._news = replace(self._news, state=copied)

    def _reporter(self, place: int) -> Report:
        def report(share: float, text: str) -> None:
            with self._lock:
                self._news = replace(self._news, place=place, share=share, text=text)

        return report
