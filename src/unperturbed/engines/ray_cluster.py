"""The connection to a Ray cluster, without reports on its use to anyone and without a dashboard."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from unperturbed.errors import InputError

NO_REPORTS = "RAY_USAGE_STATS_ENABLED"
"""The environment variable that switches Ray's reports to its makers off by the value 0."""
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""The environment variable by whose value 0 a cluster listens on the loopback address only (Ray's way on a desktop)."""


def library(address: str | None) -> Any:
    """Return the module `ray`; a cluster of this machine alone will listen on its loopback address.

    Raises:
        InputError: if it is not installed.
    """
    os.environ[NO_REPORTS] = "0"
    if address is None and "ray" not in sys.modules:
        os.environ.setdefault(LOOPBACK, "0")
    try:
        return import_module("ray")
    except ModuleNotFoundError as error:
        raise InputError("The engine ray needs the library Ray: pip install unperturbed[ray].") from error


def connected(address: str | None, cpus: int, gpus: int) -> Any:
    """Return the module `ray`, connected to the cluster of this address.

    Args:
        address: of the cluster; None: start one on this machine, which ends with this process.
        cpus: processors of that new cluster, which may be more than the machine has.
        gpus: GPUs of that new cluster.

    Raises:
        InputError: if no cluster answers.
    """
    ray = library(address)
    if ray.is_initialized():
        return ray
    with _signals_kept():
        if address is None:
            ray.init("local", num_cpus=cpus, num_gpus=gpus, include_dashboard=False, **QUIET)
            return ray
        try:
            ray.init(address, **QUIET)
        except Exception as error:  # errors of connections have many types
            raise InputError(
                f"No Ray cluster answers at the address {address!r} ({str(error).strip() or type(error).__name__}): "
                "start one by `ray start --head`, correct the address, or leave it out for a cluster of this machine."
            ) from error
    return ray


QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
"""Results carry the warnings of workers, so that their logs stay in Ray's folder."""


def room(address: str | None, cpus: int, gpus: int) -> int:
    """Return the number of workers that fit on the cluster (of this machine, without an address): at least one."""
    if address is None:
        has = {"CPU": float(_processors()), "GPU": float(_gpus())}
    else:
        has = connected(address, 0, 0).cluster_resources()
    needed = {"CPU": cpus, "GPU": gpus}
    return max(1, min(int(has.get(name, 0.0) // number) for name, number in needed.items() if number > 0))


def _processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Restore the handler of SIGTERM after this block: Ray replaces it by one that ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None:  # a handler from outside of Python
            signal.signal(signal.SIGTERM, before)
