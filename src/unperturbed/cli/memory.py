"""The reuse of freed memory."""

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory() -> None:
    """Keep the memory of freed tensors for later ones, with glibc.

    By default glibc returns the free end of its heap to the system, and the next forward waits for zeroed pages: up to
    half of a search's time on the CPU. Tensors of more than 32 MiB are always allocated anew. Thresholds set by the
    user are not changed.
    """
    user_settings = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & os.environ.keys()
    if sys.platform != "linux" or user_settings or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 2**25)  # the largest possible value
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
