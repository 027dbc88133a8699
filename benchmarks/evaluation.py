"""The suites `fast` and `standard` against torchattacks' four attacks at the published parameters, in one run.

All sides attack the same examples in this process, in turns seed by seed, and drop an example once it is broken. `fast`
includes its check by `standard`. torchattacks (the extra `bench`) runs at the batch size at which its APGD is fastest
here. A row a side: examples still standing, medians over the seeds of seconds and passes (forwards, with or without a
backward; on our side without those that fill batches up), and ratios to torchattacks. For `standard` also, for each
attack, the ratio of its time to that of the forwards and backwards that it made (bare passes of the same network, at
the batch sizes and in the precisions that it made them in). All sides keep freed memory, as the command does. Without
torchattacks only our sides run.

With `--processes N` our side is the command `unperturbed evaluate --devices N`, started anew for each seed, and
torchattacks has N threads instead.

    python benchmarks/evaluation.py RUN [DATA] [--suites fast standard] [--examples 500] [--seeds 3]
                                    [--threat Linf:0.3] [--processes 1] [--precision 32]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Literal, NamedTuple

import torch
from torch import nn

from unperturbed.attacks.base import padded_logits
from unperturbed.attacks.gradient import Suite
from unperturbed.cli.memory import keep_freed_memory
from unperturbed.data.sources import load_data
from unperturbed.data.split import Split, select
from unperturbed.evaluation import block
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.block import Block
from unperturbed.evaluation.search import Networks
from unperturbed.findings import Outcome
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import InPrecision
from unperturbed.suites.autoattack import STANDARD
from unperturbed.suites.fast import FAST
from unperturbed.threat import Threat
from unperturbed.training.run import Run
from unperturbed.types import Inputs, Labels

THEIRS = "torchattacks"
SUITES = {"fast": FAST, "standard": STANDARD}
Precision = Literal["auto", "32"]
Clock = Callable[[], float]


class Pass(NamedTuple):
    """One pass of the network."""

    size: int
    gradient: bool
    """With a backward to the inputs."""
    rough: bool
    """In bfloat16."""
    memory_format: torch.memory_format


Passes = dict[str, Counter[Pass]]


class Turn(NamedTuple):
    """One evaluation by one side."""

    standing: list[bool]
    seconds: float
    passes: int
    attacks: tuple[tuple[float, int], ...] = ()
    """Seconds and passes of each attack."""


@contextmanager
def counted(model: nn.Module) -> Iterator[list[int]]:
    """Count the examples that the model sees, into a list of one number."""
    seen = [0]

    def count(_: nn.Module, inputs: tuple[Inputs]) -> None:
        seen[0] += len(inputs[0])

    hook = model.register_forward_pre_hook(count)
    try:
        yield seen
    finally:
        hook.remove()


def theirs(
    model: nn.Module, x: Inputs, y: Labels, threat: Threat, seed: int, size: int, clock: Clock = time.perf_counter
) -> Turn:
    """Return what torchattacks' attacks leave standing, one after the other."""
    import torchattacks

    began, parts = clock(), []
    words = {"eps": threat.eps, "norm": threat.norm, "seed": seed}
    classes = padded_logits(model, x[:1], 1).shape[1]
    attacks = [
        torchattacks.APGD(model, steps=100, n_restarts=1, loss="ce", **words),
        torchattacks.APGDT(model, steps=100, n_restarts=1, n_classes=classes, **words),
        torchattacks.FAB(model, steps=100, n_restarts=1, multi_targeted=True, n_classes=classes, **words),
        torchattacks.Square(model, n_queries=5000, n_restarts=1, **words),
    ]
    with counted(model) as seen:
        standing = padded_logits(model, x, size).argmax(1) == y
        for attack in attacks:
            before, passes = clock(), seen[0]
            for rows in torch.split(standing.nonzero()[:, 0], size):
                z = attack(x[rows], y[rows])
                standing[rows] = (padded_logits(model, z, size).argmax(1) == y[rows]) | ~threat.contains(x[rows], z)
            parts.append((clock() - before, seen[0] - passes))
            shown(type(attack).__name__, parts[-1][0], int(standing.sum()), parts[-1][1])
    return Turn(standing.tolist(), clock() - began, seen[0], tuple(parts))


