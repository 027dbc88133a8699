"""Steps that train on the loss's geometry: against the same written plainly, and against adversarial training's step.

PreActResNet of width 16 with SiLU, batch 128 of CIFAR-10's size, Linf 8/255. Times are medians of alternating repeats
in one process; memory is the high-water mark of a fresh process each.

    python benchmarks/geometry_steps.py [--repeats 7] [--memory]
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional

from unperturbed.architectures.preact_resnet import PreActResNet
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method
from unperturbed.methods.elle import ELLE
from unperturbed.methods.gradient_penalty import GradientPenalty
from unperturbed.methods.llr import LLR
from unperturbed.methods.scorpio import SCORPIO
from unperturbed.networks.modes import clean_batch_stats, under_attack
from unperturbed.networks.precision import InPrecision, choose, plainly
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training.prepare import make_optimiser
from unperturbed.training.recipe import Recipe
from unperturbed.training.step import optimisation_step
from unperturbed.types import Batch

EPS = 8 / 255
THREAT = Threat("Linf", EPS)
Step = Callable[[], None]


def our_step(method: Method) -> Step:
    """Return the step as `train` takes it."""
    net = network()
    precision = choose("auto", net, torch.device("cpu"))
    net.to(memory_format=precision.memory_format)  # type: ignore[call-overload]
    attacked = InPrecision(net, precision.autocast)
    fabric = Fabric(accelerator="cpu", devices=1)
    wrapped, optimiser = fabric.setup(attacked, make_optimiser(net, Recipe()))
    wrapped.train()
    batch = a_batch(precision.memory_format)
    return lambda: void(
        optimisation_step(fabric, attacked, wrapped, optimiser, method, batch, THREAT, Noise.of(0, batch.ids))
    )


def plain_llr() -> Step:
    """Return LLR's step with two steps of search as its formula reads: in float32, with a double backward."""
    net = network()
    optimiser, batch = make_optimiser(net, Recipe()), a_batch(torch.contiguous_format)
    x, y = batch.x, batch.y

    def loss(z: Tensor) -> Tensor:
        return functional.cross_entropy(net(z), y, reduction="none")

    def step() -> None:
        net.eval()
        leaf = x.clone().requires_grad_()
        clean = loss(leaf)
        (g,) = torch.autograd.grad(clean.sum(), leaf)
        z = x + torch.empty_like(x).uniform_(-EPS, EPS)
        for _ in range(2):
            z.requires_grad_()
            gap = (loss(z) - clean.detach() - ((z - x) * g).flatten(1).sum(1)).abs()
            (up,) = torch.autograd.grad(gap.sum(), z)
            z = (x + (z.detach() + 1.25 * EPS * up.sign() - x).clamp(-EPS, EPS)).clamp(0, 1)
        net.train()
        with clean_batch_stats(net):
            nominal = loss(x)
            leaf = x.clone().requires_grad_()
            clean = loss(leaf)
            (g,) = torch.autograd.grad(clean.sum(), leaf, create_graph=True)
            slope = ((z - x) * g).flatten(1).sum(1)
            gap = (loss(z) - clean - slope).abs()
        optimiser.zero_grad()
        (2 * nominal + 4 * gap + 1.2 * slope.abs()).mean().backward()
        optimiser.step()

    return step


def bare_passes(attack: int, forwards: int, to_inputs: int = 0) -> Step:
    """Return so many passes and an optimiser's step, and nothing else.

    `attack` pairs of forward and backward to the inputs in the precision and mode of attacks, then `forwards` forwards
    with their backward to the weights in float32, the first of them with `to_inputs` backwards to the inputs as well.
    """
    net = network()
    precision = choose("auto", net, torch.device("cpu"))
    net.to(memory_format=precision.memory_format)  # type: ignore[call-overload]
    model = InPrecision(net, precision.autocast)
    optimiser, batch = make_optimiser(net, Recipe()), a_batch(precision.memory_format)

    def step() -> None:
        with under_attack(model):
            for _ in range(attack):
                leaf = batch.x.clone().requires_grad_()
                torch.autograd.grad(functional.cross_entropy(model(leaf), batch.y), leaf)
        with plainly():
            leaf = batch.x.clone().requires_grad_(to_inputs > 0)
            losses = [functional.cross_entropy(model(leaf if k == 0 else batch.x), batch.y) for k in range(forwards)]
            for _ in range(to_inputs):
                torch.autograd.grad(losses[0], leaf, retain_graph=True)
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()
        optimiser.step()

    return step


def void(_: object) -> None:
    """Forget a result."""


def network() -> PreActResNet:
    torch.manual_seed(0)
    return PreActResNet(width=16, activation="silu").train()


def a_batch(memory_format: torch.memory_format) -> Batch:
    draw = torch.Generator().manual_seed(0)
    x = torch.rand((128, 3, 32, 32), generator=draw).contiguous(memory_format=memory_format)
    return Batch(x, torch.randint(10, (128,), generator=draw), torch.arange(128))


STEPS: dict[str, Callable[[], Step]] = {
    "llr-2, written plainly": plain_llr,
    "llr-2": partial(our_step, LLR()),
    "llr-2, differences": partial(our_step, LLR(form="differences")),
    "llr-2, differences, two parts": partial(our_step, LLR(form="differences", parts=2)),
    "llr-2, two parts": partial(our_step, LLR(parts=2)),
    "at-10": partial(our_step, AT(PGD(steps=10))),
    "scorpio-3, weight 0.8": partial(our_step, SCORPIO(weight=0.8)),
    "scorpio-1, weight 0.8": partial(our_step, SCORPIO(steps=1, weight=0.8)),
    "scorpio-3": partial(our_step, SCORPIO()),
    "scorpio-1": partial(our_step, SCORPIO(steps=1)),
    "elle": partial(our_step, ELLE()),
    "elle, bare passes": partial(bare_passes, 1, 4),
    "gradient-penalty": partial(our_step, GradientPenalty()),
    "gradient-penalty, bare passes": partial(bare_passes, 0, 2, 1),
}
MEASURED = tuple(name for name in STEPS if name.startswith("llr"))


def times(repeats: int) -> None:
    """Print the medians, and their ratios to what they are compared with."""
    steps = {name: make() for name, make in STEPS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):  # the first round is set-up
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            seconds[name] += [time.perf_counter() - began] if repeat else []
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{torch.get_num_threads()} threads, {repeats} alternating repeats")
    for name, value in median.items():
        line = f"{name:31}{value * 1e3:7.0f} ms"
        if name.startswith("llr"):
            line += f"   {median['llr-2, written plainly'] / value:5.2f} times as fast as plainly"
        if name.startswith("scorpio"):
            line += f"   {value / median['at-10']:5.2f} of at-10"
        if f"{name}, bare passes" in median:
            line += f"   {value / median[f'{name}, bare passes']:5.2f} of its bare passes"
        print(line)


def memory() -> None:
    """Print the high-water mark of three steps, in a fresh process each."""
    marks = {}
    for name in MEASURED:
        call = [sys.executable, __file__, "--only", name]
        marks[name] = float(subprocess.run(call, check=True, capture_output=True, text=True).stdout)
        print(f"{name:31}{marks[name]:7.0f} MiB   {marks[name] / marks[MEASURED[0]]:5.2f} of plainly")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--memory", action="store_true", help="memory in place of time")
    options.add_argument("--only", choices=MEASURED, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.only:
        step = STEPS[arguments.only]()
        for _ in range(3):
            step()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    elif arguments.memory:
        memory()
    else:
        times(arguments.repeats)


if __name__ == "__main__":
    main()
