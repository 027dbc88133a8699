"""One step of adversarial training with ten steps, ours against the same step written plainly.

The plain step is what one would write first: float32, the default memory layout, torch's own calls. Both run in this
process, alternating, on the same network and data; what is shown are medians and their ratio.

    python benchmarks/training_step.py [--compile] [--repeats 9] [--width 16] [--batch 128]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from lightning_fabric import Fabric
from torch.nn import functional

from unperturbed.architectures.preact_resnet import PreActResNet
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.networks.precision import InPrecision, choose
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training.prepare import make_optimiser
from unperturbed.training.recipe import Recipe
from unperturbed.training.step import optimisation_step
from unperturbed.types import Batch

STEPS, EPS, RECIPE = 10, 8 / 255, Recipe(optimiser="sgd", lr=0.01)


def plain_step(width: int, batch: Batch) -> Callable[[], None]:
    """Return the step written plainly."""
    model = network(width)
    optimiser = make_optimiser(model, RECIPE)
    x, y, size = batch.x, batch.y, 2.5 * EPS / STEPS

    def step() -> None:
        model.eval()
        z = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
        for _ in range(STEPS):
            z.requires_grad_()
            (gradient,) = torch.autograd.grad(functional.cross_entropy(model(z), y, reduction="sum"), z)
            z = (x + (z.detach() + size * gradient.sign() - x).clamp(-EPS, EPS)).clamp(0, 1)
        model.train()
        optimiser.zero_grad()
        functional.cross_entropy(model(z), y).backward()
        optimiser.step()

    return step


def our_step(width: int, batch: Batch, compiled: bool) -> Callable[[], None]:
    """Return the step as `train` takes it."""
    model = network(width)
    precision = choose("auto", model, torch.device("cpu"))
    model = model.to(memory_format=precision.memory_format)
    fabric = Fabric(accelerator="cpu", devices=1)
    attacked = InPrecision(model, precision.autocast, compile=compiled)
    wrapped, optimiser = fabric.setup(attacked, make_optimiser(model, RECIPE))
    batch = replace(batch, x=batch.x.contiguous(memory_format=precision.memory_format))
    method, threat = AT(PGD(steps=STEPS)), Threat("Linf", EPS)
    wrapped.train()

    def step() -> None:
        optimisation_step(fabric, attacked, wrapped, optimiser, method, batch, threat, Noise.of(0, batch.ids))

    return step


def network(width: int) -> PreActResNet:
    torch.manual_seed(0)
    return PreActResNet(width=width)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--compile", action="store_true")
    options.add_argument("--repeats", type=int, default=9)
    options.add_argument("--width", type=int, default=16)
    options.add_argument("--batch", type=int, default=128)
    arguments = options.parse_args()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(arguments.batch, 3, 32, 32, generator=generator)
    batch = Batch(x, torch.randint(10, (arguments.batch,), generator=generator), torch.arange(arguments.batch))
    steps = {"plain": plain_step(arguments.width, batch), "ours": our_step(arguments.width, batch, arguments.compile)}
    for step in steps.values():
        step()  # set-up and compilation apart
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.repeats):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    label = "ours, compiled" if arguments.compile else "ours"
    network = f"PreActResNet-18 width {arguments.width}"
    print(f"AT-{STEPS}, {network}, batch {arguments.batch}, {torch.get_num_threads()} threads")
    print(f"plain {medians['plain'] * 1e3:.0f} ms, {label} {medians['ours'] * 1e3:.0f} ms: ratio", end=" ")
    print(f"{medians['plain'] / medians['ours']:.2f} (median of {arguments.repeats} alternating repeats)")


if __name__ == "__main__":
    main()
