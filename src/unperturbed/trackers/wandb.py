"""Weights & Biases."""

import os
from collections.abc import Mapping
from typing import ClassVar

from unperturbed.trackers.base import PROJECT, TrackedRun, Tracker


class Wandb(Tracker):
    """Weights & Biases (`WANDB_MODE=offline` writes files into the run folder only)."""

    name: ClassVar[str] = "wandb"
    package: ClassVar[str] = "wandb"

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            dir=str(run.folder),
            config=dict(run.settings),
            reinit="create_new",
        )

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Write the metrics of an epoch."""
        self.run.log(dict(values), step=step)

    def close(self, finished: bool) -> None:
        """End the run, as failed unless it has finished."""
        self.run.finish(exit_code=0 if finished else 1)
