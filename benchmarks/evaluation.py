"""The suite `standard` against torchattacks' four attacks at the same published parameters, and against bare passes.

Both sides attack the same examples in this process, in turns, and drop an example once it is broken. torchattacks
runs at the batch size at which its APGD is fastest here; what is shown are seconds, examples still standing, and for
each of our attacks the ratio of its time to that of the forwards and backwards that it made (bare passes of the same
network, at the batch sizes and in the precisions that it made them in). Both sides keep freed memory, as the command
does. Without torchattacks only our side runs.

With `--processes N` our side is the command `unperturbed evaluate --devices N`, started anew for each seed, and
torchattacks has N threads instead.

    python benchmarks/evaluation.py RUN DATA [--examples 500] [--seeds 3] [--threat Linf:0.3] [--processes 1]
                                    [--precision 32]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from unperturbed.attacks.base import padded_logits
from unperturbed.attacks.gradient import Suite
from unperturbed.cli.memory import keep_freed_memory
from unperturbed.data.sources import load_data
from unperturbed.data.split import select
from unperturbed.evaluation import accuracy
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.block import Block, Networks
from unperturbed.findings import Outcome
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import InPrecision
from unperturbed.suites.autoattack import STANDARD
from unperturbed.threat import Threat
from unperturbed.training.run import Run
from unperturbed.types import Inputs, Labels


class Pass(NamedTuple):
    """One pass of the network."""

    size: int
    gradient: bool
    """With a backward to the inputs."""
    rough: bool
    """In bfloat16."""
    memory_format: torch.memory_format


Passes = dict[str, Counter[Pass]]


def theirs(model: nn.Module, x: Inputs, y: Labels, threat: Threat, seed: int, size: int) -> tuple[list[bool], float]:
    """Return which examples stand after torchattacks' attacks, and the seconds."""
    import torchattacks

    began = time.perf_counter()
    words = {"eps": threat.eps, "norm": threat.norm, "seed": seed}
    classes = padded_logits(model, x[:1], 1).shape[1]
    attacks = [
        torchattacks.APGD(model, steps=100, n_restarts=1, loss="ce", **words),
        torchattacks.APGDT(model, steps=100, n_restarts=1, n_classes=classes, **words),
        torchattacks.FAB(model, steps=100, n_restarts=1, multi_targeted=True, n_classes=classes, **words),
        torchattacks.Square(model, n_queries=5000, n_restarts=1, **words),
    ]
    standing = padded_logits(model, x, size).argmax(1) == y
    for attack in attacks:
        before = time.perf_counter()
        for rows in torch.split(standing.nonzero()[:, 0], size):
            z = attack(x[rows], y[rows])
            standing[rows] = (padded_logits(model, z, size).argmax(1) == y[rows]) | ~threat.contains(x[rows], z)
        spent = time.perf_counter() - before
        print(f"  theirs {type(attack).__name__:9} {spent:7.1f} s, standing {int(standing.sum())}", flush=True)
    return standing.tolist(), time.perf_counter() - began


