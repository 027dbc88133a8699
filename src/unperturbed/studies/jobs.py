"""An engine of several processes on this machine, for runs that are independent of each other."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import torch

from unperturbed.engines.base import R, Report, Unit
from unperturbed.errors import RunError


@dataclass(frozen=True)
class Processes:
    """Executes units in processes of one thread each; units and results must be picklable.

    Attributes:
        workers: number of processes.
    """

    workers: int
    threads: int = 1

    def map(self, units: Sequence[Unit[R]], report: Report) -> Iterator[tuple[int, R]]:
        """Yield number and result of every unit, in the order in which they end."""
        context, others = multiprocessing.get_context("spawn"), {*multiprocessing.active_children()}
        finished = 0
        with ProcessPoolExecutor(self.workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            waiting = {pool.submit(_computed, unit): unit for unit in units}
            try:
                while waiting:
                    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                        unit = waiting.pop(future)
                        result = unit.finish(future.result())
                        finished += unit.size
                        report(finished, "")
                        yield unit.number, result
            except BrokenProcessPool as error:
                raise RunError(
                    "A process ended before its run did, perhaps for lack of memory: run the same command with fewer "
                    "--jobs."
                ) from error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in {*multiprocessing.active_children()} - others:
                    process.terminate()  # its run resumes
                raise


def _computed(unit: Unit[R]) -> R:
    """Return the result of a unit, without its report."""
    return unit.compute(None, _forget, _silent)


def _forget(state: object) -> None:
    """Store no state: runs resume by the files of their folder."""


def _silent(share: float, text: str) -> None:
    """Report nothing."""
