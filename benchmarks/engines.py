"""The engine `ray` on this machine: two workers of one thread against one, and one against the engine `local`.

All evaluate the same examples, in turns; medians of the repeats are shown. The time of a cluster's engine is given with
the start of its workers and without it (from the first report of progress on); the overhead of the engine is that time
of one worker over the time of `local`, which works on the same single block. Run it on an otherwise idle machine of at
least two cores.

    python benchmarks/engines.py RUN [--suite standard] [--examples 500] [--repeats 3]
"""

import argparse
import statistics
import time

import torch

from unperturbed.data.split import select
from unperturbed.engines.base import Engine
from unperturbed.engines.local import Local
from unperturbed.engines.ray import Ray
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.training.run import Run


def seconds(run: Run, suite: str, examples: int, engine: Engine) -> tuple[float, float]:
    """Return the seconds of an evaluation, with and without the time before its first report of progress."""
    assert run.data.test is not None
    split = select(run.data.test, torch.arange(min(examples, len(run.data.test))))
    began, reports = time.perf_counter(), list[float]()
    evaluate(run.model, split, run.threat, suite, engine=engine,
             progress=lambda *_: reports.append(time.perf_counter()))  # fmt: skip
    ended = time.perf_counter()
    return ended - began, ended - (reports[0] if reports else began)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--suite", default="standard")
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run, times = Run.open(arguments.run), dict[str, list[tuple[float, float]]]()
    engines = {"ray, 2 workers": Ray(workers=2), "ray, 1 worker": Ray(workers=1), "local": Local()}
    for _ in range(arguments.repeats):  # the first engine starts a cluster with room for all
        for name, engine in engines.items():
            times.setdefault(name, []).append(seconds(run, arguments.suite, arguments.examples, engine))
    whole, working = ({name: statistics.median(pair[part] for pair in pairs) for name, pairs in times.items()}
                      for part in (0, 1))  # fmt: skip
    for name in engines:
        print(f"{name:16} {whole[name]:8.1f} s, without the start {working[name]:8.1f} s")
    for title, medians in (("with the start of workers", whole), ("without it", working)):
        print(f"2 workers against 1, {title}: {medians['ray, 1 worker'] / medians['ray, 2 workers']:.2f} times as fast")
    print(f"overhead of a block: {working['ray, 1 worker'] / working['local'] - 1:+.1%}")


if __name__ == "__main__":
    main()
