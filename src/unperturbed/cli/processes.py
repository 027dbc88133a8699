"""A command that runs itself in several processes of one machine, which meet in one `torch.distributed` group."""

import os
import pickle
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeVar

import torch
from torch.multiprocessing.spawn import spawn

from unperturbed.cli.console import results_only_on_stdout
from unperturbed.errors import InputError, RunError
from unperturbed.runs import write_atomically
from unperturbed.training.prepare import find_device

T = TypeVar("T")
MOST = 8
"""Processes on the CPU that `auto` means at most: each holds network and data in memory."""
PATIENCE = timedelta(days=365)
"""One process may wait for another as long as that takes; one that fails ends the others."""


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
    if found.type != "cpu" and asked > there:
        raise InputError(f"--devices is {asked}, but with --device {device} there is only {there}: give fewer.")
    return asked


def own_device(device: str) -> str:
    """Return this process's device: of several GPUs its own, else the one asked for."""
    found = find_device(device)
    return f"cuda:{os.environ['LOCAL_RANK']}" if found.type == "cuda" and found.index is None else device


def together(number: int, work: Callable[..., T], *arguments: Any) -> T:
    """Return what `work` returns in the first of so many processes, which share the threads of this one.

    `work` is a function at the top of a module. What any of them raises ends the others and is raised here.
    """
    threads = max(1, torch.get_num_threads() // number)
    with TemporaryDirectory(prefix="unperturbed-") as folder:
        started = spawn(_one, (number, threads, folder, work, arguments), number, join=False)  # type: ignore[no-untyped-call]
        processes: list[SpawnProcess] = started.processes
        try:
            running = list(processes)
            while running and not any(process.exitcode for process in processes):
                wait([process.sentinel for process in running])
                running = [process for process in running if process.exitcode is None]
            if running:  # whoever was waiting for the one that failed may fail before that one has ended
                wait([process.sentinel for process in running], timeout=1.0)
            codes = {rank: process.exitcode for rank, process in enumerate(processes) if process.exitcode}
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.join()
        killed = [code for rank, code in codes.items() if not _failure(folder, rank).exists()]
        if killed:
            raise RunError(
                f"One of the processes ended on its own (exit code {killed[0]}; -9 is what a system sends where memory "
                "runs out)."
            )
        if codes:
            first = min((_failure(folder, rank) for rank in codes), key=lambda path: path.stat().st_mtime_ns)
            raise pickle.loads(first.read_bytes())
        result: T = pickle.loads((Path(folder) / "result").read_bytes())
        return result


def _one(rank: int, number: int, threads: int, folder: str, work: Callable[..., Any], arguments: Any) -> None:
    """Be one of the processes: leave in the folder what the first one returned, or what went wrong."""
    os.environ["LOCAL_RANK"] = str(rank)
    torch.set_num_threads(threads)
    try:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=number, timeout=PATIENCE
        )
        with results_only_on_stdout():
            result = work(*arguments)
        if rank == 0:
            _write(Path(folder) / "result", pickle.dumps(result))
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    except BaseException as error:
        _write(_failure(folder, rank), _pickled(error))
        sys.exit(1)


def _failure(folder: str, rank: int) -> Path:
    return Path(folder) / f"failure-{rank}"


def _pickled(error: BaseException) -> bytes:
    """Return the error as bytes, with a traceback where it is none of those that speak for themselves."""
    if not isinstance(error, (InputError, RunError, OSError, KeyboardInterrupt)):
        error.add_note("In one of the processes:\n" + "".join(traceback.format_exception(error)))
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
    except Exception:  # an exception of somebody else's, which does not say how it is made
        return pickle.dumps(RuntimeError("".join(traceback.format_exception(error))))
    return content


def _write(path: Path, content: bytes) -> None:
    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write)
