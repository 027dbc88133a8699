"""The interface of trackers, and their making by name."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from unperturbed.catalogue import listing
from unperturbed.errors import InputError, RunError, hint

PROJECT = "unperturbed"
"""The project, or experiment, of runs in trackers that sort them."""


@dataclass(frozen=True)
class TrackedRun:
    """The description of a run that a tracker receives.

    Attributes:
        folder: the run folder.
        settings: the content of its config.yaml.
    """

    folder: Path
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of the run in a tracker: that of its folder."""
        return self.folder.resolve().name


class Tracker(ABC):
    """A tracker: made when the training begins, and closed when it ends.

    A training that resumes makes the tracker anew, and gives it all epochs again.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    """The package that it needs."""
    extra: ClassVar[str] = "track"
    """The extra that installs it."""

    @abstractmethod
    def __init__(self, run: TrackedRun) -> None:
        """Begin a run in the tracker."""

    @abstractmethod
    def write(self, values: Mapping[str, float], step: int) -> None:
        """Write the metrics of an epoch that ended after `step` optimisation steps."""

    @abstractmethod
    def close(self, finished: bool) -> None:
        """End the run in the tracker; `finished` tells whether the training came to its end."""


def find_trackers(names: Sequence[str], folder: Path | None) -> list[type[Tracker]]:
    """Return the classes of trackers by name.

    Raises:
        InputError: for an unknown name, without a run folder, and where a tracker's package is not installed.
    """
    entries, classes = listing("trackers"), list[type[Tracker]]()
    for name in dict.fromkeys(names):
        if name not in entries:
            raise InputError(f"--track: there is no tracker {name!r}. {hint(str(name), entries)}")
        module, _, variable = entries[name].path.rpartition(".")
        kind: type[Tracker] = getattr(import_module(module), variable)
        if find_spec(kind.package) is None:
            raise InputError(
                f"--track {name} needs the package {kind.package}, which is not installed: pip install "
                f"'unperturbed[{kind.extra}]'."
            )
        classes.append(kind)
    if classes and folder is None:
        raise InputError("A tracked training needs a run folder: give one (--out).")
    return classes


def open_trackers(kinds: Iterable[type[Tracker]], run: TrackedRun) -> list[Tracker]:
    """Return trackers that have begun a run.

    Raises:
        RunError: if one of them cannot begin; those before it are closed.
    """
    trackers = list[Tracker]()
    for kind in kinds:
        try:
            trackers.append(kind(run))
        except Exception as error:
            for tracker in trackers:
                tracker.close(finished=False)
            raise RunError(
                f"--track {kind.name}: the tracker cannot begin a run ({one_line(error)}). Log in to it, or set it to "
                "work offline (docs/sharing.md), or leave it out."
            ) from error
    return trackers


def one_line(error: Exception) -> str:
    """Return an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names."""
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value
    return values