def ours(model: nn.Module, split: Split, threat: Threat, suite: Suite, seed: int, precision: Precision) -> Outcome:
    """Return the outcome of a suite, with its check if it has one."""
    outcome = evaluate(model, split, threat, suite, seed=seed, precision=precision)
    for record in outcome.attacks:
        shown(record.name, record.seconds, round(record.robust_after * outcome.n), record.forwards)
    return outcome


def turn_of(outcome: Outcome) -> Turn:
    """Return an outcome as a turn."""
    standing = [verdict == "survived" for verdict in outcome.examples["verdict"]]
    return Turn(standing, outcome.seconds, sum(record.forwards for record in outcome.attacks))


def shown(attack: str, seconds: float, standing: int, passes: int) -> None:
    """Print the line of an attack."""
    print(f"    {attack:17} {seconds:7.1f} s, standing {standing}, {passes:,} passes", flush=True)


def in_processes(arguments: argparse.Namespace, suite: str, seed: int) -> Turn:
    """Return what the command leaves standing in several processes, as many True as survive."""
    words = [arguments.run, f"--suite={suite}", f"--examples=first:{arguments.examples}", f"--seed={seed}"]
    words += [f"--devices={arguments.processes}", f"--precision={arguments.precision}"]
    words += [f"--data={arguments.data}"] if arguments.data else []
    words += [f"--threat={arguments.threat}"] if arguments.threat else []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        call = [sys.executable, "-m", "unperturbed", "evaluate", *words, f"--out={folder}", "--json"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        printed = subprocess.run(call, env=environment, check=True, capture_output=True, text=True).stdout
    result = json.loads(printed)
    for record in result["attacks"]:
        shown(record["name"], record["seconds"], round(record["robust_after"] * result["n"]), record["forwards"])
    passes = sum(record["forwards"] for record in result["attacks"])
    return Turn([True] * result["counts"]["survived"], time.perf_counter() - began, passes)


def best_size(model: nn.Module, x: Inputs, y: Labels, threat: Threat) -> int:
    """Return the batch size at which torchattacks' APGD takes the least time an example."""
    import torchattacks

    attack = torchattacks.APGD(model, eps=threat.eps, norm=threat.norm, steps=5, n_restarts=1)
    sizes = [size for size in (32, 64, 128, 256, 512) if size <= len(x)]
    return min(sizes, key=lambda size: median(lambda: attack(x[:size], y[:size]), 3) / size)


def median(run: Callable[[], object], repeats: int = 7) -> float:
    """Return the median seconds of a call, after one that does not count."""
    run()
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


@contextmanager
def noted_passes(model: nn.Module, passes: Passes) -> Iterator[None]:
    """Add up the passes of each attack, by size, gradient and precision, of the evaluations in this block."""
    seen, attack = Counter[Pass](), block.attack_block

    def note(_: nn.Module, arguments: tuple[Inputs]) -> None:
        (x,) = arguments
        form = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        seen[Pass(len(x), x.requires_grad, torch.is_autocast_enabled(x.device.type), form)] += 1

    def noted_attack(networks: Networks, state: Block, threat: Threat, suite: Suite, seed: int) -> None:
        seen.clear()
        attack(networks, state, threat, suite, seed)
        passes.setdefault(suite.attacks[len(state.tallies) - 1].label, Counter()).update(seen)

    hook = model.register_forward_pre_hook(note)
    block.attack_block = noted_attack
    try:
        yield
    finally:
        block.attack_block = attack
        hook.remove()


def bare_seconds(model: nn.Module, x: Inputs, made: Pass) -> float:
    """Return the seconds of such a pass, alone."""
    network = InPrecision(model, torch.bfloat16 if made.rough else None, memory_format=made.memory_format)
    some = x[torch.arange(made.size) % len(x)]

    def run() -> None:
        if not made.gradient:
            with torch.no_grad():
                network(some)
            return
        z = some.clone().requires_grad_()
        torch.autograd.grad(network(z)[:, 0].sum(), z)

    return median(run, 5)


def overheads(model: nn.Module, x: Inputs, passes: Passes, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield, for each attack of `standard`, its seconds relative to those of its passes alone."""
    with under_attack(model):
        seconds_of = {made: bare_seconds(model, x, made) for made in set().union(*passes.values())}
    for attack, *records in zip(STANDARD.attacks, *(outcome.attacks for outcome in outcomes), strict=True):
        made = passes[attack.label]
        examples = sum(one.size * count for one, count in made.items())
        if not examples:
            continue
        needed = sum(record.forwards for record in records) / examples  # the others fill batches up, or verify
        bare = needed * sum(seconds_of[one] * count for one, count in made.items()) / len(records)
        spent = statistics.median(record.seconds for record in records)
        rough = sum(one.size * count for one, count in made.items() if one.rough) / examples
        yield (
            f"{attack.label:9} {spent:6.1f} s, {spent / bare:.2f} of its bare passes ({records[0].forwards} forward, "
            f"{rough:.0%} in bfloat16; {1 / needed:.2f} times as many with what fills batches up)"
        )


def rows(turns: Mapping[str, Sequence[Turn]]) -> Iterator[str]:
    """Yield the row of each side; ratios are those of the medians."""
    yield "| side | standing | under all seeds | seconds | passes | seconds, torchattacks' over these | passes |"
    yield 7 * "|---" + "|"
    seconds = {side: statistics.median(turn.seconds for turn in of_side) for side, of_side in turns.items()}
    passes = {side: statistics.median(turn.passes for turn in of_side) for side, of_side in turns.items()}
    for side, of_side in turns.items():
        counts = ", ".join(str(sum(turn.standing)) for turn in of_side)
        always = sum(map(all, zip(*(turn.standing for turn in of_side), strict=False)))
        ratios = [f"{values[THEIRS] / values[side]:.2f}" if THEIRS in turns else "" for values in (seconds, passes)]
        yield f"| {side} | {counts} | {always} | {seconds[side]:.1f} | {passes[side]:,.0f} | {' | '.join(ratios)} |"


def main() -> None:
    """Print the lines of all attacks, seed by seed, and then a row a side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="a run folder; without one nothing is measured")
    parser.add_argument("data", nargs="?", help="instead of the run's own")
    parser.add_argument("--suites", nargs="+", choices=("fast", "standard"), default=["fast", "standard"])
    parser.add_argument("--threat")
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--precision", choices=("auto", "32"), default="auto")
    arguments = parser.parse_args()
    if arguments.run is None:
        parser.print_usage()
        return
    keep_freed_memory()
    run = Run.open(arguments.run)
    data, model = load_data(arguments.data) if arguments.data else run.data, run.model.requires_grad_(False)
    assert data.test is not None
    split = select(data.test, torch.arange(arguments.examples))
    x, y = split.inputs(torch.arange(arguments.examples)), split.labels
    threat = Threat.parse(arguments.threat, run.bounds) if arguments.threat else run.threat
    if arguments.processes > 1:
        torch.set_num_threads(arguments.processes)
    try:
        size = best_size(model, x, y, threat)
        print(f"torchattacks sees {size} examples at a time")
    except ImportError:
        size = 0
    turns, outcomes, passes = defaultdict[str, list[Turn]](list), list[Outcome](), Passes()
    for seed in range(arguments.seeds):
        for name in arguments.suites:
            print(f"  {name}, seed {seed}", flush=True)
            if arguments.processes > 1:
                turns[name].append(in_processes(arguments, name, seed))
                continue
            with noted_passes(model, passes) if name == STANDARD.name else nullcontext():
                outcome = ours(model, split, threat, SUITES[name], seed, arguments.precision)
            turns[name].append(turn_of(outcome))
            outcomes += [outcome] if name == STANDARD.name else []
        if size:
            print(f"  {THEIRS}, seed {seed}", flush=True)
            turns[THEIRS].append(theirs(model, x, y, threat, seed, size))
    print("\n".join(rows(turns)))
    if outcomes:
        print("\n".join(overheads(model, x, passes, outcomes)))


if __name__ == "__main__":
    main()
