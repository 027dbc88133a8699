"""Work shared by several processes of one machine, in a `torch.distributed` group."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from copy import copy
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast

import torch

from unperturbed.engines.ending import ENDING, end_with_parent
from unperturbed.errors import InputError, RunError
from unperturbed.processor import workers_round_rows_alike

T = TypeVar("T")
PATIENCE = timedelta(days=365)
"""The time limit for waiting on another process: none in practice, since a failing process ends the others."""


def together(number: int, work: Callable[..., T], *arguments: Any) -> T:
    """Return the result of `work` in the first of `number` processes, which share the threads of this one.

    `work` is a function at the top of a module. An error in one process ends the others and is raised here.
    """
    threads, context = max(1, torch.get_num_threads() // number), get_context("spawn")
    with TemporaryDirectory(prefix="unperturbed-") as folder, workers_round_rows_alike():
        readers, processes = list[Connection](), list[SpawnProcess]()
        try:
            for rank in range(number):
                reader, writer = context.Pipe(duplex=False)
                processes.append(
                    context.Process(target=_one, args=(rank, number, threads, folder, writer, work, arguments))
                )
                processes[-1].start()
                writer.close()  # so that a process that ends silently closes the last connection
                readers.append(reader)
            return cast(T, _first_result(readers, processes))
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.join()


def _first_result(readers: list[Connection], processes: list[SpawnProcess]) -> Any:
    """Return the result of the first process once all have ended; raise the error of any process."""
    waiting, first = list(readers), None
    while waiting:
        for reader in wait(waiting):
            assert isinstance(reader, Connection)
            waiting.remove(reader)
            try:
                failed, value = reader.recv()
            except EOFError:
                raise _silent(readers.index(reader), processes) from None
            if failed:
                raise _cause(value, readers, waiting, processes)
            first = value if reader is readers[0] else first
    return first


def _cause(
    failure: BaseException, readers: list[Connection], silent: list[Connection], processes: list[SpawnProcess]
) -> BaseException:
    """Return a failure, or the silent end of another process, which the failing one may have waited for."""
    for reader in wait(silent, timeout=1.0) if silent else ():
        assert isinstance(reader, Connection)
        try:
            reader.recv()
        except EOFError:
            return _silent(readers.index(reader), processes)
    return failure


def _silent(rank: int, processes: list[SpawnProcess]) -> RunError:
    processes[rank].join(1.0)
    code = processes[rank].exitcode or 0
    by_request = -code in ENDING
    how = (
        f"was ended by {signal.Signals(-code).name}"
        if by_request
        else "ended without a message: perhaps memory ran out"
    )
    return RunError(f"Process {rank + 1} of {len(processes)} {how}.")


def _one(
    rank: int, number: int, threads: int, folder: str, writer: Connection, work: Callable[..., Any], arguments: Any
) -> None:
    """Run as one of the processes: send the result, or the error."""
    os.environ["LOCAL_RANK"] = str(rank)
    end_with_parent()
    torch.set_num_threads(threads)
    try:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=number, timeout=PATIENCE
        )
        result = work(*arguments)
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        writer.send((False, result if rank == 0 else None))
    except BaseException as error:
        writer.send((True, _sendable(error)))
        sys.exit(1)


def _sendable(error: BaseException) -> BaseException:
    """Return the error in a form for another process, with a traceback unless the message suffices."""
    if not isinstance(error, (InputError, RunError, OSError, KeyboardInterrupt)):
        error.add_note("In one of the processes:\n" + "".join(traceback.format_exception(error)))
    try:
        ForkingPickler.dumps(error)
        copy(error)  # can be rebuilt in the other process
    except Exception:  # a foreign exception, which may not be picklable
        return RuntimeError("".join(traceback.format_exception(error)))
    return error