def in_processes(given: argparse.Namespace, seed: int) -> tuple[int, float]:
    """Return how many examples stand after the command in several processes, and its seconds."""
    words = [given.run, "--suite=standard", f"--examples={given.examples}", f"--devices={given.processes}"]
    words += [f"--precision={given.precision}", f"--seed={seed}", f"--data={given.data}"]
    words += [f"--threat={given.threat}"] if given.threat else []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        call = [sys.executable, "-m", "unperturbed", "evaluate", *words, f"--out={folder}", "--json"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        printed = subprocess.run(call, env=environment, check=True, capture_output=True, text=True).stdout
    found = json.loads(printed)
    for each in found["attacks"]:
        print(f"  ours   {each['name']:9} {each['seconds']:7.1f} s over all, standing {each['robust_after']:.1%}")
    return round(found["robust_accuracy"] * found["n"]), time.perf_counter() - began


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


def note_passes(model: nn.Module) -> Passes:
    """Return what fills up, as evaluations run, with the passes of each attack, by size, gradient and precision."""
    seen, passes, attack = Counter[Pass](), Passes(), accuracy.attack_block

    def note(_: nn.Module, given: tuple[Inputs]) -> None:
        (x,) = given
        form = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        seen[Pass(len(x), x.requires_grad, torch.is_autocast_enabled(x.device.type), form)] += 1

    def noted_attack(networks: Networks, block: Block, threat: Threat, suite: Suite, seed: int) -> None:
        seen.clear()
        attack(networks, block, threat, suite, seed)
        passes.setdefault(suite.attacks[len(block.tallies) - 1].label, Counter()).update(seen)

    model.register_forward_pre_hook(note)
    accuracy.attack_block = noted_attack
    return passes


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


def main() -> None:
    """Print both sides, seed by seed, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("data")
    parser.add_argument("--threat")
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--precision", choices=("auto", "32"), default="auto")
    given = parser.parse_args()
    keep_freed_memory()
    run, data = Run.open(given.run), load_data(given.data)
    model = run.model.requires_grad_(False)
    assert data.test is not None
    split = select(data.test, torch.arange(given.examples))
    x, y = split.inputs(torch.arange(given.examples)), split.labels
    threat = Threat.parse(given.threat, run.bounds) if given.threat else run.threat
    if given.processes > 1:
        torch.set_num_threads(given.processes)
    try:
        size = best_size(model, x, y, threat)
        print(f"torchattacks sees {size} examples at a time")
    except ImportError:
        size = 0
    if given.processes > 1:
        for seed in range(given.seeds):
            standing, seconds = in_processes(given, seed)
            print(f"ours in {given.processes} processes: {seconds:.1f} s, standing {standing}", flush=True)
            if size:
                left, other = theirs(model, x, y, threat, seed, size)
                print(f"theirs: {other:.1f} s, standing {sum(left)}; {other / seconds:.2f} times ours", flush=True)
        return

    outcomes, others, spent, passes = list[Outcome](), list[list[bool]](), list[float](), note_passes(model)
    for seed in range(given.seeds):
        outcomes.append(evaluate(model, split, threat, STANDARD, seed=seed, precision=given.precision))
        for each in outcomes[-1].attacks:
            standing = round(each.robust_after * given.examples)
            print(f"  ours   {each.name:9} {each.seconds:7.1f} s, standing {standing}", flush=True)
        if size:
            standing_there, seconds = theirs(model, x, y, threat, seed, size)
            others.append(standing_there)
            spent.append(seconds)
    ours = statistics.median(outcome.seconds for outcome in outcomes)
    print(f"ours: {ours:.1f} s; standing {[round(o.robust_accuracy.value * o.n) for o in outcomes]}")
    if size:
        other = statistics.median(spent)
        print(f"theirs: {other:.1f} s; standing {[sum(each) for each in others]}; {other / ours:.2f} times ours")
        both = [[verdict == "survived" for verdict in o.examples["verdict"]] for o in outcomes], others
        ours_left, theirs_left = (sum(map(all, zip(*side, strict=True))) for side in both)
        print(f"standing under all seeds: ours {ours_left}, theirs {theirs_left}")

    with under_attack(model):
        seconds_of = {made: bare_seconds(model, x, made) for made in set().union(*passes.values())}
    for attack, *records in zip(STANDARD.attacks, *(outcome.attacks for outcome in outcomes), strict=True):
        made = passes[attack.label]
        examples = sum(each.size * count for each, count in made.items())
        needed = sum(record.forwards for record in records) / examples  # the others fill batches up, or verify
        bare = needed * sum(seconds_of[each] * count for each, count in made.items()) / len(records)
        spent = statistics.median(record.seconds for record in records)
        rough = sum(each.size * count for each, count in made.items() if each.rough) / examples
        print(
            f"{attack.label:9} {spent:6.1f} s, {spent / bare:.2f} of its bare passes ({records[0].forwards} forward, "
            f"{rough:.0%} in bfloat16; {1 / needed:.2f} times as many with what fills batches up)"
        )


if __name__ == "__main__":
    main()
