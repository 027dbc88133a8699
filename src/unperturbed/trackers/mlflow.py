"""MLflow."""

import os
import time
from collections.abc import Mapping
from typing import ClassVar

from unperturbed.trackers.base import PROJECT, TrackedRun, Tracker, flat

LONGEST = 500
"""The largest length of a parameter's text that every kind of store takes."""
AT_ONCE = 100
"""The largest number of parameters in one request."""


class MLflow(Tracker):
    """MLflow, at the server or store of `MLFLOW_TRACKING_URI` (by default, files in the current folder)."""

    name: ClassVar[str] = "mlflow"
    package: ClassVar[str] = "mlflow"

    def __init__(self, run: TrackedRun) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self.client = MlflowClient()
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self.client.get_experiment_by_name(experiment)
        identity = self.client.create_experiment(experiment) if known is None else known.experiment_id
        self.identity: str = self.client.create_run(identity, run_name=run.name).info.run_id
        params = [Param(key, str(value)[:LONGEST]) for key, value in flat(run.settings).items()]
        for start in range(0, len(params), AT_ONCE):
            self.client.log_batch(self.identity, params=params[start : start + AT_ONCE])

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Write the metrics of an epoch."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self.client.log_batch(self.identity, [Metric(name, value, now, step) for name, value in values.items()])

    def close(self, finished: bool) -> None:
        """End the run, as failed unless it has finished."""
        self.client.set_terminated(self.identity, "FINISHED" if finished else "FAILED")
