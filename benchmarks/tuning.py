"""Tuned steps and evaluations against untuned ones, and against the steps written plainly.

Every side runs in this process, in turn; the seconds are those of this process's thread, which other work on the same
processor hardly lengthens. Limits of the instruction set make a processor without bfloat16 of any:

    OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/tuning.py steps [--seconds 300]
    OMP_NUM_THREADS=1 python benchmarks/tuning.py evaluation RUN DATA [--examples 32] [--suite standard]
"""

import argparse
import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from geometry_steps import plain_llr
from lightning_fabric import Fabric
from torch import nn
from training_step import plain_step

from unperturbed.architectures.preact_resnet import PreActResNet
from unperturbed.architectures.small_cnn import SmallCNN
from unperturbed.data.convert import as_data
from unperturbed.data.sources import load_data
from unperturbed.data.split import select
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method
from unperturbed.methods.llr import LLR
from unperturbed.networks.precision import choose
from unperturbed.networks.settings import Tuning
from unperturbed.threat import Threat
from unperturbed.training.engine import Engine
from unperturbed.training.prepare import prepare
from unperturbed.training.recipe import Recipe
from unperturbed.training.run import Run
from unperturbed.training.tuning import tune_training
from unperturbed.types import Batch

SIZE = 128


def made(make: Callable[[], nn.Module], shape: tuple[int, ...], eps: float, method: Method, seconds: float) -> Engine:
    """Return the engine of a run on noise of this shape, tuned for so many seconds; 0: not tuned."""
    torch.manual_seed(0)
    network, threat = make(), Threat("Linf", eps)
    recipe = Recipe(batch_size=SIZE, validation=0.0, optimiser="sgd", lr=0.01, tune=seconds or "off")
    fabric = Fabric(accelerator="cpu", devices=1)
    data = as_data((torch.rand(2 * SIZE, *shape), torch.arange(2 * SIZE) % 10))
    examples = prepare(network, data, None, threat, recipe, fabric)
    ruled = choose("auto", network, torch.device("cpu"))
    engine = Engine(fabric, network, network, examples, threat, method, recipe, ruled)
    if seconds == 0:
        return engine
    tuned = tune_training(engine)
    return Engine(fabric, network, network, examples, threat, method, recipe, tuned.way)


def step_of(engine: Engine) -> Callable[[], object]:
    """Return a step of a run, at full radius."""
    ids, x, y = engine.batches.load(0)
    engine.wrapped.train()
    return lambda: engine.step(engine.steps - 1, ids, x, y)


def compared(title: str, steps: dict[str, Callable[[], object]], repeats: int) -> None:
    """Print the median seconds of each step, and the first one's over it."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):  # the first round is set-up
        for name, step in steps.items():
            began = time.process_time()
            step()
            seconds[name] += [time.process_time() - began] if repeat else []
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    first = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"{title:26}{name:9}{median * 1e3:8.1f} ms{first / median:7.2f} times as fast", flush=True)


def steps(seconds: float, repeats: int, only: str) -> None:
    """Compare training steps."""

    def wide() -> nn.Module:
        return PreActResNet(width=16)

    def smooth() -> nn.Module:
        return PreActResNet(width=16, activation="silu")

    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(SIZE, 3, 32, 32, generator=generator), torch.randint(10, (SIZE,), generator=generator)
    batch = Batch(x, y, torch.arange(SIZE))
    cases = {
        "at-10, preact-resnet": (wide, (3, 32, 32), 8 / 255, AT(PGD(steps=10)), lambda: plain_step(16, batch)),
        "llr-2 by differences": (smooth, (3, 32, 32), 8 / 255, LLR(form="differences"), plain_llr),
        "at-10, small-cnn": (SmallCNN, (1, 28, 28), 0.3, AT(PGD(steps=10)), None),
    }
    for title, (make, shape, eps, method, plain) in cases.items():
        if only not in title:
            continue
        sides: dict[str, Callable[[], object]] = {} if plain is None else {"plain": plain()}
        sides["untuned"] = step_of(made(make, shape, eps, method, 0.0))
        sides["tuned"] = step_of(made(make, shape, eps, method, seconds))
        compared(title, sides, repeats)


def evaluation(run: str, place: str, n: int, suite: str, tuning: Tuning) -> None:
    """Compare evaluations: seconds, and the examples that stand."""
    opened, data = Run.open(run), load_data(place)
    assert data.test is not None
    split = select(data.test, torch.arange(n))
    seconds = {}
    for name, choice in {"untuned": Tuning(), "tuned": tuning}.items():
        began = time.process_time()
        outcome = evaluate(opened.model, split, opened.threat, suite, tuning=choice)
        seconds[name] = time.process_time() - began
        print(f"{suite}, {name}: {seconds[name]:.1f} s, {outcome.counts}", flush=True)
        for record in outcome.attacks:
            print(f"  {record.name:12}{record.forwards:9} forwards", flush=True)
    print(f"{seconds['untuned'] / seconds['tuned']:.2f} times as fast", flush=True)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("kind", choices=("steps", "evaluation"))
    options.add_argument("run", nargs="?")
    options.add_argument("data", nargs="?")
    options.add_argument("--seconds", type=float, default=300.0)
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--only", default="", help="steps with this in their names")
    options.add_argument("--examples", type=int, default=32)
    options.add_argument("--suite", default="standard")
    options.add_argument("--layout", default="", help="by hand in place of a measurement")
    arguments = options.parse_args()
    if arguments.kind == "steps":
        return steps(arguments.seconds, arguments.repeats, arguments.only)
    tuning = Tuning(arguments.seconds)
    evaluation(
        arguments.run, arguments.data, arguments.examples, arguments.suite,
        replace(Tuning(), layout=arguments.layout) if arguments.layout else tuning,
    )  # fmt: skip
    return None


if __name__ == "__main__":
    main()
