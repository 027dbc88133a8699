"""The journal of a run: the means of every epoch, warnings, metrics.jsonl and the loggers."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.csv_logs import CSVLogger
from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from torch import Tensor

from unperturbed import runs
from unperturbed.errors import InputError
from unperturbed.training.state import State

log = logging.getLogger("unperturbed")


class Journal:
    """The writer of a run's metrics and warnings.

    Attributes:
        sums: of this epoch's terms and diagnostics over this process's steps.
        metrics: of every epoch, as in metrics.jsonl, without the time.
        note: the fields that identify the run in its files.
    """

    def __init__(self, fabric: Fabric, folder: Path | None, state: State) -> None:
        self.fabric, self.folder, self.state = fabric, folder, state
        self.sums: dict[str, Tensor] = {}
        self.metrics: list[dict[str, Any]] = []
        self.note: dict[str, str] = {}

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
        """Append an epoch to metrics.jsonl and to the loggers."""
        if self.place is not None:
            runs.append_jsonl(self.place / runs.METRICS, values)
            self.metrics.append(_without_seconds(values))
        self.fabric.log_dict(values, step=values["step"])
        for logger in self.fabric.loggers:
            logger.save()

    def restore(self, sums: dict[str, Tensor], metrics: list[dict[str, Any]] | None) -> None:
        """Go back to a checkpoint: metrics.jsonl loses its later lines. None: the checkpoint holds no metrics."""
        assert self.folder is not None
        self.sums = sums
        lines = runs.read_jsonl(self.folder / runs.METRICS)
        earlier = [_without_seconds(line) for line in lines if line.get("step", 0) <= self.state.step]
        self.metrics = earlier if metrics is None else metrics
        lines = _restored(self.metrics, lines)
        if self.fabric.is_global_zero:
            runs.write_jsonl(self.folder / runs.METRICS, lines)
            for logger in self.fabric.loggers:  # they get every epoch a second time
                shutil.rmtree(self.folder / str(logger.name), ignore_errors=True)
        for line in lines:
            self.fabric.log_dict(line, step=line["step"])


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


def make_loggers(names: Sequence[str], folder: Path | None) -> list[Logger]:
    """Return the loggers of these names, which write into the run folder; raises InputError where there is none."""
    if names and folder is None:
        raise InputError("Loggers write into the run folder: give one (--out).")
    unknown = set(names) - {"csv", "tensorboard"}
    if unknown:
        raise InputError(f"There is no logger {sorted(unknown)[0]!r}; there are csv and tensorboard.")
    made: list[Logger] = []
    if "csv" in names:
        made.append(CSVLogger(str(folder), name="csv", version=""))
    if "tensorboard" in names:
        made.append(TensorBoardLogger(str(folder), name="tensorboard", version=""))
    return made
