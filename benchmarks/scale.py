"""A large evaluation, simulated: the real driver and store, and workers that only wait.

One in a hundred units is computed here, on a tiny network, which is not counted, and the others hand over its states
and its part. On the simulated clock a unit takes a random time, and hands over a state after every attack. Only the
driver's work counts as it is: it keeps states and finishes units, one after the other, in seconds of the processor (not
of the disk), and a worker waits for it before its next unit. At some moments the folder is published to an object store
in memory.

    python benchmarks/scale.py --units 10000 --workers 500 --seconds 600 --out scale.json
"""

import argparse
import heapq
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.data.split import ArraySplit
from unperturbed.engines.base import R, Report, Unit
from unperturbed.evaluation import measurement
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.losses import cross_entropy, margin
from unperturbed.maximise.pgd import PGD
from unperturbed.storage.local_copy import LocalCopy
from unperturbed.storage.manifest import claim
from unperturbed.storage.object_store import ObjectStore
from unperturbed.storage.writer import Writer
from unperturbed.threat import Threat

ATTACKS = tuple(GradientAttack(f"PGD-{k}", (cross_entropy, margin)[k % 2], PGD(steps=1)) for k in range(4))
"""Four attacks in little, so that a unit hands over as many states as one under AutoAttack."""

COMPUTED = 100
"""One in so many units is computed."""


@dataclass
class Waiting:
    """An engine in this process whose workers wait on a simulated clock.

    Attributes:
        workers: their number.
        seconds: the mean time of a unit; single ones vary by a factor of about two.
        publications: numbers of finished units after which the folder is published.
        measured: what was measured.
    """

    workers: int
    seconds: float
    folder: Path
    publications: Sequence[int] = ()
    measured: dict[str, Any] = field(default_factory=dict)

    def map(self, units: Sequence[Unit[R]], report: Report) -> Iterator[tuple[int, R]]:
        """Yield number and result of every unit, in the order in which the simulated workers finish."""
        draw, waiting = random.Random(0), iter(units)
        spread = [draw.lognormvariate(0, 0.5) for _ in units]
        lengths = [self.seconds * value / statistics.fmean(spread) for value in spread]
        times = {"keep": list[float](), "finish": list[float]()}
        events: list[tuple[float, int, int, Any]] = []  # time, order, steps left, unit

        states, part = list[Any](), None

        def begin(now: float) -> None:
            nonlocal states, part
            unit = next(waiting, None)
            if unit is not None:
                if unit.number % COMPUTED == 0:
                    states = []
                    part = unit.compute(None, states.append, lambda *_: None)
                step = lengths[unit.number] / (len(states) + 1)
                heapq.heappush(events, (now + step, unit.number, len(states), (unit, part, states, step)))

        for _ in range(self.workers):
            begin(0.0)
        free, busy, done = 0.0, 0.0, 0
        while events:
            now, number, left, (unit, computed, kept, step) = heapq.heappop(events)
            began = time.thread_time()
            if left:
                unit.keep(kept[-left])
            else:
                computed = unit.finish(computed)
            taken = time.thread_time() - began
            free, busy = max(now, free) + taken, busy + taken
            times["keep" if left else "finish"].append(taken)
            if left:
                heapq.heappush(events, (now + step, number, left - 1, (unit, computed, kept, step)))
                continue
            begin(free)
            done += 1
            if done in self.publications:
                self._publish(done)
            yield number, computed
        if not done:
            return
        self.measured |= {
            "makespan": free,
            "ideal": sum(lengths) / self.workers,
            "driver's share": busy / free,
            **{f"{name}, ms": 1000 * statistics.fmean(taken) for name, taken in times.items()},
            **{f"{name}, last tenth, ms": 1000 * statistics.fmean(taken[-len(taken) // 10 :])
               for name, taken in times.items()},
        }  # fmt: skip

    def _publish(self, units: int) -> None:
        """Publish the folder twice: all of it, and the units that finish in five seconds."""
        store = ObjectStore(f"memory://bucket/{units}")
        with tempfile.TemporaryDirectory() as place:
            copy = LocalCopy(self.folder, Path(place) / "copy.json")
            before, manifest = claim(store)
            writer = Writer(store, copy, manifest, before, {})
            seconds = []
            for count in (0, round(5 * self.workers / self.seconds)):
                for part in sorted(self.folder.rglob("part-*.json"))[:count]:
                    part.write_text(part.read_text() + " ")
                began = time.process_time()
                writer.publish()
                seconds.append(time.process_time() - began)
            size = len(writer.manifest.encoded())
        self.measured[f"publication of {units} units"] = {
            "all, s": seconds[0],
            "changes, s": seconds[1],
            "manifest": size,
        }


def simulate(units: int, workers: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Return the times of a simulated evaluation of so many units."""
    torch.manual_seed(0)
    model, n = nn.Linear(4, 3), 5 * units
    split = ArraySplit(torch.rand(n, 4), torch.randint(0, 3, (n,)))
    measurement.BLOCK = 5
    engine = Waiting(workers, seconds, folder, (units // 10, units // 2, units))
    times = [time.process_time()]
    for _ in range(2):  # the second call finds all units finished
        evaluate(model, split, Threat("Linf", 0.05), Suite("little", ATTACKS, "a simulation"), out=folder,
                 batch_size=8, engine=engine)  # fmt: skip
        times.append(time.process_time())
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {"units": units, "workers": workers, "seconds of a unit": seconds, **engine.measured,
            "finished units read again, s": times[2] - times[1], "files": len(files),
            "bytes": sum(path.stat().st_size for path in files)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--units", type=int, default=10000)
    parser.add_argument("--workers", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        result = simulate(arguments.units, arguments.workers, arguments.seconds, Path(folder) / "run")
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
