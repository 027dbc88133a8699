"""A job: a piece of work in a separate folder, which the same call resumes.

One policy for everything that is resumed (docs/evaluating.md, "Resuming"): the same identity resumes, another one is
refused with the differences in words unless it may overwrite, and one whose network alone computes something else, or
that holds what cannot be described, begins anew.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unperturbed.errors import InputError
from unperturbed.runs.lock import is_first_of_group, locked
from unperturbed.runs.verify import digest, read_object, read_sealed, write_sealed

JOB = "job.json"
NETWORK = "network"
"""The part of an identity that says what a network computes, in addition to its weights."""
UNDESCRIBED = "undescribed"
"""The part of an identity that is there where another piece of work may look the same."""


@dataclass(frozen=True)
class Job:
    """A job's folder; with `folder=None`, nothing is stored.

    Attributes:
        folder: where `job.json` lies, and what the job writes.
        noun: what it is, in messages: "evaluation".
    """

    folder: Path | None
    noun: str = "evaluation"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within: no other command works on this job; of the processes of a group, the first one holds the lock.

        Raises:
            InputError: where another process holds it.
        """
        if self.folder is None or not is_first_of_group():
            yield
            return
        with locked(self.folder):
            yield

    def claim(self, settings: Mapping[str, Any], overwrite: bool, clear: Callable[[], None]) -> dict[str, Any]:
        """Begin or resume a job; return its settings as they were when it was begun.

        Args:
            settings: `is_of` holds the identity, by name; the others (batch size, threads) are kept by a resumed job.
            overwrite: replace another job.
            clear: removes what an earlier job has written.

        Raises:
            InputError: where the folder holds another job, with the differences, unless that may be overwritten.
        """
        if self.folder is None:
            return dict(settings)
        begun, differences = self._stored(settings)
        if begun is not None and not differences and UNDESCRIBED not in settings["is_of"]:
            return begun
        if differences and not overwrite and not self.is_outdated(settings):
            raise self._another(differences)
        clear()
        (self.folder / JOB).unlink(missing_ok=True)
        write_sealed(self.folder / JOB, settings)
        return dict(settings)

    def join(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of the job that another process of the group has claimed.

        Raises:
            InputError: where the folder holds another job, or none.
        """
        if self.folder is None:
            return dict(settings)
        begun, differences = self._stored(settings)
        if begun is None or differences:
            raise self._another(differences or [f"{JOB} is missing"])
        return begun

    def is_outdated(self, settings: Mapping[str, Any]) -> bool:
        """Return whether the folder holds this job except for what the network computes: its code was edited, say."""
        if self.folder is None or not (self.folder / JOB).exists():
            return False
        before = read_object(self.folder / JOB).get("is_of")
        if not isinstance(before, Mapping):
            return False
        return {name for name, value in settings["is_of"].items() if before.get(name) != value} == {NETWORK}

    def mark(self) -> str:
        """Return a hash of the job in the folder, for the files that belong to it."""
        assert self.folder is not None
        return digest(read_sealed(self.folder / JOB))

    def _stored(self, settings: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the job in the folder, None without one, and how it differs from this one."""
        assert self.folder is not None
        path = self.folder / JOB
        if not path.exists():
            return None, []
        begun, differences = read_sealed(path), _differences(read_object(path).get("is_of"), settings["is_of"])
        return begun, differences if begun or differences else [f"{JOB} is damaged"]

    def _another(self, differences: Sequence[str]) -> InputError:
        return InputError(
            f"{self.folder} holds another {self.noun} ({'; '.join(differences)}): give another --out, or --overwrite."
        )


def _differences(stored: Any, now: Mapping[str, Any]) -> list[str]:
    if not isinstance(stored, Mapping):
        return [f"{JOB} is damaged"]
    differ = [name for name, value in now.items() if stored.get(name) != value]
    if "suite" in differ:  # whose name says more than the settings of its attacks
        differ = [name for name in differ if not name.startswith("attacks")]
    return [f"{name} was {_short(stored.get(name))}, now {_short(now[name])}" for name in differ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:16]}..."
