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


def hint(name: str, choices: Iterable[str], unlisted: Iterable[str] = ()) -> str:
    """Return a sentence with the known names nearest to an unknown one, or with all names if none is near.

    A misspelt name is near one, and a part of a name, such as "apgd", near all that have this part. Unlisted names may
    be near, but are not among all names.
    """
    listed_names = sorted(choices)
    names = sorted({*listed_names, *unlisted})
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.88)
    whole = [part for part in names if len(name) > 2 and name.lower() in part.lower()]
    near = near or (whole if len(whole) <= 3 else []) or difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {' or '.join(map(repr, near))}?"
    listed = ", ".join(listed_names[:MOST_NAMES]) + (", ..." if len(listed_names) > MOST_NAMES else ".")
    return f"Known are: {listed}" if listed_names else "There are none."
