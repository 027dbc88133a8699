"""A file that keeps what a job has computed: the same job reads it, and any other one begins anew."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from unperturbed.runs.verify import read_sealed, write_sealed

log = logging.getLogger("unperturbed")
_OF = "of"
T = TypeVar("T")


@dataclass(frozen=True)
class Kept:
    """Values of a job in a file.

    Attributes:
        file: a JSON file; None: nothing is kept.
        identity: what the values depend on, by name.
    """

    file: Path | None
    identity: Mapping[str, Any]

    def read(self) -> dict[str, Any]:
        """Return the values that the same job has written; none of another job, or from a damaged file."""
        values = {} if self.file is None else read_sealed(self.file)
        return values if values.pop(_OF, None) == dict(self.identity) else {}

    def read_as(self, read: Callable[[Mapping[str, Any]], T]) -> T | None:
        """Return what `read` makes of the stored values; None without any, and with a warning where they do not fit.

        `read` raises TypeError, ValueError, LookupError or AttributeError for values of other types than it expects.
        """
        values = self.read()
        if not values:
            return None
        try:
            return read(values)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            log.warning("%s holds values that do not fit (%s): they are computed again.", self.file, error)
            return None

    def write(self, **values: Any) -> None:
        """Keep these values in place of what was kept before."""
        if self.file is not None:
            write_sealed(self.file, {_OF: dict(self.identity), **values})
