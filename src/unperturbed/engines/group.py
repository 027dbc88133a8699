"""The engine of a `torch.distributed` group: its processes share the units and meet in the files of the job."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from unperturbed.engines.base import Engine, R, Report, Unit
from unperturbed.engines.local import Local

log = logging.getLogger("unperturbed")


@dataclass(frozen=True)
class Group:
    """Executes every `workers`-th unit, beginning with that of this rank, and reads the results of the others."""

    rank: int
    workers: int

    def map(self, units: Sequence[Unit[R]], report: Report) -> Iterator[tuple[int, R]]:
        """Yield number and result of every unit; a unit that another process did not store is executed here.

        The reported progress assumes that the other processes are as fast.
        """
        meet()  # before a process finishes a unit that another one still counts as open
        share = units[self.rank :: self.workers]
        scale = sum(unit.size for unit in units) / max(sum(unit.size for unit in share), 1)
        yield from Local().map(share, lambda finished, text: report(scale * finished, text))
        meet()
        for unit in units:
            if unit in share:
                continue
            result = unit.result()
            if result is None:
                log.warning("Part %d of another process is missing: it is measured here.", unit.number)
            yield unit.number, unit.work(lambda finished, text: None) if result is None else result


def usual_engine() -> Engine:
    """Return the engine of this process's `torch.distributed` group, or that of a single process."""
    rank, workers = group()
    return Group(rank, workers) if workers > 1 else Local()


def group() -> tuple[int, int]:
    """Return the rank of this process in its group and the size of the group: 0 and 1 without a group."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if together else (0, 1)


def meet() -> None:
    """Wait until all processes of the group reach this barrier."""
    if group()[1] > 1:
        torch.distributed.barrier()
