"""The two kinds of errors: a wrong request (exit code 2), and a failure during work (exit code 1)."""

import difflib
from collections.abc import Iterable

MOST_NAMES = 20
"""The largest number of names in a message."""


class InputError(ValueError):
    """Wrong usage or bad input; the message gives the fault, the value and the remedy."""


class RunError(RuntimeError):
    """A failure during work; the message gives the cause, the saved files, and the command that resumes."""


class NotResumableError(RunError):
    """A failure after which the same command does not resume; the message gives the remedy."""


def hint(name: str, choices: Iterable[str]) -> str:
    """Return a sentence with the known name nearest to an unknown one, or with all names if none is near."""
    names = sorted(choices)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"Did you mean {near[0]!r}?"
    listed = ", ".join(names[:MOST_NAMES]) + ", ..." * (len(names) > MOST_NAMES)
    return f"Known are: {listed}." if names else "There are none."
