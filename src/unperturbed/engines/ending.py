"""The end of child processes."""

import os
import signal
import threading
from multiprocessing import parent_process
from multiprocessing.connection import wait

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals of a scheduler or a closed terminal."""


def end_with_parent() -> None:
    """End this process when its parent has ended for any reason, since no process waits for its result."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
