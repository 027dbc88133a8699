"""Processes that tests start and kill."""

from pathlib import Path


def is_running(process: int) -> bool:
    """Tell whether a process runs, by Linux's /proc; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
