"""The end of child processes."""

import os
import signal
import threading
import time
from functools import cache
from multiprocessing import parent_process
from multiprocessing.connection import wait

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals of a scheduler or a closed terminal."""

LOOK = 0.2
"""Seconds between two looks for the launcher."""


def end_with_parent() -> None:
    """End this process when its parent has ended for any reason, since no process waits for its result."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@cache
def end_with_launcher() -> None:
    """End this process when torchrun, which has started it, has ended for any reason, also by SIGKILL.

    Otherwise it would keep the lock of its run, and the same command could not resume.
    """
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(LOOK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
