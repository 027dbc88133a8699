"""The two ways in which work stops: the request was wrong (exit code 2), or it failed on the way (exit code 1)."""

import difflib
from collections.abc import Iterable

MOST_NAMES = 20
"""Names that a message lists."""


class InputError(ValueError):
    """Wrong usage or bad input: the message says what was wrong, with the value, and what to do."""


class RunError(RuntimeError):
    """A failure on the way: the message says what happened, what is saved, and how to resume."""


class NotResumableError(RunError):
    """A failure after which the same command does not resume; the message says what does."""


def hint(name: str, known: Iterable[str]) -> str:
    """Return a sentence that points from an unknown name to the nearest known one, or to all where none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"Did you mean {near[0]!r}?"
    listed = ", ".join(names[:MOST_NAMES]) + ", ..." * (len(names) > MOST_NAMES)
    return f"Known are: {listed}." if names else "There are none."
