"""TensorBoard: event files in the run folder."""

import shutil
from collections.abc import Mapping
from typing import ClassVar

from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from unperturbed.trackers.base import TrackedRun, Tracker


class TensorBoard(Tracker):
    """Event files in the folder tensorboard/ of the run (`tensorboard --logdir RUN`)."""

    name: ClassVar[str] = "tensorboard"
    package: ClassVar[str] = "tensorboard"
    extra: ClassVar[str] = "tensorboard"

    def __init__(self, run: TrackedRun) -> None:
        shutil.rmtree(run.folder / "tensorboard", ignore_errors=True)
        self.logger = TensorBoardLogger(str(run.folder), name="tensorboard", version="")

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Write the metrics of an epoch."""
        self.logger.log_metrics(dict(values), step)
        self.logger.save()

    def close(self, finished: bool) -> None:
        """Write what is not written yet."""
        self.logger.finalize("success" if finished else "failed")
