"""The end of a process that others started or wait for."""

import os
import signal
import threading
from multiprocessing import parent_process
from multiprocessing.connection import wait

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What a scheduler or a closed terminal sends."""


def end_with_parent() -> None:
    """End this process once the one that started it has ended, however that was: nobody would wait for its result."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
