"""The two ways in which work stops: the request was wrong (exit code 2), or it failed on the way (exit code 1)."""


class InputError(ValueError):
    """Wrong usage or bad input: the message says what was wrong, with the value, and what to do."""


class RunError(RuntimeError):
    """A failure on the way: the message says what happened, what is saved, and how to resume."""


class NotResumableError(RunError):
    """A failure after which the same command does not resume; the message says what does."""
