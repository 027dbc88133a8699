"""Trackio: a local database, shown by `trackio show`."""

import os
from collections.abc import Mapping
from typing import ClassVar

from unperturbed.trackers.base import PROJECT, TrackedRun, Tracker, flat


class Trackio(Tracker):
    """Trackio: a database on this machine (`trackio show`), or a Space of the hub by `TRACKIO_SPACE_ID`."""

    name: ClassVar[str] = "trackio"
    package: ClassVar[str] = "trackio"

    def __init__(self, run: TrackedRun) -> None:
        import trackio

        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        self.run = trackio.init(project=project, name=run.name, config=flat(run.settings), embed=False)

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Write the metrics of an epoch."""
        self.run.log({name: value for name, value in values.items() if name != "step"}, step=step)  # a reserved name

    def close(self, finished: bool) -> None:
        """Wait until everything is written."""
        self.run.finish()
