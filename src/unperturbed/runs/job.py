"""A job: work with a separate folder, which the same call resumes.

The policy of resuming (docs/evaluating.md, "Resuming"): the same identity resumes; another one raises with the
differences in words, unless it may overwrite; if only the network's code differs, or the identity does not cover the
whole network, the job starts again.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from unperturbed.errors import InputError
from unperturbed.runs.lock import is_first_of_group, locked
from unperturbed.runs.verify import digest, read_object, read_sealed, write_sealed

log = logging.getLogger("unperturbed")
JOB = "job.json"
MARK = "job"
"""The entry of a job's files for the hash of its job.json."""
NETWORK = "network"
"""The entry of an identity for the network's function, besides its weights."""
UNDESCRIBED = "undescribed"
"""The entry of an identity that is set if another job may have the same identity."""


@dataclass(frozen=True)
class Job:
    """A job's folder; with `folder=None`, nothing is stored.

    Attributes:
        folder: of `job.json` and the job's files.
        noun: its noun in messages, such as "evaluation".
    """

    folder: Path | None
    noun: str = "evaluation"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the job in this block; in a group of processes, the first one holds the lock.

        Raises:
            InputError: if another process holds it.
        """
        if self.folder is None or not is_first_of_group():
            yield
            return
        with locked(self.folder):
            yield

    def claim(self, settings: Mapping[str, Any], overwrite: bool, clear: Callable[[], None]) -> dict[str, Any]:
        """Begin or resume a job; return its initial settings.

        Args:
            settings: `is_of` holds the identity, by name; a resumed job keeps the other settings (batch size, threads).
            overwrite: replace another job.
            clear: removes the files of an earlier job.

        Raises:
            InputError: if the folder holds another job, with the differences, unless `overwrite`.
        """
        begun = self.begun(settings, overwrite)
        if begun is not None:
            return begun
        if self.folder is None:
            return dict(settings)
        clear()
        (self.folder / JOB).unlink(missing_ok=True)
        write_sealed(self.folder / JOB, settings)
        return dict(settings)

    def begun(self, settings: Mapping[str, Any], overwrite: bool) -> dict[str, Any] | None:
        """Return the settings of this job from an earlier call; None if it is new.

        Raises:
            InputError: as `claim` does.
        """
        if self.folder is None:
            return None
        self._restore(settings)
        stored, differences = self._stored(settings)
        if stored is not None and not differences and UNDESCRIBED not in settings["is_of"]:
            return stored
        if differences and not overwrite and not self.is_outdated(settings):
            raise self._another(differences)
        return None

    def join(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of the job claimed by another process of the group.

        Raises:
            InputError: if the folder holds another job, or none.
        """
        if self.folder is None:
            return dict(settings)
        stored, differences = self._stored(settings)
        if stored is None or differences:
            raise self._another(differences or [f"{JOB} is missing"])
        return stored

    def is_outdated(self, settings: Mapping[str, Any]) -> bool:
        """Tell whether the folder holds this job for a network of other code, for example after an edit."""
        if self.folder is None or not (self.folder / JOB).exists():
            return False
        before = read_object(self.folder / JOB).get("is_of")
        if not isinstance(before, Mapping):
            return False
        return {name for name, value in settings["is_of"].items() if before.get(name) != value} == {NETWORK}

    def mark(self) -> str:
        """Return a hash of the job in the folder, for its files."""
        assert self.folder is not None
        path = self.folder / JOB
        try:
            status = path.stat()
        except OSError:
            return digest({})
        return _mark(path, status.st_mtime_ns, status.st_size, status.st_ino)

    def _stored(self, settings: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the job in the folder, or None, and its differences from this one."""
        assert self.folder is not None
        path = self.folder / JOB
        if not path.exists():
            return None, []
        stored, differences = read_sealed(path), _differences(read_object(path).get("is_of"), settings["is_of"])
        return stored, differences if stored or differences else [f"{JOB} is damaged"]

    def _restore(self, settings: Mapping[str, Any]) -> None:
        """Write job.json again if it is damaged or lost, and a finished part is of a job with these settings."""
        assert self.folder is not None
        path = self.folder / JOB
        parts = [] if read_sealed(path) else sorted(self.folder.glob("part-*.json"))
        if any(read_sealed(part).get(MARK) == digest(settings) for part in parts):
            log.warning("%s was damaged or lost. The finished parts are of the same job: it is written again.", path)
            write_sealed(path, settings)

    def _another(self, differences: Sequence[str]) -> InputError:
        return InputError(
            f"{self.folder} holds another {self.noun} ({'; '.join(differences)}): give another --out, or --overwrite."
        )


@lru_cache(maxsize=8)
def _mark(path: Path, *stamp: int) -> str:
    """Return the hash of a job.json with this stamp, which every file of every block asks for."""
    return digest(read_sealed(path))


def _differences(stored: Any, current: Mapping[str, Any]) -> list[str]:
    if not isinstance(stored, Mapping):
        return [f"{JOB} is damaged"]
    differ = [name for name, value in current.items() if stored.get(name) != value]
    if "suite" in differ:  # the suite's name says more than the settings of its attacks
        differ = [name for name in differ if not name.startswith("attacks")]
    return [f"{name} was {_short(stored.get(name))}, now {_short(current[name])}" for name in differ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:16]}..."
