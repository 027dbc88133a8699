"""A table in the run folder: csv/metrics.csv."""

import shutil
from collections.abc import Mapping
from typing import ClassVar

from lightning_fabric.loggers.csv_logs import CSVLogger

from unperturbed.trackers.base import TrackedRun, Tracker


class CsvFile(Tracker):
    """A table csv/metrics.csv in the run folder, one row an epoch."""

    name: ClassVar[str] = "csv"
    package: ClassVar[str] = "lightning_fabric"

    def __init__(self, run: TrackedRun) -> None:
        shutil.rmtree(run.folder / "csv", ignore_errors=True)
        self.logger = CSVLogger(str(run.folder), name="csv", version="")

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Write the metrics of an epoch."""
        self.logger.log_metrics(dict(values), step)
        self.logger.save()

    def close(self, finished: bool) -> None:
        """Write what is not written yet."""
        self.logger.save()
