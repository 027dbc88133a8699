"""The journal of a run: the means of every epoch, warnings, metrics.jsonl and the trackers."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from unperturbed import runs
from unperturbed.trackers.base import TrackedRun, Tracker, one_line, open_trackers
from unperturbed.training.state import State

log = logging.getLogger("unperturbed")


class Journal:
    """The writer of a run's metrics and warnings.

    Attributes:
        sums: of this epoch's terms and diagnostics over this process's steps.
        metrics: of every epoch, as in metrics.jsonl, without the time.
        note: the fields that identify the run in its files.
        trackers: that get the epochs, too; those that have failed are left out.
    """

    def __init__(self, fabric: Fabric, folder: Path | None, state: State) -> None:
        self.fabric, self.folder, self.state = fabric, folder, state
        self.sums: dict[str, Tensor] = {}
        self.metrics: list[dict[str, Any]] = []
        self.note: dict[str, str] = {}
        self.trackers: list[Tracker] = []
        self._restored: list[dict[str, Any]] = []

    @property
    def place(self) -> Path | None:
        """The run folder, in the process that writes into it."""
        return self.folder if self.fabric.is_global_zero else None

    def about(self, epoch: int) -> dict[str, Any]:
        """Return the identifying fields of a weights file."""
        return {"config": self.note, "epoch": epoch}

    def warn(self, text: str) -> None:
        """Log a warning, and keep it for the result."""
        if text not in self.state.warnings:
            self.state.warnings.append(text)
            if self.fabric.is_global_zero:
                log.warning(text)

    def add(self, values: Mapping[str, float]) -> None:
        """Add a step's terms and diagnostics to those of its epoch."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, torch.zeros((), dtype=torch.float64)) + value

    def means(self, steps: int) -> dict[str, float]:
        """Return the means of this epoch's terms and diagnostics over steps and processes, and begin anew."""
        sums, self.sums = self.sums, {}
        if self.fabric.world_size > 1:
            sums = cast(dict[str, Tensor], self.fabric.all_reduce(sums))
        return {name: float(total) / steps for name, total in sums.items()}

    def write(self, values: dict[str, Any]) -> None:
        """Append an epoch to metrics.jsonl, and give it to the trackers."""
        if self.place is not None:
            runs.append_jsonl(self.place / runs.METRICS, values)
            self.metrics.append(_without_seconds(values))
        self._track(values)

    @contextmanager
    def tracking(self, kinds: Iterable[type[Tracker]], settings: Mapping[str, Any]) -> Iterator[None]:
        """Give the restored epochs and those of this block to trackers; the first process does.

        A tracker that fails gets no more of them, with a warning, and the training goes on.

        Raises:
            RunError: if a tracker cannot begin.
        """
        finished = False
        if self.place is not None:
            self.trackers = open_trackers(kinds, TrackedRun(self.place, settings))
        try:
            for line in self._restored:
                self._track(line)
            yield
            finished = True
        finally:
            for tracker in self.trackers:
                try:
                    tracker.close(finished)
                except Exception as error:
                    self.warn(f"The tracker {tracker.name} did not end its run ({one_line(error)}).")

    def _track(self, values: Mapping[str, Any]) -> None:
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        for tracker in list(self.trackers):
            try:
                tracker.write(numbers, int(values["step"]))
            except Exception as error:
                self.trackers.remove(tracker)
                text = f"The tracker {tracker.name} failed at step {values['step']} ({one_line(error)}) and gets no"
                self.warn(f"{text} more epochs: {runs.METRICS} in the run folder has all of them.")

    def restore(self, sums: dict[str, Tensor], metrics: list[dict[str, Any]] | None) -> None:
        """Go back to a checkpoint: metrics.jsonl loses its later lines. None: the checkpoint holds no metrics."""
        assert self.folder is not None
        self.sums = sums
        lines = runs.read_jsonl(self.folder / runs.METRICS)
        earlier = [_without_seconds(line) for line in lines if line.get("step", 0) <= self.state.step]
        self.metrics = earlier if metrics is None else metrics
        self._restored = _restored(self.metrics, lines)
        if self.fabric.is_global_zero:
            runs.write_jsonl(self.folder / runs.METRICS, self._restored)


def _without_seconds(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "seconds"}


def _restored(metrics: Sequence[Mapping[str, Any]], lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl as they were written: those of the file, but for the damaged and later ones."""
    read = {line.get("step"): line for line in lines if not isinstance(line.get("step"), (list, dict))}
    restored = []
    for kept in metrics:
        line = read.get(kept["step"], {})
        restored.append(dict(line if _without_seconds(line) == kept else kept))
    return restored
