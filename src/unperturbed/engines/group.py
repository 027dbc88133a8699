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
    """Executes every `workers`-th unit here, beginning with that of this rank, and reads the results of the others."""

    rank: int
    workers: int

    def map(self, units: Sequence[Unit[R]], report: Report) -> Iterator[tuple[int, R]]:
        """Yield number and result of every unit; what another process was to store and did not is executed here.

        Progress is reported as if the other processes were as fast.
        """
        meet()  # before one of them finishes a unit that another one finds open
        share = units[self.rank :: self.workers]
        scale = sum(unit.size for unit in units) / max(sum(unit.size for unit in share), 1)
        yield from Local().map(share, lambda done, text: report(scale * done, text))
        meet()
        for unit in units:
            if unit in share:
                continue
            result = unit.result()
            if result is None:
                log.warning("Part %d of another process is missing: it is measured here.", unit.number)
            yield unit.number, unit.work(lambda done, text: None) if result is None else result


def usual_engine() -> Engine:
    """Return the engine of the `torch.distributed` group that this process is in, or that of a single process."""
    rank, workers = group()
    return Group(rank, workers) if workers > 1 else Local()


def group() -> tuple[int, int]:
    """Return the rank of this process in its group, and how many processes there are: 0 and 1 without a group."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if together else (0, 1)


def meet() -> None:
    """Wait until all the processes of the group have come here."""
    if group()[1] > 1:
        torch.distributed.barrier()
