"""Devices by name, and their number for a job."""

import os
from typing import Literal

import torch

from unperturbed.errors import InputError

MOST_PROCESSES = 8
"""The limit on the CPU, or the number of cores if larger: every process holds network and data in memory."""
MOST = 8
"""The largest number of processes on the CPU for `auto`: every process holds network and data in memory."""


def check_devices(number: int, device: torch.device) -> None:
    """Raise InputError for more processes than the machine supports, before one starts."""
    if number < 1:
        raise InputError(f"devices is {number}, but a run takes at least 1.")
    cores = os.cpu_count() or 1
    limit = max(MOST_PROCESSES, cores) if device.type == "cpu" else torch.cuda.device_count()
    if device.index is None and device.type != "mps" and number > limit:
        equipment = f"{cores} cores" if device.type == "cpu" else f"{limit} GPUs"
        raise InputError(f"--devices is {number}, but this machine has {equipment}: give {limit} at most.")


def pins(device: torch.device) -> bool:
    """Tell whether batches are copied to the device from pinned memory, while the device computes: on CUDA only."""
    return device.type == "cuda"


def find_device(device: str) -> torch.device:
    """Return the device of this name; "auto" prefers cuda to mps to cpu.

    Raises:
        InputError: if this machine has no such device.
    """
    name = device.partition(":")[0]
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if available[name]))
    if not available.get(name, False) or (name != "cuda" and device != name):
        raise InputError(
            f"This machine has no device {device!r}, but it has {', '.join(k for k, v in available.items() if v)}."
        )
    chosen = torch.device(device)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"This machine has no device {device!r}; it has {torch.cuda.device_count()} CUDA devices.")
    return chosen


def number_of_devices(number: int | Literal["auto"], device: str) -> int:
    """Return the number of devices (on the CPU: processes); "auto": every GPU, or one process per thread.

    Raises:
        InputError: if the machine has fewer.
    """
    chosen = find_device(device)
    available = torch.cuda.device_count() if chosen.type == "cuda" and chosen.index is None else 1
    if number == "auto":
        return min(torch.get_num_threads(), MOST) if chosen.type == "cpu" else available
    if number < 1:
        raise InputError(f"--devices is {number}, but it takes at least 1.")
    if chosen.type == "cpu":
        check_devices(number, chosen)
    if chosen.type != "cpu" and number > available:
        raise InputError(f"--devices is {number}, but with --device {device} there is only {available}: give fewer.")
    return number


def own_device(device: str) -> str:
    """Return this process's device: its GPU of several, else the requested one."""
    chosen = find_device(device)
    return f"cuda:{os.environ['LOCAL_RANK']}" if chosen.type == "cuda" and chosen.index is None else device
