"""Steps of the main methods beside a plain training step, and beside the bare passes that their formulas need.

Part of `python -m benchmarks`.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from benchmarks.method_steps import NETWORKS, step_of
from benchmarks.ratios import Row
from torch import Tensor
from torch.nn import functional

from unperturbed.cli.memory import keep_freed_memory
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method
from unperturbed.methods.cure import CURE
from unperturbed.methods.dale import DALE
from unperturbed.methods.elle import ELLE
from unperturbed.methods.erm import ERM
from unperturbed.methods.fgsm import FGSM
from unperturbed.methods.gradient_penalty import GradientPenalty
from unperturbed.methods.llr import LLR
from unperturbed.methods.scorpio import SCORPIO
from unperturbed.methods.trades import TRADES
from unperturbed.training.prepare import make_optimiser
from unperturbed.training.recipe import Recipe

Step = Callable[[], None]
ERM_STEP, BARE = "erm", "bare passes"
MEMORY = "peak memory of erm"
COLUMNS = {ERM_STEP: "time, `erm` = 1", BARE: "time, bare passes = 1", MEMORY: "peak memory, `erm` = 1"}


@dataclass(frozen=True)
class Passes:
    """The passes that a method's formula needs for one step, each by the whole batch.

    Attributes:
        attack: forwards in eval mode, each with a backward to the inputs.
        training: forwards in train mode, with a backward to the weights.
        slopes: of those, the forwards with a backward to the inputs as well.
        second: of those, the forwards whose gradient to the inputs is part of the loss.
        predictions: forwards in eval mode without a backward.
    """

    attack: int = 0
    training: int = 1
    slopes: int = 0
    second: int = 0
    predictions: int = 0

    def __str__(self) -> str:
        """Return the numbers of passes in words."""
        forwards, to_inputs = self.attack + self.training + self.predictions, self.attack + self.slopes + self.second
        second = f", {self.second} second derivative{'s'[: self.second > 1]}" if self.second else ""
        return f"{forwards} forward, {to_inputs} to the inputs, {self.training} to the weights{second}"


METHODS: Mapping[str, tuple[Method, Passes]] = {
    "erm": (ERM(), Passes()),
    "fgsm": (FGSM(), Passes(attack=1)),
    "at-10": (AT(PGD(steps=10)), Passes(attack=10)),
    "trades": (TRADES(), Passes(attack=10, training=2, predictions=1)),
    "dale": (DALE(), Passes(attack=10, training=2)),
    "scorpio-1": (SCORPIO(steps=1), Passes(attack=2)),
    "scorpio-3": (SCORPIO(steps=3), Passes(attack=4)),
    "llr": (LLR(), Passes(attack=3, training=2, second=1)),
    "llr, differences": (LLR(form="differences"), Passes(attack=3, training=3)),
    "gradient-penalty": (GradientPenalty(), Passes(training=2, slopes=1)),
    "cure": (CURE(), Passes(attack=1, training=2, second=2)),
    "elle": (ELLE(), Passes(attack=1, training=4)),
}


def bare_step(passes: Passes, network: str, size: int) -> Step:
    """Return the passes and an optimiser's step in plain PyTorch, float32 and the default memory layout."""
    torch.manual_seed(0)
    make, shape, _ = NETWORKS[network]
    model = make()
    optimiser = make_optimiser(model, Recipe())
    x, y = torch.rand(size, *shape), torch.randint(10, (size,))

    def loss_with_slope(number: int) -> Tensor:
        leaf = x.clone().requires_grad_(number < passes.slopes + passes.second)
        loss = functional.cross_entropy(model(leaf), y)
        if number < passes.second:
            (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
            return loss + gradient.square().sum()
        if leaf.requires_grad:
            torch.autograd.grad(loss, leaf, retain_graph=True)
        return loss

    def step() -> None:
        model.eval().requires_grad_(False)
        for _ in range(passes.attack):
            leaf = x.clone().requires_grad_()
            torch.autograd.grad(functional.cross_entropy(model(leaf), y), leaf)
        with torch.no_grad():
            for _ in range(passes.predictions):
                model(x)
        model.train().requires_grad_(True)
        losses = [loss_with_slope(number) for number in range(passes.training)]
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()
        optimiser.step()

    return step


@dataclass(frozen=True)
class Steps:
    """The steps of all methods on one network, ours and bare, after a first call of each."""

    network: str
    ours: Mapping[str, Step]
    bare: Mapping[str, Step]
    rounds: int
    """In which every step is taken once; a repeat has the medians of them."""

    def times(self) -> list[Row]:
        """Return the ratios of one repeat, of seconds of processor time."""
        steps = [*self.ours.items()] + [(f"{BARE} of {name}", step) for name, step in self.bare.items()]
        spent: dict[str, list[float]] = {name: [] for name, _ in steps}
        for _ in range(self.rounds):
            for name, step in steps:
                began = time.process_time()
                step()
                spent[name].append(time.process_time() - began)
        seconds = {name: statistics.median(values) for name, values in spent.items()}
        rows = []
        for name in self.ours:
            for beside, other in ((ERM_STEP, seconds[ERM_STEP]), (BARE, seconds[f"{BARE} of {name}"])):
                ratio = seconds[name] / other
                rows.append(Row(f"step, {self.network}", name, beside, (ratio,), str(METHODS[name][1])))
        return rows


def prepared(network: str, size: int, rounds: int) -> Steps:
    """Return the steps on a network; every one has been taken once."""
    ours = {name: step_of(method, network, size) for name, (method, _) in METHODS.items()}
    bare = {name: bare_step(passes, network, size) for name, (_, passes) in METHODS.items()}
    for step in (*ours.values(), *bare.values()):
        step()
    return Steps(network, ours, bare, rounds)


def memory(network: str, size: int) -> list[Row]:
    """Return the ratios of the memory that two steps take in a fresh process, beyond what it held before."""
    group = f"step, {network}"
    if not Path("/proc/self/status").exists():
        return [Row(group, name, MEMORY, missing="measured on Linux only") for name in METHODS]
    processes = get_context("forkserver")
    processes.set_forkserver_preload([__name__, "benchmarks.bench_attacks"])  # all that a process would import
    with ProcessPoolExecutor(1, processes, max_tasks_per_child=1) as pool:
        peaks = dict(zip(METHODS, pool.map(partial(peak, network=network, size=size), METHODS), strict=True))
    return [Row(group, name, MEMORY, (peak / peaks[ERM_STEP],)) for name, peak in peaks.items()]


def peak(name: str, network: str, size: int) -> int:
    """Return the largest growth of this process's memory in two steps of a method, in KiB."""
    keep_freed_memory()
    torch.set_num_threads(1)
    step = step_of(METHODS[name][0], network, size)
    before = _memory("VmRSS")
    step()
    step()
    return _memory("VmHWM") - before


def _memory(field: str) -> int:
    """Return a field of Linux in KiB; unlike `ru_maxrss`, it knows nothing of the process that started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
