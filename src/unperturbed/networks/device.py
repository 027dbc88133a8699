"""Devices by name, and how many of them a job may use."""

import os
from typing import Literal

import torch

from unperturbed.errors import InputError

MOST_PROCESSES = 8
"""On the CPU, or as many as there are cores, where that is more: each holds network and data in memory."""
MOST = 8
"""Processes on the CPU that `auto` means at most: each holds network and data in memory."""


def check_devices(number: int, device: torch.device) -> None:
    """Raise InputError for more processes than a machine can bear, before any of them is started."""
    if number < 1:
        raise InputError(f"devices is {number}, but a run takes at least 1.")
    cores = os.cpu_count() or 1
    most = max(MOST_PROCESSES, cores) if device.type == "cpu" else torch.cuda.device_count()
    if device.index is None and device.type != "mps" and number > most:
        there = f"{cores} cores" if device.type == "cpu" else f"{most} GPUs"
        raise InputError(f"--devices is {number}, but this machine has {there}: give {most} at most.")


def find_device(device: str) -> torch.device:
    """Return the device of this name; "auto" prefers cuda to mps to cpu.

    Raises:
        InputError: if this machine has no such device.
    """
    name = device.partition(":")[0]
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if there[name]))
    if not there.get(name, False) or (name != "cuda" and device != name):
        raise InputError(
            f"There is no device {device!r} here; there is: {', '.join(k for k, v in there.items() if v)}."
        )
    chosen = torch.device(device)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"There is no device {device!r} here; there are {torch.cuda.device_count()} CUDA devices.")
    return chosen


def number_of_devices(asked: int | Literal["auto"], device: str) -> int:
    """Return how many devices (on the CPU: processes) are meant; "auto": every GPU, or a process for each thread.

    Raises:
        InputError: if there are not so many.
    """
    found = find_device(device)
    there = torch.cuda.device_count() if found.type == "cuda" and found.index is None else 1
    if asked == "auto":
        return min(torch.get_num_threads(), MOST) if found.type == "cpu" else there
    if asked < 1:
        raise InputError(f"--devices is {asked}, but it takes at least 1.")
    if found.type == "cpu":
        check_devices(asked, found)
    if found.type != "cpu" and asked > there:
        raise InputError(f"--devices is {asked}, but with --device {device} there is only {there}: give fewer.")
    return asked


def own_device(device: str) -> str:
    """Return this process's device: of several GPUs its own, else the one asked for."""
    found = find_device(device)
    return f"cuda:{os.environ['LOCAL_RANK']}" if found.type == "cuda" and found.index is None else device
