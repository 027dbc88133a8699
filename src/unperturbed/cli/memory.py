"""What becomes of memory that is freed."""

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory() -> None:
    """Have this process keep the memory of freed tensors for the next ones, where the C library is glibc's.

    By default it gives the end of its heap back to the system whenever that is free, and the next forward waits for
    pages filled with zeros: up to half of the seconds of a search on the CPU, depending on what lies at the end.
    Tensors of more than 32 MiB are always fetched anew. Thresholds of the user's own stand.
    """
    own = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & os.environ.keys()
    if sys.platform != "linux" or own or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 2**25)  # the largest that there is
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
